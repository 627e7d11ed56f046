/**
 * The simulated device against the real engine: `node bench/validate/reality.mjs [--model DIR] [--link GB/s] [--json]`
 * after `npm run build`. Calibrates a profile of this machine from two policies and a prompt of their own (see
 * measured-times.mjs), then runs every policy for real and in simulation on the same routing, and compares prefill and
 * decode time. Runs alternate, and of each step the least time over the repetitions counts: what else the machine does
 * only ever adds. Prints each pair, the median error, and whether the ranking of the policies agrees.
 */
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { SimulatedDevice } from '../../dist/device/simulated.js';
import { schedulerEntries } from '../../dist/schedule/registry.js';
import { RecordedRouting } from '../../dist/sim/workload/recorded-routing.js';
import { Machine, median, sum } from './machine.mjs';
import { MeasuredTimes } from './measured-times.mjs';

const { values: args } = parseArgs({
  options: {
    model: { type: 'string', default: fileURLToPath(new URL('../../models/demo', import.meta.url)) },
    link: { type: 'string', default: '1' },
    prompt: { type: 'string', default: '96' },
    tokens: { type: 'string', default: '48' },
    repetitions: { type: 'string', default: '9' },
    json: { type: 'boolean', default: false },
  },
});
/** Real times that differ by less than this are no ranking: runs of one policy differ by as much. */
const TIE = 0.05;
const load = { promptTokens: Number(args.prompt), answerTokens: Number(args.tokens), seed: 0 };
const calibration = {
  promptTokens: Math.ceil(load.promptTokens * 0.75),
  answerTokens: load.answerTokens,
  seed: 1,
};
const repetitions = Array.from({ length: Number(args.repetitions) });

/** @typedef {import('./machine.mjs').Run} Run */
/** @typedef {{ prefillMs: number, decodeMs: number }} Figures */
/** @typedef {{ policy: string, real: Figures, simulated: Figures }} Pair */
/** @typedef {{ policy: string, prefetch?: string }} Names */

const machine = new Machine(args.model, Number(args.link));
try {
  report(compare());
} finally {
  machine.dispose();
}

/** @returns {Pair[]} */
function compare() {
  /** @type {Names[]} */
  const all = [
    ...schedulerEntries().map(({ name }) => ({ policy: name })),
    { policy: 'balanced', prefetch: 'prefill' },
  ];
  // The first runs of a process are slower: code is compiled, pages are touched.
  for (const names of all)
    machine.run({ ...names, load: { ...load, answerTokens: Math.min(16, load.answerTokens) } });
  /** @type {Run[]} */
  const unitRuns = [];
  /** @type {Run[]} */
  const gpuRuns = [];
  const real = all.map((names) => ({ names, runs: /** @type {Run[]} */ ([]) }));
  for (const _ of repetitions) {
    unitRuns.push(machine.run({ policy: 'ndp-only', load: calibration, trace: true }));
    gpuRuns.push(machine.run({ policy: 'static-split', load: calibration, trace: true }));
    for (const { names, runs } of real) runs.push(machine.run({ ...names, load }));
  }
  const times = new MeasuredTimes(machine, unitRuns, gpuRuns);
  const coldFactor = planFactor(times, unitRuns, gpuRuns);
  return real.map(({ names, runs }) => {
    const { one, many } = simulated(names, runs, times).planUs;
    times.policyPlanUs = { one: coldFactor * one, many: coldFactor * many };
    const policy = names.prefetch === undefined ? names.policy : `${names.policy}+${names.prefetch}`;
    return { policy, real: figures(runs), simulated: figures([simulated(names, runs, times)]) };
  });
}

/**
 * Planning beside a simulated device finds the processor's caches as it left them; beside a real one it does not. How
 * much longer it takes there is taken from the calibration's policies.
 * @type {(times: MeasuredTimes, unitRuns: Run[], gpuRuns: Run[]) => number}
 */
