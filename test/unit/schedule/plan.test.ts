/** Grouping of routing, the sorts of the policies, and the registries. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { OptionError } from '../../../src/errors.js';
import { ExpertCache } from '../../../src/placement/expert-cache.js';
import { createLayerWork, groupRouting } from '../../../src/schedule/plan.js';
import {
  createPrefetcher,
  createScheduler,
  prefetchNames,
  registerPredictor,
  registerScheduler,
  schedulerEntries,
} from '../../../src/schedule/registry.js';
import { mendOrder, sortIndices, TokenOrder } from '../../../src/schedule/sort-indices.js';
import { randomInstance, seeded } from './instances.js';

describe('groupRouting', () => {
  it('counts the tokens of each expert, ascending by id, and leaves its scratch clean', () => {
    const routing = fc.array(fc.integer({ min: 0, max: 15 }), { maxLength: 200 });
    const work = createLayerWork(16);
    fc.assert(
      fc.property(routing, (ids) => {
        groupRouting(2, { tokens: ids.length, topK: 1, topkIds: Int32Array.from(ids) }, work);
        const expected = [...new Set(ids)].sort((a, b) => a - b);
        expect([...work.expertIds.slice(0, work.count)]).toEqual(expected);
        expect([...work.tokenCounts.slice(0, work.count)]).toEqual(
          expected.map((id) => ids.filter((other) => other === id).length),
        );
        expect(work.layer).toBe(2);
        expect(work.tokens).toBe(ids.length);
        expect(work.counts.every((count) => count === 0)).toBe(true);
      }),
    );
  });
});

describe('sorting of indices', () => {
  // -0 and 0 are equal keys, whose order is free, but the comparison below tells them apart: adding 0 makes them one.
  const keys = fc.array(
    fc.double({ noNaN: true }).map((key) => key + 0),
    { maxLength: 300 },
  );

  it('orders by key from scratch and from any permutation', () => {
    fc.assert(
      fc.property(keys, fc.integer(), (list, seed) => {
        const values = Float64Array.from(list);
        const order = new Int32Array(list.length);
        sortIndices(order, values, list.length);
        const sorted = [...values].sort((a, b) => a - b);
        expect([...order].map((i) => values[i])).toEqual(sorted);
        expect(new Set(order).size).toBe(list.length);
        const random = seeded(seed);
        order.sort(() => random() - 0.5);
        mendOrder(order, values, list.length);
        expect([...order].map((i) => values[i])).toEqual(sorted);
      }),
    );
  });

  it('orders by descending tokens, ties by index, for few and many experts and large counts', () => {
    const tokens = fc.array(fc.integer({ min: 1, max: 100_000 }), { maxLength: 300 });
    const small = fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 40 });
    const sorter = new TokenOrder(300);
    fc.assert(
      fc.property(fc.oneof(tokens, small), (list) => {
        const order = new Int32Array(list.length);
        sorter.sort(Int32Array.from(list), list.length, order);
        const expected = list.map((_, i) => i).sort((a, b) => (list[b] ?? 0) - (list[a] ?? 0) || a - b);
        expect([...order]).toEqual(expected);
      }),
    );
  });
});

describe('registries', () => {
  const shape = { numExperts: 4, ndpGroups: 1, slotsPerLayer: 0 };
  const cache = new ExpertCache({ layers: 1, numExperts: 4, slots: 0, expertBytes: 1 });
  const { costs } = randomInstance(seeded(1), 1, 1);

  it('know the policies and prefetch values that the options promise', () => {
    const names = schedulerEntries().map(({ name }) => name);
    expect(names).toEqual(expect.arrayContaining(['balanced', 'gpu-on-demand', 'ndp-only', 'static-split']));
    for (const { name, create } of schedulerEntries()) expect(create(shape).name).toBe(name);
    expect(prefetchNames()).toEqual(expect.arrayContaining(['off', 'prefill']));
    for (const name of prefetchNames()) expect(createPrefetcher(name, 1, cache, costs).name).toBe(name);
  });

  it('refuse unknown names and names that are taken', () => {
    expect(() => createScheduler('fastest', shape)).toThrow(
      /`policy` to be one of "balanced", .* got "fastest"/,
    );
    expect(() => createPrefetcher('oracle', 1, cache, costs)).toThrow(
      /`prefetch` to be one of "off", "prefill"/,
    );
    const entry = schedulerEntries()[0];
    expect(entry).toBeDefined();
    if (entry) expect(() => registerScheduler(entry)).toThrow(OptionError);
    const off = { name: 'off', description: '', create: () => expect.unreachable() };
    expect(() => registerPredictor(off)).toThrow(OptionError);
  });
});
