/**
 * Fits the simulator's law of GPU expert times to one half of the measured shapes and checks it on the other:
 * `node bench/validate/gpu-expert-fit.mjs [--write]` after `npm run build:ts`. Prints the law and its errors; --write
 * puts them into src/sim/hardware/gpu-expert-fit.json. A layer takes a fixed time plus the sum over its experts.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { fittedExpertUs } from '../../dist/sim/gpu-times.js';
import { MEASURED_RATES, measuredLayers, splitShapes } from './measured-layers.mjs';

/** @typedef {import('./measured-layers.mjs').MeasuredLayer} MeasuredLayer */
/** @typedef {import('../../dist/sim/hardware.js').ExpertFit} ExpertFit */

const layers = measuredLayers();
const { fitted, checked } = splitShapes(layers);
const fitLayers = layers.filter(({ shape }) => fitted.includes(shape));
const checkLayers = layers.filter(({ shape }) => checked.includes(shape));

const law = fitLaw();
const errors = {
  fittedMedian: round(median(fitLayers.map((layer) => errorOf(law, layer)))),
  checkedMedian: round(median(checkLayers.map((layer) => errorOf(law, layer)))),
  checkedMedianUpTo16Tokens: round(
    median(checkLayers.filter(({ tokens }) => tokens <= 16).map((layer) => errorOf(law, layer))),
  ),
};
const result = {
  about: 'Law of GPU expert times, written by bench/validate/gpu-expert-fit.mjs; do not edit',
  source: JSON.parse(
    readFileSync(new URL('../../test/fixtures/gpu-moe-measured.json', import.meta.url), 'utf8'),
  ).source,
  law,
  errors,
  fittedShapes: fitted,
  checkedShapes: checked,
};
console.log(JSON.stringify(result, null, 2));
for (const shape of [...fitted, ...checked]) {
  const own = layers.filter((layer) => layer.shape === shape).map((layer) => errorOf(law, layer));
  console.log(
    `${fitted.includes(shape) ? 'fitted ' : 'checked'} ${shape.padEnd(26)} ${(100 * median(own)).toFixed(1)}%`,
  );
}
if (process.argv.includes('--write')) {
  const target = new URL('../../src/sim/hardware/gpu-expert-fit.json', import.meta.url);
  writeFileSync(target, `${JSON.stringify(result, null, 2)}\n`);
}

/** @type {(candidate: ExpertFit, layer: MeasuredLayer) => number} */
function layerUs(candidate, { hiddenSize, intermediateSize, matrices, loads }) {
  const parameters = matrices * hiddenSize * intermediateSize;
  return loads.reduce(
    (sum, { tokens, experts }) =>
      sum + experts * fittedExpertUs(candidate, MEASURED_RATES, 2 * parameters, 2 * parameters, tokens),
    candidate.floorUs,
  );
}

/** @type {(candidate: ExpertFit, layer: MeasuredLayer) => number} relative to what was measured */
function errorOf(candidate, layer) {
  return Math.abs(layerUs(candidate, layer) / layer.measuredUs - 1);
}

/** Least mean of |ln(law / measured)| by the simplex method of Nelder and Mead, restarted. @returns {ExpertFit} */
function fitLaw() {
  const start = [30, 0.8, 0.4, 3].map(Math.log);
  /** @type {(point: number[]) => number} */
  const loss = (point) => {
    const candidate = asLaw(point);
    return (
      fitLayers.reduce(
        (sum, layer) => sum + Math.abs(Math.log(layerUs(candidate, layer) / layer.measuredUs)),
        0,
      ) / fitLayers.length
    );
  };
  let best = start;
  for (let restart = 0; restart < 4; restart++) best = nelderMead(loss, best, 0.3, 150);
  const { floorUs, bandwidthShare, computeShare, sharpness } = asLaw(best);
  return {
    floorUs: round(floorUs),
    bandwidthShare: round(bandwidthShare),
    computeShare: round(computeShare),
    sharpness: round(sharpness),
  };
}

/** @type {(point: number[]) => ExpertFit} */
function asLaw(point) {
  const [floorUs = 0, bandwidthShare = 0, computeShare = 0, sharpness = 0] = point.map(Math.exp);
  return { floorUs, bandwidthShare, computeShare, sharpness };
}

/** @type {(f: (point: number[]) => number, start: number[], size: number, rounds: number) => number[]} */
function nelderMead(f, start, size, rounds) {
  const corners = [
    start,
    ...start.map((_, axis) => start.map((value, i) => value + (i === axis ? size : 0))),
  ];
  let simplex = corners.map((point) => ({ point, value: f(point) }));
  for (let round_ = 0; round_ < rounds; round_++) {
    simplex.sort((left, right) => left.value - right.value);
    const worst = /** @type {{ point: number[], value: number }} */ (simplex.pop());
    const centre = start.map(
      (_, i) => simplex.reduce((sum, { point }) => sum + (point[i] ?? 0), 0) / simplex.length,
    );
    /** @type {(along: number) => { point: number[], value: number }} */
    const at = (along) => {
      const point = centre.map((value, i) => value + along * ((worst.point[i] ?? 0) - value));
      return { point, value: f(point) };
    };
    const least = simplex[0]?.value ?? 0;
    const second = simplex.at(-1)?.value ?? 0;
    let next = at(-1);
    if (next.value < least) {
      const further = at(-2);
      if (further.value < next.value) next = further;
    } else if (next.value >= second) next = at(0.5);
    if (next.value < worst.value) simplex.push(next);
    else {
      const anchor = simplex[0]?.point ?? start;
      simplex = [...simplex, worst].map(({ point }) => {
        const moved = point.map((value, i) => ((anchor[i] ?? 0) + value) / 2);
        return { point: moved, value: f(moved) };
      });
    }
  }
  simplex.sort((left, right) => left.value - right.value);
  return simplex[0]?.point ?? start;
}

/** @param {number[]} values */
function median(values) {
  const sorted = [...values].sort((left, right) => left - right);
  return sorted[sorted.length >> 1] ?? 0;
}

/** @param {number} value */
function round(value) {
  return Number(value.toPrecision(4));
}
