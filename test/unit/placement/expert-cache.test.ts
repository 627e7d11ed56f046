/** The expert cache: slots, eviction rules, pins, plans under way, arrival estimates, counters. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { OptionError } from '../../../src/errors.js';
import { ActivationRates } from '../../../src/placement/activation-rates.js';
import { createEviction, evictionEntries, registerEviction } from '../../../src/placement/eviction.js';
import { ExpertCache, SLOT_ARRIVING, SLOT_FREE, SLOT_RESIDENT } from '../../../src/placement/expert-cache.js';
import type { ActiveExperts, PlannedExperts } from '../../../src/placement/residency.js';
import { TransferLane } from '../../../src/placement/transfer-lane.js';

const GPU = -1;

/** Active experts of a layer, one token each unless told otherwise. */
function active(layer: number, experts: number[], tokens?: number[]): ActiveExperts {
  return {
    layer,
    count: experts.length,
    expertIds: Int32Array.from(experts),
    tokenCounts: Int32Array.from(tokens ?? experts.map(() => 1)),
  };
}

/** Plans all experts on the GPU as far as slots reach, commits, and returns the plan. */
function compute(cache: ExpertCache, layer: number, experts: number[], nowUs = 0): PlannedExperts {
  const work = active(layer, experts);
  const residency = cache.beginPlan(work, nowUs);
  const all = new Int32Array(residency.availableSlots).fill(-1);
  residency.takeSlots(all.length, all);
  const held = new Set(residency.slots.slice(0, work.count));
  expect(new Set(all).size).toBe(all.length);
  for (const slot of all) expect(slot >= 0 && !held.has(slot)).toBe(true);
  const taken = new Int32Array(experts.length);
  const absent = experts.filter((_, i) => (residency.slots[i] ?? -1) < 0).length;
  const copies = Math.min(absent, residency.availableSlots);
  residency.takeSlots(copies, taken);
  const plan = {
    ...work,
    places: new Int32Array(work.count),
    slots: new Int32Array(work.count),
    transfers: new Int32Array(work.count),
  };
  let at = 0;
  for (let i = 0; i < work.count; i++) {
    const slot = residency.slots[i] ?? -1;
    const copied = slot < 0 && at < copies;
    plan.places[i] = slot >= 0 || copied ? GPU : 0;
    plan.transfers[i] = copied ? 1 : 0;
    plan.slots[i] = copied ? (taken[at++] ?? -1) : slot;
  }
  cache.commitPlan(plan, 1, nowUs, 100);
  return plan;
}

function cacheOf(slots: number, eviction = 'lru'): ExpertCache {
  return new ExpertCache({ layers: 2, numExperts: 8, slots, expertBytes: 10, eviction });
}

function residentsOf(cache: ExpertCache): string[] {
  return cache.residents().map(({ layer, expert }) => `${layer}.${expert}`);
}

