/** Prefetch: what predictor `prefill` asks for, what the prefetcher starts, and the planner that joins all parts. */
import { describe, expect, it } from 'vitest';
import { ExpertCache } from '../../../src/placement/expert-cache.js';
import { CostModel } from '../../../src/schedule/cost-model.js';
import type { CostProfile } from '../../../src/schedule/cost-profile.js';
import { createLayerWork, GPU_PLACE, groupRouting, type LayerWork } from '../../../src/schedule/plan.js';
import { Planner } from '../../../src/schedule/planner.js';
import { PrefillPredictor } from '../../../src/schedule/predictors/prefill.js';
import { Prefetcher, type PrefetchRequests } from '../../../src/schedule/prefetcher.js';
import { createPrefetcher, createScheduler } from '../../../src/schedule/registry.js';
import { integer, seeded } from './instances.js';

const profile: CostProfile = {
  version: 1,
  gpuExpert: [{ tokens: 1, timeUs: 5 }],
  ndpExpert: [{ tpDegree: 1, points: [{ tokens: 1, timeUs: 20 }] }],
  transferUs: 100,
  gpuOverheadUs: 0,
  ndpOverheadUs: 0,
};
const [LAYERS, EXPERTS] = [4, 16];

function cacheOf(slots: number): ExpertCache {
  return new ExpertCache({ layers: LAYERS, numExperts: EXPERTS, slots, expertBytes: 10 });
}

function costsOf(transferUs = 100): CostModel {
  return new CostModel({ ...profile, transferUs }, { units: 1, tpDegree: 1, expertBytes: 10 });
}

/** Work of a layer whose tokens chose `ids`, one expert a token. */
function workOf(layer: number, ids: number[]): LayerWork {
  const work = createLayerWork(EXPERTS);
  groupRouting(layer, { tokens: ids.length, topK: 1, topkIds: Int32Array.from(ids) }, work);
  return work;
}

/** Experts that a call of next() asked for, as "layer.expert"; all are told to have arrived. */
function started(prefetcher: Prefetcher, cache: ExpertCache, layer: number, nowUs: number): string[] {
  const { count, layers, experts, slots } = prefetcher.next(layer, nowUs);
  for (let i = 0; i < count; i++) cache.completeTransfer(slots[i] ?? -1, nowUs);
  return Array.from({ length: count }, (_, i) => `${layers[i]}.${experts[i]}`);
}

