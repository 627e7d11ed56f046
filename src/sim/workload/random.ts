/**
 * Random numbers of the workload generator: 32 bits at a time from a seed, and normal values from them through a table
 * of quantiles, which is several times faster than computing each one. Equal seeds give equal numbers everywhere.
 */

/** sfc32 (C. Doty-Humphrey, PractRand) seeded by both halves of the seed. */
export function randomBits(seed: number): () => number {
  let a = 0x9e3779b9;
  let b = seed | 0;
  let c = Math.floor(seed / 2 ** 32) | 0;
  let counter = 1;
  const next = () => {
    const result = (a + b + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + result;
    c |= 0;
    return result >>> 0;
  };
  for (let i = 0; i < 15; i++) next();
  return next;
}

const CENTRE = [
  -39.69683028665376, 220.9460984245205, -275.9285104469687, 138.357751867269, -30.66479806614716,
  2.506628277459239,
];
const CENTRE_BELOW = [
  -54.47609879822406, 161.5858368580409, -155.6989798598866, 66.80131188771972, -13.28068155288572, 1,
];
const TAIL = [
  -0.007784894002430293, -0.3223964580411365, -2.400758277161838, -2.549732539343734, 4.374664141464968,
  2.938163982698783,
];
const TAIL_BELOW = [0.007784695709041462, 0.3224671290700398, 2.445134137142996, 3.754408661907416, 1];
const TAIL_FROM = 0.02425;

const QUANTILE_BITS = 12;
const QUANTILES = Float64Array.from({ length: 1 << QUANTILE_BITS }, (_, i) =>
  normalQuantile((i + 0.5) / (1 << QUANTILE_BITS)),
);

/** Standard normal values from random bits. */
export function normals(bits: () => number): () => number {
  return () => QUANTILES[bits() >>> (32 - QUANTILE_BITS)] as number;
}

/** Inverse of the normal distribution function by P. J. Acklam's rational approximation, error below 1.2e-9. */
function normalQuantile(probability: number): number {
  if (probability > 1 - TAIL_FROM) return -normalQuantile(1 - probability);
  if (probability < TAIL_FROM) {
    const q = Math.sqrt(-2 * Math.log(probability));
    return polynomial(TAIL, q) / polynomial(TAIL_BELOW, q);
  }
  const q = probability - 0.5;
  return (polynomial(CENTRE, q * q) * q) / polynomial(CENTRE_BELOW, q * q);
}

function polynomial(coefficients: readonly number[], x: number): number {
  return coefficients.reduce((sum, coefficient) => sum * x + coefficient, 0);
}