describe('ExpertCache', () => {
  it('fills free slots first and counts uses, hits, misses, bytes', () => {
    const cache = cacheOf(4);
    compute(cache, 0, [1, 3]);
    compute(cache, 0, [1, 5]);
    expect(residentsOf(cache)).toEqual(['0.1', '0.3', '0.5']);
    expect(cache.stats).toEqual({
      activated: 4,
      onGpu: 4,
      onNdp: 0,
      hits: 1,
      misses: 3,
      residentActivated: 1,
      prefetched: 0,
      prefetchUsed: 0,
      evictions: 0,
      guessable: 0,
      guessed: 0,
      bytesMoved: 30,
    });
    cache.resetStats();
    expect(cache.stats.activated).toBe(0);
  });

  it('tells a plan about its layer only, and keeps the same experts of other layers apart', () => {
    const cache = cacheOf(4);
    compute(cache, 0, [1]);
    expect(cache.beginPlan(active(1, [1]), 0).slots[0]).toBe(-1);
    expect(cache.beginPlan(active(0, [1]), 0).slots[0]).toBe(cache.slotOf(0, 1));
  });

  it('lru gives up what was used longest ago', () => {
    const cache = cacheOf(3);
    for (const expert of [0, 1, 2, 0]) compute(cache, 0, [expert]);
    compute(cache, 0, [3]);
    expect(residentsOf(cache)).toEqual(['0.0', '0.2', '0.3']);
    expect(cache.stats.evictions).toBe(1);
  });

  it('lfu gives up what was used least often', () => {
    const cache = cacheOf(3, 'lfu');
    for (const expert of [0, 0, 0, 1, 1, 2, 2, 2]) compute(cache, 0, [expert]);
    compute(cache, 0, [3]);
    expect(residentsOf(cache)).toEqual(['0.0', '0.2', '0.3']);
  });

  it('score gives up the lowest rate, in which old uses fade', () => {
    const cache = cacheOf(2, 'score');
    for (let k = 0; k < 40; k++) compute(cache, 0, [0]);
    compute(cache, 0, [1]);
    compute(cache, 0, [2]);
    expect(residentsOf(cache)).toEqual(['0.0', '0.2']);
    for (let k = 0; k < 300; k++) compute(cache, 0, [k % 2 === 0 ? 2 : 3]);
    expect(residentsOf(cache)).not.toContain('0.0');
  });

  it('never gives up pinned slots, nor those of the active experts, nor arriving ones', () => {
    const cache = cacheOf(4);
    compute(cache, 0, [0, 1, 2]);
    expect(cache.pin(0, 0)).toBe(true);
    expect(cache.pin(0, 7)).toBe(false);
    cache.admitPrefetch(1, 6, cache.lowestSlot(cache.eviction.priorities), 0, 100);
    const residency = cache.beginPlan(active(0, [1, 4, 5]), 0);
    expect(residency.availableSlots).toBe(1);
    const out = new Int32Array(1);
    residency.takeSlots(1, out);
    expect(cache.keyOf(out[0] ?? -1)).toBe(2);
    cache.unpin(0, 0);
    expect(cache.beginPlan(active(0, [1, 4, 5]), 0).availableSlots).toBe(2);
  });

  it('does not let a prefetch overwrite what the plan under way uses', () => {
    const cache = cacheOf(2);
    compute(cache, 0, [0, 1]);
    expect(cache.lowestSlot(cache.eviction.priorities)).toBe(-1);
    cache.beginPlan(active(1, [0]), 0);
    expect(cache.lowestSlot(cache.eviction.priorities)).toBeGreaterThanOrEqual(0);
  });

  it('counts a prefetch as used once, when the GPU first computes from it', () => {
    const cache = cacheOf(2);
    cache.admitPrefetch(0, 5, cache.lowestSlot(cache.eviction.priorities), 0, 100);
    const slot = cache.slotOf(0, 5);
    expect(cache.stateOf(slot)).toBe(SLOT_ARRIVING);
    expect(residentsOf(cache)).toEqual([]);
    expect(cache.beginPlan(active(0, [5]), 30).arrivalUs[0]).toBe(70);
    cache.completeTransfer(slot, 100);
    expect(cache.stateOf(slot)).toBe(SLOT_RESIDENT);
    expect(cache.beginPlan(active(0, [5]), 120).arrivalUs[0]).toBe(0);
    compute(cache, 0, [5]);
    compute(cache, 0, [5]);
    expect(cache.stats).toMatchObject({ prefetched: 1, prefetchUsed: 1, hits: 2, misses: 0 });
  });

  it('gives a slot back on request', () => {
    const cache = cacheOf(1);
    compute(cache, 0, [5]);
    const slot = cache.slotOf(0, 5);
    expect(cache.evict(0, 5)).toBe(true);
    expect(cache.evict(0, 5)).toBe(false);
    expect(cache.stateOf(slot)).toBe(SLOT_FREE);
    compute(cache, 0, [6]);
    expect(cache.slotOf(0, 6)).toBe(slot);
  });

  it('works without any slot', () => {
    const cache = cacheOf(0);
    expect(cache.beginPlan(active(0, [1, 2]), 0).availableSlots).toBe(0);
    expect(cache.lowestSlot(cache.eviction.priorities)).toBe(-1);
    expect(() => cacheOf(-1)).toThrow(OptionError);
    expect(() => cacheOf(1, 'random')).toThrow(
      /`cachePolicy` to be one of "lru", "lfu", "score", got "random"/,
    );
  });

  it('keeps slots and experts one to one through any sequence of events', () => {
    const names = evictionEntries().map(({ name }) => name);
    fc.assert(
      fc.property(
        fc.constantFrom(...names),
        fc.integer({ min: 0, max: 6 }),
        fc.array(someEvent),
        (name, slots, list) => {
          const cache = cacheOf(slots, name);
          for (const event of list) {
            events[event.kind](cache, event);
            checkOneToOne(cache, slots);
          }
        },
      ),
    );
  });
});

type Event = { layer: number; expert: number; second: number };

