import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Batcher, type BatchLimits, type StepEntry } from '../../../src/engine/batcher.js';
import { blocksFor, KvBlocks } from '../../../src/engine/kv-blocks.js';
import { Sequence } from '../../../src/engine/sequence.js';

function setup(blocks: number, maxBatchTokens: number, maxSequences = 8, limits: Partial<BatchLimits> = {}) {
  const kv = new KvBlocks(blocks);
  const defaults = { recomputeByToken: false, prefixCache: false };
  return { kv, batcher: new Batcher({ maxBatchTokens, maxSequences, ...defaults, ...limits }, kv) };
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

/** A prompt whose tokens from `fork` on are the sequence's own. */
function forked(id: number, length: number, fork: number, capacity = 200): Sequence {
  const tokens = Int32Array.from({ length }, (_, at) => (at < fork ? at : 1000 * id + at));
  return new Sequence(id, 0, tokens, capacity);
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
    expect(batcher.counts).toEqual({ running: 2, waiting: 1 });
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
    const { batcher } = setup(2, 64, 1, { recomputeByToken: true });
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

describe('prefix cache', () => {
  const shared = (blocks: number, maxBatchTokens: number, maxSequences = 8) =>
    setup(blocks, maxBatchTokens, maxSequences, { prefixCache: true });

  it('computes a prompt only from where it differs, and always its last token', () => {
    const { batcher } = shared(20, 256);
    const first = forked(1, 100, 100);
    batcher.add(first);
    step(batcher);
    const [same, other, longer] = [forked(2, 96, 96), forked(3, 100, 70), forked(4, 130, 100)];
    for (const one of [same, other, longer]) batcher.add(one);
    expect([...step(batcher)]).toEqual([
      [1, 1],
      [2, 32],
      [3, 36],
      [4, 34],
    ]);
    expect([first, same, other, longer].map(({ cached }) => cached)).toEqual([0, 64, 64, 96]);
    expect(same.blockIds.slice(0, 2)).toEqual(first.blockIds.slice(0, 2));
    expect(same.blockIds[2]).not.toBe(first.blockIds[2]);
  });

  it('keeps what ended requests computed, answers included', () => {
    const { batcher, kv } = shared(6, 256);
    const first = forked(1, 60, 60);
    batcher.add(first);
    for (let i = 0; i < 10; i++) step(batcher);
    const turn = [...first.tokens(0, first.length)];
    batcher.remove(first);
    expect(kv.freeCount).toBe(6);
    const next = new Sequence(2, 0, Int32Array.from([...turn, 7, 7, 7]), 200);
    batcher.add(next);
    expect([...step(batcher)]).toEqual([[2, 9]]);
    expect(next.cached).toBe(64);
  });

  it('lets a prompt wait for the one that computes its beginning in the same step', () => {
    const { batcher } = shared(20, 64);
    batcher.add(forked(1, 100, 96));
    batcher.add(forked(2, 100, 96));
    batcher.add(forked(3, 40, 0));
    const steps = Array.from({ length: 4 }, () => [...step(batcher)]);
    expect(steps).toEqual([
      [
        [1, 32],
        [3, 32],
      ],
      [
        [1, 32],
        [3, 8],
      ],
      [
        [3, 1],
        [1, 36],
      ],
      [
        [1, 1],
        [3, 1],
        [2, 4],
      ],
    ]);
  });

  it('gives up unused contents before any sequence loses its blocks', () => {
    const { batcher } = shared(4, 256);
    const old = forked(1, 64, 0);
    batcher.add(old);
    step(batcher);
    batcher.remove(old);
    const [one, two] = [forked(2, 60, 0), forked(3, 60, 0)];
    batcher.add(one);
    batcher.add(two);
    expect([...step(batcher)]).toEqual([
      [2, 60],
      [3, 60],
    ]);
    expect([one.blockIds.length, two.blockIds.length]).toEqual([2, 2]);
  });

  it('computes after preemption only what was given up, and does not call it cached', () => {
    const { batcher } = shared(4, 256);
    const [one, two] = [forked(1, 62, 0), forked(2, 62, 0)];
    batcher.add(one);
    batcher.add(two);
    for (let i = 0; i < 4; i++) step(batcher);
    expect([two.blockIds.length, two.computed]).toEqual([0, 0]);
    batcher.remove(one);
    expect([...step(batcher)]).toEqual([[2, 33]]);
    expect([two.cached, two.blockIds.length]).toEqual([0, 3]);
  });

  it('computes every token of a sequence that must not reuse', () => {
    const { batcher } = shared(20, 256);
    const [one, two] = [forked(1, 100, 100), forked(2, 100, 100)];
    two.reusesBlocks = false;
    batcher.add(one);
    step(batcher);
    batcher.add(two);
    expect(step(batcher).get(2)).toBe(100);
  });

  it('a lagging reader that shares its blocks still yields to others', () => {
    const { batcher } = shared(4, 256, 1);
    const [one, two] = [forked(1, 100, 100), forked(2, 100, 100)];
    batcher.add(one);
    step(batcher);
    one.paused = true;
    batcher.add(two);
    step(batcher);
    two.paused = true;
    const third = forked(3, 120, 0);
    batcher.add(third);
    expect([...step(batcher)]).toEqual([[3, 120]]);
  });
});
