import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Batcher, type StepEntry } from '../../../src/engine/batcher.js';
import { blocksFor, KvBlocks } from '../../../src/engine/kv-blocks.js';
import { Sequence } from '../../../src/engine/sequence.js';

function setup(blocks: number, maxBatchTokens: number, maxSequences = 8, recomputeByToken = false) {
  const kv = new KvBlocks(blocks);
  return { kv, batcher: new Batcher({ maxBatchTokens, maxSequences, recomputeByToken }, kv) };
}

const sequence = (id: number, promptLength: number, capacity = 200) =>
  new Sequence(id, 0, new Int32Array(promptLength).fill(1), capacity);

/** Runs one step as the engine does; every complete sequence gets one more token. */
function step(batcher: Batcher): Map<number, number> {
  const entries = batcher.next();
  batcher.advance(entries);
  for (const entry of entries) if (entry.sequence.pending === 0) entry.sequence.append(2);
  return new Map(entries.map((entry) => [entry.sequence.id, entry.count]));
}

function expectLegal(entries: StepEntry[], maxBatchTokens: number, maxSequences: number) {
  const tokens = entries.reduce((sum, entry) => sum + entry.count, 0);
  expect(tokens).toBeGreaterThan(0);
  expect(tokens).toBeLessThanOrEqual(maxBatchTokens);
  expect(entries.length).toBeLessThanOrEqual(maxSequences);
  const held = entries.flatMap((entry) => entry.sequence.blockIds);
  expect(new Set(held).size).toBe(held.length);
  for (const { sequence, count } of entries) {
    expect(sequence.blockIds.length).toBe(blocksFor(sequence.computed + count));
    expect(sequence.computed + count).toBeLessThanOrEqual(sequence.length);
  }
}

describe('Batcher', () => {
  it('cuts a prompt into chunks and then decodes token by token', () => {
    const { batcher } = setup(10, 16);
    batcher.add(sequence(1, 40));
    expect([1, 2, 3, 4, 5].map(() => step(batcher).get(1))).toEqual([16, 16, 8, 1, 1]);
  });

  it('puts decode tokens before prefill chunks in one step', () => {
    const { batcher } = setup(20, 16);
    batcher.add(sequence(1, 10));
    step(batcher);
    batcher.add(sequence(2, 40));
    expect([...step(batcher)]).toEqual([
      [1, 1],
      [2, 15],
    ]);
  });

  it('shares the budget between prompts', () => {
    const { batcher } = setup(20, 16);
    batcher.add(sequence(1, 100));
    batcher.add(sequence(2, 3));
    batcher.add(sequence(3, 100));
    expect([...step(batcher)]).toEqual([
      [1, 6],
      [2, 3],
      [3, 7],
    ]);
  });

  it('lets no more sequences in than allowed', () => {
    const { batcher } = setup(20, 16, 2);
    for (const id of [1, 2, 3]) batcher.add(sequence(id, 4));
    expect([...step(batcher).keys()]).toEqual([1, 2]);
    expect([batcher.runningCount, batcher.waitingCount]).toEqual([2, 1]);
  });

  it('preempts the youngest where blocks run out, and computes it anew', () => {
    const { batcher, kv } = setup(3, 64);
    const old = sequence(1, 32);
    const young = sequence(2, 30);
    batcher.add(old);
    batcher.add(young);
    step(batcher); // both prompts: a block each
    for (let i = 0; i < 10; i++) step(batcher); // the old one takes the third block, the young one stalls
    expect([young.computed, young.blockIds.length]).toEqual([32, 1]);
    while (old.computed < 64) expect([...step(batcher)]).toEqual([[1, 1]]);
    step(batcher); // position 64 of the old one needs a block: the young one gives its own
    expect([young.computed, young.blockIds.length]).toEqual([0, 0]);
    batcher.remove(old);
    expect(kv.freeCount).toBe(3);
    expect([...step(batcher)]).toEqual([[2, 33]]);
  });

  it('computes an answer anew token by token where chunks would change it', () => {
    const { batcher } = setup(2, 64, 1, true);
    const one = sequence(1, 40);
    batcher.add(one);
    for (let i = 0; i < 4; i++) step(batcher);
    one.paused = true;
    const other = sequence(2, 40);
    batcher.add(other);
    step(batcher);
    batcher.remove(other);
    one.paused = false;
    expect([1, 2, 3, 4].map(() => step(batcher).get(1))).toEqual([40, 1, 1, 1]);
    expect(one.length).toBe(44);
  });

  it('a sequence whose reader lags takes no part and yields its blocks and its place', () => {
    const { batcher } = setup(2, 64, 1);
    const lagging = sequence(1, 40);
    batcher.add(lagging);
    step(batcher);
    lagging.paused = true;
    const other = sequence(2, 40);
    batcher.add(other);
    expect([...step(batcher)]).toEqual([[2, 40]]);
    expect(lagging.blockIds).toEqual([]);
    batcher.remove(other);
    expect(step(batcher).size).toBe(0);
    lagging.paused = false;
    expect([...step(batcher)]).toEqual([[1, 41]]);
  });

  it('always finishes, within its limits, and gives every block back', () => {
    const request = fc.record({
      prompt: fc.integer({ min: 1, max: 120 }),
      answer: fc.integer({ min: 1, max: 60 }),
    });
    fc.assert(
      fc.property(
        fc.array(request, { minLength: 1, maxLength: 8 }),
        fc.integer({ min: 6, max: 20 }),
        fc.integer({ min: 1, max: 64 }),
        fc.integer({ min: 1, max: 4 }),
        (requests, blocks, maxBatchTokens, maxSequences) => {
          const { batcher, kv } = setup(blocks, maxBatchTokens, maxSequences);
          const open = new Set(requests.map((r, id) => sequence(id, r.prompt, r.prompt + r.answer)));
          for (const one of open) batcher.add(one);
          for (let steps = 0; open.size > 0; steps++) {
            expect(steps).toBeLessThan(20_000);
            const entries = batcher.next();
            expectLegal(entries, maxBatchTokens, maxSequences);
            batcher.advance(entries);
            const complete = entries.map((entry) => entry.sequence).filter((one) => one.pending === 0);
            for (const one of complete) one.append(2);
            for (const one of complete) if (one.isFull && open.delete(one)) batcher.remove(one);
          }
          expect(kv.freeCount).toBe(blocks);
        },
      ),
    );
  });
});