const events = {
  plan: (cache: ExpertCache, { layer, expert, second }: Event) => {
    compute(
      cache,
      layer,
      [...new Set([expert, second])].sort((a, b) => a - b),
    );
  },
  prefetch: (cache: ExpertCache, { layer, expert }: Event) => {
    const slot = cache.lowestSlot(cache.eviction.priorities);
    if (slot >= 0 && cache.slotOf(layer, expert) < 0) cache.admitPrefetch(layer, expert, slot, 0, 1);
  },
  complete: (cache: ExpertCache, { expert }: Event) => {
    if (cache.slots > 0) cache.completeTransfer(expert % cache.slots, 0);
  },
  pin: (cache: ExpertCache, { layer, expert }: Event) => cache.pin(layer, expert),
  unpin: (cache: ExpertCache, { layer, expert }: Event) => cache.unpin(layer, expert),
  evict: (cache: ExpertCache, { layer, expert }: Event) => cache.evict(layer, expert),
};

const someEvent = fc.record({
  kind: fc.constantFrom(...(Object.keys(events) as (keyof typeof events)[])),
  layer: fc.integer({ min: 0, max: 1 }),
  expert: fc.integer({ min: 0, max: 7 }),
  second: fc.integer({ min: 0, max: 7 }),
});

function checkOneToOne(cache: ExpertCache, slots: number): void {
  let held = 0;
  for (let slot = 0; slot < slots; slot++) {
    const key = cache.keyOf(slot);
    expect(key < 0).toBe(cache.stateOf(slot) === SLOT_FREE);
    if (key < 0) continue;
    held++;
    expect(cache.slotOf(Math.floor(key / 8), key % 8)).toBe(slot);
  }
  let known = 0;
  for (let key = 0; key < 16; key++) if (cache.slotOf(Math.floor(key / 8), key % 8) >= 0) known++;
  expect(known).toBe(held);
}

describe('TransferLane', () => {
  it('estimates arrivals one after the other, on-demand transfers first', () => {
    const lane = new TransferLane(4);
    expect(lane.onDemandDelayUs(0)).toBe(0);
    lane.submitPrefetch(0, 0, 100);
    lane.submitPrefetch(1, 0, 100);
    expect(lane.outstanding).toBe(2);
    expect([lane.arrivalUs(0, 40), lane.arrivalUs(1, 40), lane.arrivalUs(2, 40)]).toEqual([60, 160, 0]);
    expect(lane.onDemandDelayUs(40)).toBe(60);
    lane.submitOnDemand(2, 40, 100);
    expect(lane.onDemandDelayUs(40)).toBe(260);
    expect(lane.arrivalUs(1, 40)).toBe(360);
    lane.complete(0, 100);
    expect(lane.arrivalUs(1, 100)).toBe(300);
    lane.complete(3, 100);
    lane.complete(1, 390);
    expect(lane.outstanding).toBe(0);
    expect(lane.onDemandDelayUs(390)).toBe(0);
  });

  it('takes a late transfer to arrive any moment, never to be there', () => {
    const lane = new TransferLane(1);
    lane.submitPrefetch(0, 0, 10);
    expect(lane.arrivalUs(0, 500)).toBeGreaterThan(0);
    expect(lane.arrivalUs(0, 500)).toBeLessThan(1);
    expect(lane.onDemandDelayUs(500)).toBe(lane.arrivalUs(0, 500));
  });
});

describe('ActivationRates', () => {
  it('are uses per token, whatever the steps were cut into, and fade', () => {
    const rates = new ActivationRates(1, 4, { fastShare: 0 });
    const single = new ActivationRates(1, 4, { fastShare: 0 });
    rates.observe(active(0, [1, 2], [2000, 500]), 2000);
    for (let k = 0; k < 2000; k++) single.observe(active(0, k % 4 === 0 ? [1, 2] : [1]), 1);
    expect(rates.rates[1]).toBeCloseTo(1, 2);
    expect(rates.rates[2]).toBeCloseTo(0.25, 2);
    for (const expert of [0, 1, 2, 3]) expect(single.rates[expert]).toBeCloseTo(rates.rates[expert] ?? -1, 2);
    for (let k = 0; k < 256; k++) rates.observe(active(0, [3]), 1);
    expect(rates.rates[1]).toBeCloseTo(Math.exp(-1), 2);
    expect(rates.rates[3]).toBeCloseTo(1 - Math.exp(-1), 2);
  });
});

it('refuses an eviction rule whose name is taken', () => {
  expect(() =>
    registerEviction({ name: 'lru', description: '', create: () => createEviction('lru', 1, 1) }),
  ).toThrow(OptionError);
});