describe('prefetch prefill', () => {
  it('copies what the prompt activated most, best first, across layers', () => {
    const [cache, costs] = [cacheOf(3), costsOf()];
    const prefetcher = createPrefetcher('prefill', LAYERS, cache, costs);
    prefetcher.observe(workOf(0, [1, 1, 1, 2, 2, 3]));
    prefetcher.observe(workOf(1, [9, 9, 9, 9, 9, 4]));
    const order: string[] = [];
    for (let call = 0; call < 6; call++) order.push(...started(prefetcher, cache, 1, call * 1000));
    expect(order).toEqual(['1.9', '0.1', '0.2']);
  });

  it('asks for nothing that was never activated, nor for what is in VRAM', () => {
    const [cache, costs] = [cacheOf(8), costsOf()];
    const prefetcher = createPrefetcher('prefill', LAYERS, cache, costs);
    expect(started(prefetcher, cache, 0, 0)).toEqual([]);
    prefetcher.observe(workOf(2, [5, 5, 6]));
    const all = [0, 1, 2, 3].flatMap((call) => started(prefetcher, cache, 2, call * 1000));
    expect(all).toEqual(['2.5', '2.6']);
  });

  it('follows decode: what is no longer used gives way to what is, but not to noise', () => {
    const [cache, costs] = [cacheOf(2), costsOf()];
    const prefetcher = createPrefetcher('prefill', LAYERS, cache, costs);
    prefetcher.observe(workOf(0, [1, 1, 1, 1, 2, 2, 2, 2]));
    for (let call = 0; call < 3; call++) started(prefetcher, cache, 0, call * 1000);
    expect(cache.residents().map(({ expert }) => expert)).toEqual([1, 2]);
    // A single use of another expert replaces nothing; steady use does.
    prefetcher.observe(workOf(0, [7]));
    expect(started(prefetcher, cache, 0, 5000)).toEqual([]);
    const copies: string[] = [];
    for (let step = 0; step < 200; step++) {
      prefetcher.observe(workOf(0, [step % 2 === 0 ? 7 : 1]));
      cache.beginPlan(workOf(1, [0]), 6000 + step);
      copies.push(...started(prefetcher, cache, 0, 6000 + 1000 * step));
    }
    expect(copies).toEqual(['0.7']);
    expect(cache.residents().map(({ expert }) => expert)).toEqual([1, 7]);
  });

  it('does not thrash on random routing without preference', () => {
    const [cache, costs] = [cacheOf(16), costsOf()];
    const prefetcher = createPrefetcher('prefill', LAYERS, cache, costs);
    const random = seeded(4);
    let copies = 0;
    for (let step = 0; step < 2000; step++) {
      for (let layer = 0; layer < LAYERS; layer++) {
        const work = workOf(layer, [integer(random, 0, EXPERTS - 1), integer(random, 0, EXPERTS - 1)]);
        cache.beginPlan(work, step);
        prefetcher.observe(work);
        if (step === 200 && layer === 0) copies = 0;
        copies += started(prefetcher, cache, layer, (step * LAYERS + layer) * 500).length;
      }
    }
    // 1,800 steps use 14,400 experts, three quarters of them absent: few of these uses may lead to a copy.
    expect(copies).toBeLessThan(0.15 * 14_400);
  });

  it('keeps the lane as busy as the time between calls needs, and no busier', () => {
    const cache = cacheOf(40);
    const prefetcher = new Prefetcher(cache, costsOf(100), new PrefillPredictor(LAYERS, EXPERTS));
    for (let layer = 0; layer < LAYERS; layer++) {
      prefetcher.observe(
        workOf(
          layer,
          Array.from({ length: 16 }, (_, id) => id),
        ),
      );
    }
    // The first call knows no gap; then 250 us between calls are three transfers at most, and one waits.
    expect(prefetcher.next(0, 0).count).toBe(1);
    expect(prefetcher.next(1, 250).count).toBe(3);
    expect(cache.lane.outstanding).toBe(4);
    expect(prefetcher.next(2, 500).count).toBe(0);
    for (let slot = 0; slot < 40; slot++) cache.completeTransfer(slot, 750);
    expect(prefetcher.next(3, 750).count).toBe(4);
    expect(prefetcher.next(3, 1e9).count).toBeLessThanOrEqual(16);
  });

  it('gives up no slot that the plan under way uses', () => {
    const [cache, costs] = [cacheOf(2), costsOf()];
    const prefetcher = createPrefetcher('prefill', LAYERS, cache, costs);
    prefetcher.observe(workOf(0, [1, 2]));
    for (let call = 0; call < 3; call++) started(prefetcher, cache, 0, call * 1000);
    cache.beginPlan(workOf(0, [1, 2]), 4000);
    prefetcher.observe(workOf(1, [3, 3, 3, 3, 3, 3, 3, 3]));
    expect(started(prefetcher, cache, 1, 5000)).toEqual([]);
    cache.beginPlan(workOf(1, [3]), 6000);
    expect(started(prefetcher, cache, 1, 6000)).toEqual(['1.3']);
  });

  it('off and without VRAM nothing is copied', () => {
    for (const [name, slots] of [
      ['off', 4],
      ['prefill', 0],
    ] as const) {
      const cache = cacheOf(slots);
      const prefetcher = createPrefetcher(name, LAYERS, cache, costsOf());
      prefetcher.observe(workOf(0, [1, 1, 1]));
      expect(started(prefetcher, cache, 0, 0)).toEqual([]);
      expect(prefetcher.name).toBe(name);
    }
  });
});

