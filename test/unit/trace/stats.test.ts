/**
 * The arithmetic of trace/stats.ts against values computed by hand (percentiles: numpy.percentile).
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { bandwidthGBs, gaps, hitRate, imbalance, percentile, perSecond } from '../../../src/trace/stats.js';

describe('percentile', () => {
  test.each([
    [[15, 20, 35, 40, 50], 0.4, 29],
    [[3, 1, 2], 0.5, 2],
    [[1, 2, 3, 4], 0.95, 3.85],
    [[7], 0.95, 7],
    [[], 0.5, 0],
  ])('of %j at %d is %d', (values, share, expected) => {
    expect(percentile(values, share)).toBeCloseTo(expected, 12);
  });

  test('lies between the extremes, grows with the share and leaves its input alone', () => {
    const values = fc.array(fc.double({ noNaN: true, min: -1e9, max: 1e9 }), { minLength: 1, maxLength: 50 });
    const share = fc.double({ min: 0, max: 1, noNaN: true });
    fc.assert(
      fc.property(values, share, share, (list, a, b) => {
        const copy = [...list];
        const [low, high] = [percentile(list, Math.min(a, b)), percentile(list, Math.max(a, b))];
        expect(list).toEqual(copy);
        expect(low).toBeLessThanOrEqual(high + 1e-6);
        expect(low).toBeGreaterThanOrEqual(Math.min(...list) - 1e-6);
        expect(high).toBeLessThanOrEqual(Math.max(...list) + 1e-6);
      }),
    );
  });
});

test('imbalance is the largest over the mean', () => {
  expect(imbalance([3, 3, 3])).toBe(1);
  expect(imbalance([8, 0, 0, 0])).toBe(4);
  expect(imbalance(Float64Array.of(1, 3))).toBe(1.5);
  expect(imbalance([0, 0])).toBe(1);
  expect(imbalance([])).toBe(1);
});

test('rates are 0 rather than NaN where nothing happened', () => {
  expect(perSecond(50, 2000)).toBe(25);
  expect(perSecond(50, 0)).toBe(0);
  expect(hitRate(3, 1)).toBe(0.75);
  expect(hitRate(0, 0)).toBe(0);
  expect(bandwidthGBs(42e9, 1000)).toBe(42);
  expect(bandwidthGBs(1, 0)).toBe(0);
});

test('gaps are the differences of neighbours', () => {
  expect([...gaps([1, 4, 9])]).toEqual([3, 5]);
  expect([...gaps([1])]).toEqual([]);
  expect([...gaps([])]).toEqual([]);
});
