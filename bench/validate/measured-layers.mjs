/**
 * The measured MoE layers that the simulator's GPU expert law is fitted to and checked against, with the loads they
 * were measured under. Used by gpu-expert-fit.mjs and test/sim; measures nothing itself.
 * Loads follow the collector's own rules (aiconfigurator, collector/helper.py): 'balanced' spreads the pairs evenly,
 * 'power_law_a' draws counts from a power law; here the law's quantiles stand in for its random draws.
 */
import { readFileSync } from 'node:fs';

/**
 * @typedef {{ shape: string, hiddenSize: number, intermediateSize: number, matrices: number, tokens: number,
 *   distribution: string, measuredUs: number, loads: { tokens: number, experts: number }[] }} MeasuredLayer
 * `loads`: how many experts have how many tokens.
 */

/** The GPU of the measurements: bytes and operations per microsecond. */
export const MEASURED_RATES = { bytesPerUs: 1792e3, flopsPerUs: 467.8e6 };

const file = new URL('../../test/fixtures/gpu-moe-measured.json', import.meta.url);

/** @returns {MeasuredLayer[]} */
export function measuredLayers() {
  const data = JSON.parse(readFileSync(file, 'utf8'));
  /** @type {MeasuredLayer[]} */
  const layers = [];
  for (const { hiddenSize, intermediateSize, topK, experts, matrices, layerUs } of data.shapes) {
    const shape = `${hiddenSize}x${intermediateSize} top ${topK} of ${experts}`;
    for (const [distribution, times] of Object.entries(layerUs)) {
      data.tokens.forEach((/** @type {number} */ tokens, /** @type {number} */ index) => {
        const loads = loadsOf(distribution, tokens, experts, topK);
        const measuredUs = times[index];
        layers.push({
          shape,
          hiddenSize,
          intermediateSize,
          matrices,
          tokens,
          distribution,
          measuredUs,
          loads,
        });
      });
    }
  }
  return layers;
}

/** Shapes in the order of the file; every second one is for fitting, the others for the check. */
export function splitShapes(/** @type {MeasuredLayer[]} */ layers) {
  const shapes = [...new Set(layers.map(({ shape }) => shape))].sort();
  return {
    fitted: shapes.filter((_, index) => index % 2 === 0),
    checked: shapes.filter((_, index) => index % 2 === 1),
  };
}

/** @type {(distribution: string, tokens: number, experts: number, topK: number) => { tokens: number, experts: number }[]} */
function loadsOf(distribution, tokens, experts, topK) {
  const counts =
    distribution === 'balanced'
      ? balanced(tokens, experts, topK)
      : powerLaw(tokens, experts, topK, Number(distribution.split('_').at(-1)));
  /** @type {Map<number, number>} */
  const groups = new Map();
  for (const count of counts) if (count > 0) groups.set(count, (groups.get(count) ?? 0) + 1);
  return [...groups].map(([count, number]) => ({ tokens: count, experts: number }));
}

/** @type {(tokens: number, experts: number, topK: number) => number[]} */
function balanced(tokens, experts, topK) {
  const counts = new Array(experts).fill(0);
  const stride = Math.ceil(experts / topK);
  for (let token = 0; token < tokens; token++) {
    const first = tokens >= stride ? token : (token * stride) / tokens;
    for (let k = 0; k < topK; k++) counts[Math.floor(first + k * stride) % experts]++;
  }
  return counts;
}

/** @type {(tokens: number, experts: number, topK: number, alpha: number) => number[]} descending */
function powerLaw(tokens, experts, topK, alpha) {
  const pairs = tokens * topK;
  const [low, high] = pairs > experts ? [1, tokens * 0.8] : [0.01, 2];
  const power = 1 - alpha;
  const weights = Array.from({ length: experts }, (_, expert) => {
    const quantile = (experts - expert - 0.5) / experts;
    return ((high ** power - low ** power) * quantile + low ** power) ** (1 / power);
  });
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const counts = weights.map((weight) => Math.round((weight / total) * pairs));
  settle(counts, pairs, tokens);
  return counts;
}

/** Makes the counts sum to `pairs` with at most `most` each, changing the largest ones first. */
function settle(/** @type {number[]} */ counts, /** @type {number} */ pairs, /** @type {number} */ most) {
  counts.forEach((count, index) => {
    counts[index] = Math.min(count, most);
  });
  let missing = pairs - counts.reduce((sum, count) => sum + count, 0);
  for (let index = 0; missing !== 0; index = (index + 1) % counts.length) {
    const count = counts[index] ?? 0;
    const step = Math.sign(missing);
    if (count + step < 0 || count + step > most || (step < 0 && count === 0)) continue;
    counts[index] = count + step;
    missing -= step;
  }
}