describe('Planner', () => {
  function plannerOf(prefetch: string, slots = 12): Planner {
    const [cache, costs] = [cacheOf(slots), costsOf(60)];
    const shape = { numExperts: EXPERTS, ndpGroups: 1, slotsPerLayer: slots / LAYERS };
    const scheduler = createScheduler('balanced', shape);
    const prefetcher = createPrefetcher(prefetch, LAYERS, cache, costs);
    return new Planner({ layers: LAYERS, numExperts: EXPERTS, scheduler, cache, costs, prefetcher });
  }

  /** A lane that takes 60 us for each prefetch, one after the other. */
  class Lane {
    private readonly waiting: { slot: number; atUs: number }[] = [];

    arrived(nowUs: number): number[] {
      const done = this.waiting.filter(({ atUs }) => atUs <= nowUs).map(({ slot }) => slot);
      this.waiting.splice(0, done.length);
      return done;
    }

    submit({ count, slots }: PrefetchRequests, nowUs: number): void {
      for (const slot of slots.slice(0, count)) {
        this.waiting.push({ slot, atUs: Math.max(this.waiting.at(-1)?.atUs ?? nowUs, nowUs) + 60 });
      }
    }
  }

  /** Prefill of 64 tokens, then 200 tokens that prefer four experts of each layer; returns the mean makespan. */
  function run(planner: Planner): number {
    const random = seeded(9);
    const lane = new Lane();
    let nowUs = 0;
    let sumUs = 0;
    const preferred = (): number =>
      random() < 0.8 ? 4 * integer(random, 0, 3) : integer(random, 0, EXPERTS - 1);
    for (let at = 0; at < 201 * LAYERS; at++) {
      const tokens = at < LAYERS ? 64 : 1;
      const layer = at % LAYERS;
      nowUs += 50;
      planner.completeTransfers(lane.arrived(nowUs), nowUs);
      const topkIds = Int32Array.from({ length: tokens * 2 }, preferred);
      const plan = planner.plan(layer, { tokens, topK: 2, topkIds }, nowUs);
      expect(plan).toBe(planner.lastPlan(layer));
      lane.submit(planner.prefetch(layer, nowUs), nowUs);
      nowUs += plan.prediction.makespanUs;
      if (at >= LAYERS) sumUs += plan.prediction.makespanUs;
    }
    return sumUs / 200 / LAYERS;
  }

  it('gains from prefetch where routing is skewed, and counts what it did', () => {
    const [off, prefill] = [plannerOf('off'), plannerOf('prefill')];
    const offUs = run(off);
    const prefillUs = run(prefill);
    expect(prefillUs).toBeLessThan(0.9 * offUs);
    const { stats } = prefill.cache;
    expect(off.cache.stats.prefetched).toBe(0);
    expect(stats.prefetched).toBeGreaterThan(0);
    expect(stats.prefetchUsed).toBeLessThanOrEqual(stats.prefetched);
    expect(stats.onGpu + stats.onNdp).toBe(stats.activated);
    expect(stats.hits + stats.misses).toBe(stats.onGpu);
    expect(stats.bytesMoved).toBe(10 * (stats.prefetched + stats.misses));
  });

  it('hands observations of a step to the cost model with the plans they belong to', () => {
    const planner = plannerOf('off');
    const routing = { tokens: 1, topK: 2, topkIds: Int32Array.of(3, 7) };
    for (let step = 0; step < 200; step++) {
      for (const layer of [0, 2]) planner.plan(layer, routing, step);
      planner.observe(
        [0, 2].map((layer) => {
          const plan = planner.lastPlan(layer);
          const onNdp = plan.places.slice(0, plan.count).filter((place) => place !== GPU_PLACE).length;
          return {
            layer,
            gpuExpertsUs: 5 * (plan.count - onNdp),
            unitBusyUs: Float64Array.of(40 * onNdp),
            transferUs: 0,
            transferBytes: 0,
            makespanUs: 80,
          };
        }),
      );
    }
    expect(planner.costs.ndpExpertUs(1, 0)).toBeCloseTo(40, 0);
    expect(() => planner.lastPlan(LAYERS)).toThrow(RangeError);
  });
});
