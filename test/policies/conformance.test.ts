/**
 * What every registered scheduling policy must do, whatever it decides: complete, valid and deterministic plans that
 * the device accepts, from any work, residency and costs. A new policy is covered as soon as it is registered.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GPU_PLACE as DEVICE_GPU_PLACE, type LayerAssignment } from '../../src/device/device.js';
import { ExpertCache } from '../../src/placement/expert-cache.js';
import { createLayerPlan, createLayerWork, GPU_PLACE, groupRouting } from '../../src/schedule/plan.js';
import { createScheduler, schedulerEntries } from '../../src/schedule/registry.js';
import { simulatedMakespanUs } from '../unit/schedule/exact-solver.js';
import { type Instance, integer, randomInstance, seeded, TestResidency } from '../unit/schedule/instances.js';

const seeds = fc.integer({ min: 0, max: 0x7fffffff });

function planOf(policy: string, { shape, work, residency, costs }: Instance) {
  const plan = createLayerPlan(shape.numExperts);
  createScheduler(policy, shape).plan(work, residency, costs, plan);
  return plan;
}

/** One object for each entry of a plan. */
function entriesOf(plan: LayerAssignment) {
  return Array.from({ length: plan.count }, (_, i) => ({
    expert: plan.expertIds[i] ?? -1,
    place: plan.places[i] ?? -2,
    slot: plan.slots[i] ?? -2,
    transfer: plan.transfers[i] ?? -1,
  }));
}

it('uses the number for the GPU that the device uses', () => {
  expect(GPU_PLACE).toBe(DEVICE_GPU_PLACE);
});

describe.each(schedulerEntries().map(({ name }) => name))('policy %s', (policy) => {
  it('plans each active expert exactly once, ascending, in its own group or on the GPU', () => {
    fc.assert(
      fc.property(seeds, (seed) => {
        const instance = randomInstance(seeded(seed), 1, 40);
        const plan = planOf(policy, instance);
        const { work, shape } = instance;
        expect(plan.layer).toBe(work.layer);
        expect([...plan.expertIds.slice(0, plan.count)]).toEqual([...work.expertIds.slice(0, work.count)]);
        expect([...plan.tokenCounts.slice(0, plan.count)]).toEqual([
          ...work.tokenCounts.slice(0, work.count),
        ]);
        for (const { expert, place } of entriesOf(plan)) {
          if (place !== GPU_PLACE) expect(place).toBe(expert % shape.ndpGroups);
        }
      }),
    );
  });

  it('gives GPU experts their slot, a transfer exactly where they are absent, and no slot twice', () => {
    fc.assert(
      fc.property(seeds, (seed) => {
        const { residency, ...instance } = randomInstance(seeded(seed), 1, 40);
        const plan = planOf(policy, { ...instance, residency });
        const held = new Set(residency.slots.filter((slot) => slot >= 0));
        const used = new Set<number>();
        let transfers = 0;
        entriesOf(plan).forEach(({ place, slot, transfer }, i) => {
          const resident = residency.slots[i] ?? -1;
          if (place !== GPU_PLACE) {
            expect({ slot, transfer }).toEqual({ slot: -1, transfer: 0 });
            return;
          }
          expect(transfer).toBe(resident >= 0 ? 0 : 1);
          if (resident >= 0) expect(slot).toBe(resident);
          else expect(held.has(slot), 'a slot of an active expert was given up').toBe(false);
          expect(slot).toBeGreaterThanOrEqual(0);
          expect(used.has(slot)).toBe(false);
          used.add(slot);
          transfers += transfer;
        });
        expect(transfers).toBeLessThanOrEqual(residency.availableSlots);
      }),
    );
  });

  it('sends everything to the NDP groups where VRAM has no slots', () => {
    fc.assert(
      fc.property(seeds, (seed) => {
        const instance = randomInstance(seeded(seed), 1, 40);
        const { count } = instance.work;
        const none = new TestResidency(new Int32Array(count).fill(-1), new Float64Array(count), 0, 0, 0);
        const shape = { ...instance.shape, slotsPerLayer: 0 };
        const costs = { ...instance.costs, sharedExpertUs: () => 0 };
        const plan = planOf(policy, { ...instance, shape, costs, residency: none });
        expect(entriesOf(plan).every(({ place, slot }) => place >= 0 && slot === -1)).toBe(true);
        expect(plan.prediction.gpuUs).toBe(0);
        expect(plan.prediction.transferUs).toBe(0);
      }),
    );
  });

  it('predicts what an independent simulation of the plan takes', () => {
    fc.assert(
      fc.property(seeds, (seed) => {
        const instance = randomInstance(seeded(seed), 1, 40);
        const plan = planOf(policy, instance);
        const { gpuUs, ndpUs, transferUs, makespanUs } = plan.prediction;
        expect(makespanUs).toBe(Math.max(gpuUs, ndpUs));
        expect(makespanUs).toBeCloseTo(simulatedMakespanUs(instance, plan), 6);
        expect(transferUs).toBeLessThanOrEqual(Math.max(gpuUs, 0) + 1e-9);
      }),
    );
  });

  it('plans equal inputs equally, whatever it planned before', () => {
    fc.assert(
      fc.property(seeds, seeds, (seed, other) => {
        const instance = randomInstance(seeded(seed), 1, 24);
        const before = randomInstance(seeded(other), 1, 24);
        const shape = { ...instance.shape, numExperts: 96 };
        const reused = createScheduler(policy, shape);
        reused.plan(before.work, before.residency, instance.costs, createLayerPlan(96));
        const plan = createLayerPlan(96);
        reused.plan(instance.work, instance.residency, instance.costs, plan);
        expect(plan).toEqual(planOf(policy, { ...instance, shape }));
      }),
      { numRuns: 60 },
    );
  });

  it('plans a layer that no token reached as empty', () => {
    const work = createLayerWork(8);
    groupRouting(3, { tokens: 0, topK: 2, topkIds: new Int32Array(0) }, work);
    const costs = { ...randomInstance(seeded(1), 1, 1).costs, sharedExpertUs: () => 0 };
    const residency = new TestResidency(new Int32Array(8), new Float64Array(8), 4, 0, 0);
    const shape = { numExperts: 8, ndpGroups: 2, slotsPerLayer: 4 };
    const plan = planOf(policy, { shape, work, residency, costs });
    expect(plan.count).toBe(0);
    expect(plan.layer).toBe(3);
    expect(plan.prediction).toEqual({ gpuUs: 0, ndpUs: 0, transferUs: 0, makespanUs: 0 });
  });

  it('keeps a real cache consistent over many steps, with few slots and with many', () => {
    fc.assert(
      fc.property(seeds, fc.constantFrom(1, 3, 8, 24, 64), (seed, slots) => {
        runWithCache(policy, seeded(seed), slots);
      }),
      { numRuns: 40 },
    );
  });
});

