/** Placement: which bytes lie where, and how many experts VRAM holds. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { placedBytes, slotCount } from '../../../src/placement/placement.js';

const GIB = 2 ** 30;
const bytes = {
  denseBytes: 3 * GIB,
  expertBytes: 48 * 128 * 9_437_184,
  kvBytes: GIB,
  stateBytes: 0,
  slotBytes: 1251 * 9_437_184,
};

describe('placedBytes', () => {
  it('cuts experts evenly over all units, beside dense weights, KV cache and copies', () => {
    const parts = placedBytes({ units: 4, tpDegree: 4, ndpGroups: 1, gpu: 'host' }, 128, bytes);
    expect(parts.map(({ place, kind }) => `${place} ${kind}`)).toEqual([
      'unit 0 experts',
      'unit 1 experts',
      'unit 2 experts',
      'unit 3 experts',
      'gpu dense',
      'gpu kv',
      'vram experts',
    ]);
    expect(parts.map(({ sizeBytes }) => sizeBytes)).toEqual([
      ...Array.from({ length: 4 }, () => bytes.expertBytes / 4),
      3 * GIB,
      GIB,
      bytes.slotBytes,
    ]);
  });

  it('deals whole experts out in turn', () => {
    const parts = placedBytes({ units: 3, tpDegree: 1, ndpGroups: 3, gpu: 'off' }, 8, {
      ...bytes,
      expertBytes: 800,
    });
    expect(parts.slice(0, 3).map(({ sizeBytes }) => sizeBytes)).toEqual([300, 300, 200]);
    expect(parts.slice(3).map(({ place, kind }) => `${place} ${kind}`)).toEqual(['units dense', 'units kv']);
  });

  it('holds all experts once over the units, whatever the degree, with and without a GPU', () => {
    const shapes = fc.record({
      units: fc.integer({ min: 1, max: 12 }),
      tp: fc.integer({ min: 1, max: 12 }),
      numExperts: fc.integer({ min: 1, max: 130 }),
      gpu: fc.constantFrom('off', 'host'),
    });
    fc.assert(
      fc.property(shapes, ({ units, tp, numExperts, gpu }) => {
        const tpDegree = Math.min(tp, units);
        const shape = { units, tpDegree, ndpGroups: Math.ceil(units / tpDegree), gpu };
        const parts = placedBytes(shape, numExperts, bytes);
        const onUnits = parts.filter(({ place }) => place.startsWith('unit '));
        expect(onUnits).toHaveLength(units);
        const sum = onUnits.reduce((total, part) => total + part.sizeBytes, 0);
        expect(Math.abs(sum - bytes.expertBytes)).toBeLessThanOrEqual(units);
        expect(parts.some(({ place }) => place === 'vram')).toBe(gpu === 'host');
      }),
    );
  });
});

describe('slotCount', () => {
  it('fills the budget with whole slabs, at most all experts', () => {
    expect([slotCount(1000, 300, 8), slotCount(1e9, 300, 8), slotCount(100, 300, 8)]).toEqual([3, 8, 0]);
    expect([slotCount(1000, 0, 0), slotCount(0, 300, 8)]).toEqual([0, 0]);
  });
});
