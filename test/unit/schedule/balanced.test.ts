/**
 * Policy `balanced` against the exact optimum (exhaustive search, exact-solver.ts) and against the other policies.
 */
import { describe, expect, it } from 'vitest';
import { createLayerPlan, type LayerPlan } from '../../../src/schedule/plan.js';
import { createScheduler, schedulerEntries } from '../../../src/schedule/registry.js';
import { exactMakespanUs, simulatedMakespanUs } from './exact-solver.js';
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

  it('is never predicted worse than another policy', () => {
    const random = seeded(7);
    const others = schedulerEntries().filter(({ name }) => name !== 'balanced');
    expect(others.length).toBeGreaterThanOrEqual(3);
    for (let k = 0; k < 1500; k++) {
      const instance = randomInstance(random, 1, k % 3 === 0 ? 128 : 24);
      const own = planOf('balanced', instance).prediction.makespanUs;
      for (const { name } of others) {
        const other = planOf(name, instance).prediction.makespanUs;
        expect(own, `instance ${k} against ${name}`).toBeLessThanOrEqual(other * (1 + 1e-9));
      }
    }
  });

  it('predicts what an independent simulation of its plan takes', () => {
    const random = seeded(11);
    for (let k = 0; k < 1000; k++) {
      const instance = randomInstance(random, 1, 40);
      const plan = planOf('balanced', instance);
      expect(plan.prediction.makespanUs).toBeCloseTo(simulatedMakespanUs(instance, plan), 6);
      const { gpuUs, ndpUs, makespanUs } = plan.prediction;
      expect(makespanUs).toBe(Math.max(gpuUs, ndpUs));
    }
  });

  it('plans equal inputs equally, whatever was planned before', () => {
    const random = seeded(3);
    const shape = { numExperts: 64, ndpGroups: 2, slotsPerLayer: 8 };
    const reused = createScheduler('balanced', shape);
    for (let k = 0; k < 200; k++) {
      const { work, residency, costs } = randomInstance(random, 1, 20);
      const [first, second] = [createLayerPlan(64), createLayerPlan(64)];
      reused.plan(work, residency, costs, first);
      createScheduler('balanced', shape).plan(work, residency, costs, second);
      expect(first).toEqual(second);
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
    const costs = { ...instance.costs, transferUs: 1e6 };
    const plan = planOf('balanced', { ...instance, residency, costs });
    expect(plan.prediction).toMatchObject({ gpuUs: 0, transferUs: 0 });
    expect(plan.places.slice(0, plan.count).every((place) => place >= 0)).toBe(true);
  });
});