function planFactor(times, unitRuns, gpuRuns) {
  const ratios = /** @type {const} */ ([
    ['ndp-only', unitRuns],
    ['static-split', gpuRuns],
  ]).map(
    ([policy, runs]) =>
      Math.min(...runs.map(({ planUs }) => planUs.one)) /
      simulated({ policy }, runs, times, calibration).planUs.one,
  );
  return sum(ratios) / ratios.length;
}

/** A policy on the simulated machine, on the routing of its real runs. @type {(names: Names, runs: Run[], times: MeasuredTimes, own?: typeof load) => Run} */
function simulated(names, runs, times, own = load) {
  const routing = runs[0]?.result.routing;
  if (routing === undefined) throw new Error('no routing was recorded');
  const { spec } = machine.opened;
  const source = new RecordedRouting(new Map([[0, routing]]), spec.layers.length);
  const options = { ...machine.device.info, logitColumns: spec.vocabSize };
  return machine.run(
    { ...names, load: own },
    /** @type {any} */ (new SimulatedDevice(spec, options, times, source)),
  );
}

/** @param {readonly Run[]} runs  @returns {Figures} */
function figures(runs) {
  const steps = (runs[0]?.stepUs ?? []).map(
    (_, step) => Math.min(...runs.map(({ stepUs }) => stepUs[step] ?? 0)) / 1e3,
  );
  return { prefillMs: steps[0] ?? Number.NaN, decodeMs: sum(steps.slice(1)) };
}

/** @param {Pair[]} pairs */
function report(pairs) {
  const errors = pairs.flatMap(({ real, simulated: told }) => [
    Math.abs(told.prefillMs / real.prefillMs - 1),
    Math.abs(told.decodeMs / real.decodeMs - 1),
  ]);
  const medianError = median(errors);
  const ranking = {
    real: ranked(pairs, (pair) => pair.real),
    simulated: ranked(pairs, (pair) => pair.simulated),
    reversed: reversedPairs(pairs),
  };
  if (args.json) {
    console.log(
      JSON.stringify({ model: args.model, linkGBs: Number(args.link), load, pairs, medianError, ranking }),
    );
    return;
  }
  for (const { policy, real, simulated: told } of pairs) {
    const cell = (/** @type {number} */ ms) => ms.toFixed(2).padStart(9);
    const error = (/** @type {number} */ share) => `${(100 * (share - 1)).toFixed(0).padStart(4)}%`;
    console.log(
      `${policy.padEnd(16)} prefill ${cell(real.prefillMs)} real ${cell(told.prefillMs)} simulated ${error(told.prefillMs / real.prefillMs)}   ` +
        `decode ${cell(real.decodeMs)} real ${cell(told.decodeMs)} simulated ${error(told.decodeMs / real.decodeMs)} (ms)`,
    );
  }
  console.log(
    `median error ${(100 * medianError).toFixed(1)}%, largest ${(100 * Math.max(...errors)).toFixed(1)}%`,
  );
  console.log(`ranking by decode, real:      ${ranking.real.join(' < ')}`);
  console.log(`ranking by decode, simulated: ${ranking.simulated.join(' < ')}`);
  console.log(
    `pairs in another order that differ by more than ${100 * TIE}%: ${ranking.reversed.join(', ') || 'none'}`,
  );
}

/** @type {(pairs: Pair[], of: (pair: Pair) => Figures) => string[]} */
function ranked(pairs, of) {
  return [...pairs].sort((left, right) => of(left).decodeMs - of(right).decodeMs).map(({ policy }) => policy);
}

/** Policies that simulation puts in another order than reality, ties left out. @param {Pair[]} pairs */
function reversedPairs(pairs) {
  return pairs.flatMap((left) =>
    pairs
      .filter(
        (right) =>
          left.real.decodeMs < (1 - TIE) * right.real.decodeMs &&
          left.simulated.decodeMs > right.simulated.decodeMs,
      )
      .map((right) => `${left.policy} / ${right.policy}`),
  );
}
