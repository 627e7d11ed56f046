/**
 * The simulated device against the real engine: `node bench/validate/reality.mjs [--model DIR] [--json]` after
 * `npm run build`. Calibrates a profile of this machine from a few steps (attention and logits by tokens, experts on
 * both sides, transfers), then runs every policy for real and in simulation on the same routing, and compares prefill and
 * decode time. Prints each pair, the median error, and whether the ranking of the policies agrees. Wants an idle machine.
 */
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { binding } from '../../dist/binding.js';
import { createNativeDevice } from '../../dist/device/native.js';
import { SimulatedDevice } from '../../dist/device/simulated.js';
import { calibrate } from '../../dist/engine/calibrate.js';
import { createEngine, fillDevice, nativeOptions } from '../../dist/engine/load.js';
import { createPlanner } from '../../dist/engine/planning.js';
import { resolveSettings } from '../../dist/engine/settings.js';
import { weightFacts } from '../../dist/engine/weight-facts.js';
import { openModel } from '../../dist/model/open-model.js';
import { schedulerEntries } from '../../dist/schedule/registry.js';
import { RecordedRouting } from '../../dist/sim/workload/recorded-routing.js';
import { MeasuredTimes } from './measured-times.mjs';

const { values: args } = parseArgs({
  options: {
    model: {
      type: 'string',
      default: fileURLToPath(new URL('../../test/golden/fixtures/qwen3_moe', import.meta.url)),
    },
    prompt: { type: 'string', default: '96' },
    tokens: { type: 'string', default: '48' },
    json: { type: 'boolean', default: false },
  },
});
const REPEATS = 3;
const promptTokens = Number(args.prompt);
const answerTokens = Number(args.tokens);

const opened = openModel(args.model);
const facts = weightFacts(opened);
const settings = resolveSettings(
  { model: args.model, units: 1, threadsPerUnit: 1, gpu: 'host', gpuThreads: 1, kvTokens: 1024 },
  { spec: opened.spec, ...facts },
  binding().cpuInfo(),
);
const flags = new Int32Array(new SharedArrayBuffer(64));
const device = createNativeDevice(opened.spec, nativeOptions(settings, facts), flags);
fillDevice(
  device,
  opened,
  settings,
  facts,
  () => undefined,
  () => false,
);

try {
  const times = new MeasuredTimes(device, (watched) => run(watched, 'ndp-only'));
  const pairs = schedulerEntries().map(({ name }) => {
    const real = bestOf(name);
    const simulated = simulatedRun(name, real.routing, times);
    return { policy: name, real: figures(real), simulated: figures(simulated) };
  });
  report(pairs);
} finally {
  device.dispose();
}

/** @typedef {import('../../dist/engine/result.js').GenerateResult} GenerateResult */
/** @typedef {{ prefillMs: number, decodeMs: number }} Figures */
/** @typedef {{ policy: string, real: Figures, simulated: Figures }} Pair */

/** @param {any} on a device  @param {string} policy  @returns {GenerateResult} */
function run(on, policy) {
  const names = { policy, prefetch: 'off', cachePolicy: 'score' };
  const profile = calibrate(device, device.info, settings.maxBatchTokens);
  const planner = createPlanner(on.info, opened.spec, names, profile);
  /** @type {GenerateResult | undefined} */
  let result;
  const engine = createEngine(on, opened, settings, planner, flags, {
    step: (parts) => {
      for (const part of parts) engine.acknowledge(part.id, 1);
    },
    finished: (_, finished) => {
      result = finished;
    },
    failed: (_, error) => {
      throw error;
    },
  });
  const prompt = Int32Array.from({ length: promptTokens }, (_, i) => (i * 7 + 3) % opened.spec.vocabSize);
  engine.add(0, 0, prompt, { maxTokens: answerTokens, temperature: 0, ignoreEos: true, recordRouting: true });
  while (engine.step());
  if (result === undefined) throw new Error('the request gave no result');
  return result;
}

/** @param {string} policy */
function bestOf(policy) {
  const results = Array.from({ length: REPEATS }, () => run(device, policy));
  return results.reduce((best, one) => (one.timings.totalMs < best.timings.totalMs ? one : best));
}

/** @type {(policy: string, routing: GenerateResult['routing'], times: MeasuredTimes) => GenerateResult} */
function simulatedRun(policy, routing, times) {
  if (routing === undefined) throw new Error('no routing was recorded');
  const records = new Map([[0, routing]]);
  const source = new RecordedRouting(records, opened.spec.layers.length);
  const options = { ...device.info, logitColumns: opened.spec.vocabSize };
  return run(new SimulatedDevice(opened.spec, options, times, source), policy);
}

/** @param {GenerateResult} result  @returns {Figures} */
function figures({ timings }) {
  return { prefillMs: timings.prefillMs, decodeMs: timings.decodeMs };
}

/** @param {Pair[]} pairs */
function report(pairs) {
  const errors = pairs.flatMap(({ real, simulated }) => [
    Math.abs(simulated.prefillMs / real.prefillMs - 1),
    Math.abs(simulated.decodeMs / real.decodeMs - 1),
  ]);
  const sorted = errors.sort((left, right) => left - right);
  const medianError = sorted[sorted.length >> 1] ?? Number.NaN;
  /** @param {(pair: Pair) => Figures} of */
  const ranking = (of) =>
    [...pairs].sort((left, right) => of(left).decodeMs - of(right).decodeMs).map(({ policy }) => policy);
  const real = ranking((pair) => pair.real);
  const simulated = ranking((pair) => pair.simulated);
  if (args.json) {
    console.log(JSON.stringify({ pairs, medianError, ranking: { real, simulated } }));
    return;
  }
  for (const { policy, real: own, simulated: told } of pairs) {
    const cell = (/** @type {number} */ ms) => ms.toFixed(2).padStart(9);
    console.log(
      `${policy.padEnd(14)} prefill ${cell(own.prefillMs)} real ${cell(told.prefillMs)} simulated   ` +
        `decode ${cell(own.decodeMs)} real ${cell(told.decodeMs)} simulated (ms)`,
    );
  }
  console.log(`median error ${(100 * medianError).toFixed(1)}%`);
  console.log(`ranking by decode, real:      ${real.join(' < ')}`);
  console.log(`ranking by decode, simulated: ${simulated.join(' < ')}`);
}
