/**
 * Policy `balanced` against the exact optimum (exhaustive search, exact-solver.ts) and against the other policies.
 */
import { describe, expect, it } from 'vitest';
import { TOLERANCE } from '../../../src/schedule/balanced.js';
import { createLayerPlan, type LayerPlan } from '../../../src/schedule/plan.js';
import { createScheduler, schedulerEntries } from '../../../src/schedule/registry.js';
import { bestOrderUs, exactMakespanUs } from './exact-solver.js';
import { type Instance, randomInstance, seeded, TestResidency } from './instances.js';

function planOf(policy: string, { shape, work, residency, costs }: Instance): LayerPlan {
  const plan = createLayerPlan(shape.numExperts);
  createScheduler(policy, shape).plan(work, residency, costs, plan);
  return plan;
}

describe('balanced', () => {
  it('is within 1% of the optimum on average and 5% at worst over 10,000 layers of up to 14 experts', () => {
    const random = seeded(2026);
    let sum = 0;
    let worst = 0;
    for (let k = 0; k < 10_000; k++) {
      const instance = randomInstance(random, 1, 14);
      const exactUs = exactMakespanUs(instance);
      const { makespanUs } = planOf('balanced', instance).prediction;
      expect(makespanUs).toBeGreaterThanOrEqual(exactUs * (1 - 1e-9));
      const gap = makespanUs / exactUs - 1;
      sum += gap;
      worst = Math.max(worst, gap);
    }
    expect(sum / 10_000).toBeLessThan(0.01);
    expect(worst).toBeLessThan(0.05);
  }, 120_000);

  it('is never predicted worse than another policy, up to its tolerance', () => {
    const random = seeded(7);
    const others = schedulerEntries().filter(({ name }) => name !== 'balanced');
    expect(others.length).toBeGreaterThanOrEqual(3);
    for (let k = 0; k < 2000; k++) {
      const instance = randomInstance(random, 1, k % 4 === 0 ? 128 : 24);
      const own = planOf('balanced', instance).prediction.makespanUs;
      // Exhaustive up to 14 experts; beyond, the search is heuristic and a little may be left.
      const slack = instance.work.count <= 14 ? TOLERANCE : 0.02;
      for (const { name } of others) {
        const other = planOf(name, instance).prediction.makespanUs;
        expect(own, `instance ${k} against ${name}`).toBeLessThanOrEqual(other * (1 + slack));
      }
    }
  });

  it('takes the division with fewer transfers where the makespan is the same', () => {
    // One group of two experts; the resident on the GPU halves the time, a transfer of the other would only tie.
    const work = {
      layer: 0,
      tokens: 1,
      count: 2,
      expertIds: Int32Array.of(0, 1),
      tokenCounts: Int32Array.of(1, 1),
      counts: new Int32Array(2),
    };
    const residency = new TestResidency(Int32Array.of(0, -1), new Float64Array(2), 1, 0, 1);
    const costs = {
      gpuExpertUs: () => 10,
      ndpExpertUs: () => 20,
      transferUs: 5,
      gpuOverheadUs: 0,
      ndpOverheadUs: 0,
    };
    const shape = { numExperts: 2, ndpGroups: 1, slotsPerLayer: 1 };
    const plan = planOf('balanced', { shape, work, residency, costs });
    expect(plan.prediction.makespanUs).toBe(20);
    expect([...plan.transfers]).toEqual([0, 0]);
  });

  it('leaves the GPU alone where nothing is resident and transfers are hopeless', () => {
    const instance = randomInstance(seeded(5), 8, 8);
    const slots = new Int32Array(8).fill(-1);
    const residency = new TestResidency(slots, new Float64Array(8), 8, 0, 0);
    const costs = { ...instance.costs, sharedExpertUs: () => 0, transferUs: 1e6 };
    const plan = planOf('balanced', { ...instance, residency, costs });
    expect(plan.prediction).toMatchObject({ gpuUs: 0, transferUs: 0 });
    expect(plan.places.slice(0, plan.count).every((place) => place >= 0)).toBe(true);
  });

  it('models the best order of transfers: no permutation of the GPU experts finishes earlier', () => {
    const random = seeded(13);
    for (let k = 0; k < 300; k++) {
      const instance = randomInstance(random, 1, 6);
      const { count } = instance.work;
      const slots = Int32Array.from({ length: count }, (_, i) => (random() < 0.3 ? i : -1));
      const residency = new TestResidency(
        slots,
        new Float64Array(count),
        count,
        instance.residency.laneFreeUs,
        count,
      );
      const plan = planOf('gpu-on-demand', { ...instance, residency });
      expect(plan.prediction.gpuUs).toBeCloseTo(bestOrderUs({ ...instance, residency }), 6);
    }
  });
});
