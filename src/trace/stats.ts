/**
 * Figures from raw observations: percentiles, rates, imbalance, hit rates. Called by engine/ for the result of a
 * request and by cli/ for what it prints. Pure arithmetic; empty input gives 0, never NaN.
 */

/**
 * The value below which `share` (0..1) of the values lie, interpolated linearly between neighbours as NumPy does
 * by default. The input need not be sorted and is not changed.
 */
export function percentile(values: ArrayLike<number>, share: number): number {
  if (values.length === 0) return 0;
  const sorted = Float64Array.from(values).sort();
  const rank = Math.min(Math.max(share, 0), 1) * (sorted.length - 1);
  const below = sorted[Math.floor(rank)] ?? 0;
  const above = sorted[Math.ceil(rank)] ?? below;
  return below + (above - below) * (rank - Math.floor(rank));
}

/** Gaps between consecutive moments, as between the tokens of one decode; one fewer than moments. */
export function gaps(moments: ArrayLike<number>): Float64Array {
  const result = new Float64Array(Math.max(0, moments.length - 1));
  for (let i = 0; i < result.length; i++) result[i] = (moments[i + 1] ?? 0) - (moments[i] ?? 0);
  return result;
}

/** Events per second over a time in milliseconds; 0 where no time passed. */
export function perSecond(count: number, timeMs: number): number {
  return timeMs > 0 ? (count * 1000) / timeMs : 0;
}

/** Largest over mean, the imbalance of busy times: 1 is even, n is all work on one of n. 1 where nobody worked. */
export function imbalance(busyTimes: ArrayLike<number>): number {
  let sum = 0;
  let largest = 0;
  for (let i = 0; i < busyTimes.length; i++) {
    sum += busyTimes[i] ?? 0;
    largest = Math.max(largest, busyTimes[i] ?? 0);
  }
  return sum > 0 ? (largest * busyTimes.length) / sum : 1;
}

/** hits / (hits + misses); 0 where there was neither. */
export function hitRate(hits: number, misses: number): number {
  const total = hits + misses;
  return total > 0 ? hits / total : 0;
}

/** Bandwidth in 1e9 bytes per second; 0 where no time passed. */
export function bandwidthGBs(sizeBytes: number, timeMs: number): number {
  return timeMs > 0 ? sizeBytes / (timeMs * 1e6) : 0;
}
