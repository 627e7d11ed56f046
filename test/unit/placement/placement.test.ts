/** Placement: which bytes lie where, what fits, and how it is told. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MemoryError, OptionError } from '../../../src/errors.js';
import {
  checkFits,
  type PlacementInput,
  planPlacement,
  slotCount,
} from '../../../src/placement/placement.js';

const GIB = 2 ** 30;
const input: PlacementInput = {
  units: 4,
  tpDegree: 4,
  gpu: true,
  denseBytes: 3 * GIB,
  expertBytes: 48 * 128 * 9_437_184,
  slabBytes: 9_437_184,
  moeLayers: 48,
  numExperts: 128,
  kvBytes: GIB,
  vramBytes: 11 * GIB,
};

describe('planPlacement', () => {
  it('cuts experts evenly over all units and fills the VRAM budget with whole slabs', () => {
    const { parts, ndpGroups, expertSlots, residentShare, slotsPerLayer, totalBytes } = planPlacement(input);
    expect(ndpGroups).toBe(1);
    expect(expertSlots).toBe(1251);
    expect(residentShare).toBeCloseTo(0.2036, 4);
    expect(slotsPerLayer).toBe(26);
    expect(parts.map(({ place, kind }) => `${place} ${kind}`)).toEqual([
      'unit 0 experts',
      'unit 1 experts',
      'unit 2 experts',
      'unit 3 experts',
      'gpu dense',
      'gpu kv',
      'vram experts',
    ]);
    expect(parts[0]?.sizeBytes).toBe(input.expertBytes / 4);
    expect(parts[6]?.sizeBytes).toBe(1251 * input.slabBytes);
    expect(parts[6]?.why).toBe('copies of 1251 of 6144 experts (9.0 MiB each): what 11.00 GiB hold');
    expect(totalBytes).toBe(input.expertBytes + 4 * GIB + 1251 * input.slabBytes);
  });

  it('holds all experts once over the units, whatever the degree, with and without a GPU', () => {
    const shapes = fc.record({
      units: fc.integer({ min: 1, max: 12 }),
      tp: fc.integer({ min: 1, max: 12 }),
      numExperts: fc.integer({ min: 1, max: 130 }),
      gpu: fc.boolean(),
    });
    fc.assert(
      fc.property(shapes, ({ units, tp, numExperts, gpu }) => {
        const tpDegree = Math.min(tp, units);
        const { parts } = planPlacement({ ...input, units, tpDegree, numExperts, gpu });
        const onUnits = parts.filter(({ place }) => place.startsWith('unit '));
        expect(onUnits).toHaveLength(units);
        const sum = onUnits.reduce((bytes, part) => bytes + part.sizeBytes, 0);
        expect(Math.abs(sum - input.expertBytes)).toBeLessThanOrEqual(units);
        expect(parts.some(({ place }) => place === 'vram')).toBe(gpu);
        for (const { why } of parts) expect(why).not.toBe('');
      }),
    );
  });

  it('gives no slots without a GPU, without budget, and never more than there are experts', () => {
    expect(planPlacement({ ...input, gpu: false }).expertSlots).toBe(0);
    expect(planPlacement({ ...input, vramBytes: input.slabBytes - 1 }).expertSlots).toBe(0);
    expect(planPlacement({ ...input, vramBytes: 1e15 }).expertSlots).toBe(6144);
    expect(slotCount(100, 0, 10)).toBe(0);
    expect(() => slotCount(-1, 1, 10)).toThrow(OptionError);
  });

  it('places a model without experts', () => {
    const dense = planPlacement({ ...input, moeLayers: 0, numExperts: 0, expertBytes: 0, slabBytes: 0 });
    expect(dense).toMatchObject({ expertSlots: 0, residentShare: 0, slotsPerLayer: 0, totalBytes: 4 * GIB });
  });

  it('refuses units and degrees out of their domain', () => {
    expect(() => planPlacement({ ...input, units: 0 })).toThrow(
      'Expected `units` to be an integer >= 1, got 0',
    );
    expect(() => planPlacement({ ...input, tpDegree: 5 })).toThrow(/`tpDegree` to be an integer from 1 to 4/);
  });
});

describe('checkFits', () => {
  it('passes what fits and tells the figures of what does not', () => {
    const placement = planPlacement({ ...input, gpu: false });
    checkFits(placement, placement.totalBytes, 'model');
    let caught: unknown;
    try {
      checkFits(placement, 16 * GIB, 'qwen3');
    } catch (error) {
      caught = error;
    }
    expect(caught).toBeInstanceOf(MemoryError);
    expect(caught).toMatchObject({
      code: 'ERR_MEMORY',
      neededBytes: placement.totalBytes,
      availableBytes: 16 * GIB,
      message:
        'qwen3 needs 58.00 GiB of memory (experts 54.00 GiB, other weights 3.00 GiB, KV cache 1.00 GiB), ' +
        'but only 16.00 GiB are available',
    });
  });
});
