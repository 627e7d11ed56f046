import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { chooseTpDegree, expectedNdpUs } from '../../../src/placement/tp-degree.js';

/** No overhead: a slice takes its share of the expert's time. */
const ideal = (_tokens: number, groupUnits: number) => 100 / groupUnits;

describe('chooseTpDegree', () => {
  // Largest over mean load of whole experts on n units, by simulation of random top-k choices.
  it.each([
    [8, 128, 2, 1.26],
    [8, 128, 4, 1.74],
    [8, 128, 6, 2.15],
    [6, 64, 4, 1.83],
    [4, 60, 6, 2.6],
    [2, 8, 4, 2.29],
  ])('expects the imbalance of top %i of %i experts on %i units', (topK, numExperts, units, imbalance) => {
    const load = { units, numExperts, topK, tokens: 1 };
    const gain = expectedNdpUs(load, 1, ideal) / expectedNdpUs(load, units, ideal);
    expect(Math.abs(gain / imbalance - 1)).toBeLessThan(0.1);
  });

  it('cuts over all units where slices cost nothing extra', () => {
    const load = fc.record({
      units: fc.integer({ min: 1, max: 8 }),
      numExperts: fc.integer({ min: 8, max: 128 }),
      topK: fc.integer({ min: 1, max: 8 }),
      tokens: fc.integer({ min: 1, max: 64 }),
    });
    fc.assert(
      fc.property(load, (drawn) => {
        expect(chooseTpDegree(drawn, ideal)).toBe(drawn.units);
      }),
    );
  });

  it('keeps experts whole where slices cost more than they even out, as with many tokens', () => {
    const costly = (tokens: number, groupUnits: number) => 2 + (10 + tokens) / groupUnits;
    const load = { units: 4, numExperts: 128, topK: 8 };
    expect(chooseTpDegree({ ...load, tokens: 1 }, (_, units) => 0.5 + 100 / units)).toBe(4);
    expect(chooseTpDegree({ ...load, tokens: 64 }, costly)).toBe(1);
  });
});