/** Ten steps of three layers with a real cache; the slots' content is tracked here as a device would. */
function runWithCache(policy: string, random: () => number, slots: number): void {
  const [layers, numExperts, ndpGroups] = [3, 16, integer(random, 1, 3)];
  const shape = { numExperts, ndpGroups, slotsPerLayer: Math.floor(slots / layers) };
  const scheduler = createScheduler(policy, shape);
  const cache = new ExpertCache({ layers, numExperts, slots, expertBytes: 10 });
  const { costs } = randomInstance(random, 1, 4);
  const content = new Map<number, string>();
  const work = createLayerWork(numExperts);
  const plan = createLayerPlan(numExperts);
  for (let step = 0; step < 10; step++) {
    for (let layer = 0; layer < layers; layer++) {
      const tokens = integer(random, 1, 6);
      const topkIds = Int32Array.from({ length: tokens * 2 }, () => integer(random, 0, numExperts - 1));
      groupRouting(layer, { tokens, topK: 2, topkIds }, work);
      scheduler.plan(work, cache.beginPlan(work, 0), costs, plan);
      cache.commitPlan(plan, tokens, 0, costs.transferUs);
      for (const { expert, place, slot, transfer } of entriesOf(plan)) {
        if (place !== GPU_PLACE) continue;
        if (transfer === 1) content.set(slot, `${layer}.${expert}`);
        expect(content.get(slot)).toBe(`${layer}.${expert}`);
        expect(slot).toBeLessThan(slots);
      }
    }
  }
  for (const { layer, expert } of cache.residents()) {
    expect(content.get(cache.slotOf(layer, expert))).toBe(`${layer}.${expert}`);
  }
}
