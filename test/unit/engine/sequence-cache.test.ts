/** Sequences of a model with states: which slots they hold, where they stop, and what they take over. */
import { describe, expect, it } from 'vitest';
import { KvBlocks } from '../../../src/engine/kv-blocks.js';
import { Sequence } from '../../../src/engine/sequence.js';
import { SequenceCache } from '../../../src/engine/sequence-cache.js';

function setup(slots = 6, prefixCache = true) {
  const [blocks, states] = [new KvBlocks(20), new KvBlocks(slots)];
  return {
    blocks,
    states,
    cache: new SequenceCache(blocks, states, { recomputeByToken: false, prefixCache }),
  };
}

/** A prompt whose tokens from `fork` on are its own. */
function forked(id: number, length: number, fork: number): Sequence {
  const tokens = Int32Array.from({ length }, (_, at) => (at < fork ? at : 1000 * id + at));
  return new Sequence(id, 0, tokens, length + 100);
}

/** One step of at most `most` tokens; the number that it had. */
function step(cache: SequenceCache, sequence: Sequence, most: number): number {
  const count = cache.chunk(sequence, most);
  expect(cache.grow(sequence, sequence.computed + count)).toBe(true);
  expect(sequence.states.length).toBe(sequence.computed > 0 ? 1 : 0);
  expect(sequence.states).not.toContain(sequence.nextStates[0]);
  cache.advance(sequence, count);
  return count;
}

describe('SequenceCache', () => {
  it('reads one slot and writes another, two for a sequence and not more', () => {
    const { cache, states } = setup(6, false);
    const sequence = forked(1, 70, 0);
    expect([step(cache, sequence, 30), step(cache, sequence, 30), step(cache, sequence, 30)]).toEqual([
      30, 30, 10,
    ]);
    expect(states.freeCount).toBe(5);
    cache.release(sequence);
    expect([states.freeCount, sequence.states, sequence.computed]).toEqual([6, [], 0]);
  });

  it('writes the same slot again where a step was aborted', () => {
    const { cache } = setup();
    const sequence = forked(1, 70, 0);
    cache.grow(sequence, 30);
    const [slot] = sequence.nextStates;
    cache.grow(sequence, 30);
    expect(sequence.nextStates).toEqual([slot]);
    expect(sequence.states).toEqual([]);
  });

  it('ends chunks at borders of blocks, but for the last', () => {
    const { cache } = setup();
    const sequence = forked(1, 100, 0);
    expect([40, 40, 10, 40].map((most) => step(cache, sequence, most))).toEqual([32, 32, 10, 26]);
  });

  it('takes over blocks only as far as a state was kept', () => {
    const { cache } = setup();
    const first = forked(1, 120, 120);
    for (const most of [70, 70]) step(cache, first, most);
    const second = forked(2, 120, 110);
    cache.adopt(second);
    expect([second.computed, second.blockIds.length]).toEqual([64, 2]);
    expect(second.states).toHaveLength(1);
  });

  it('stops where a sequence parts from another, so that a third one need not', () => {
    const { cache } = setup();
    step(cache, forked(1, 120, 110), 120);
    const second = forked(2, 120, 110);
    cache.adopt(second);
    expect(second.computed).toBe(0);
    expect([step(cache, second, 120), step(cache, second, 120)]).toEqual([96, 24]);
    const third = forked(3, 120, 110);
    cache.adopt(third);
    expect(third.computed).toBe(96);
  });

  it('keeps one state of an answer, the latest', () => {
    const { cache, states } = setup(4);
    const sequence = forked(1, 32, 32);
    step(cache, sequence, 32);
    for (let i = 0; i < 100; i++) {
      sequence.append(i);
      step(cache, sequence, 1);
    }
    const keys = [0, 1, 2, 3].map((block) => states.has(sequence.blockKey(block)));
    expect(keys).toEqual([true, false, false, true]);
  });

  it('gives up kept states before a sequence goes without', () => {
    const { cache, states } = setup(3);
    const first = forked(1, 100, 0);
    for (const most of [40, 40, 40]) step(cache, first, most);
    const kept = () => [0, 1].filter((block) => states.has(first.blockKey(block)));
    expect(kept()).toEqual([0, 1]);
    cache.release(first);
    const [second, third] = [forked(2, 20, 0), forked(3, 20, 0)];
    expect([second, third].map((sequence) => cache.grow(sequence, 20))).toEqual([true, true]);
    expect(cache.grow(forked(4, 20, 0), 20)).toBe(true);
    expect(kept()).toEqual([]);
    expect(cache.grow(forked(5, 20, 0), 20)).toBe(false);
  });
});
