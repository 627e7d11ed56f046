/**
 * Runs of the production engine on this machine or on a simulated device, step by step, for reality.mjs: a loaded model
 * with one NDP unit and a GPU lane of one thread, and what each step and each layer of a run took.
 */
import { binding } from '../../dist/binding.js';
import { createNativeDevice } from '../../dist/device/native.js';
import { calibrate } from '../../dist/engine/calibrate.js';
import { createEngine, fillDevice, nativeOptions } from '../../dist/engine/load.js';
import { createPlanner } from '../../dist/engine/planning.js';
import { resolveSettings } from '../../dist/engine/settings.js';
import { weightFacts } from '../../dist/engine/weight-facts.js';
import { openModel } from '../../dist/model/open-model.js';

/** @typedef {import('../../dist/device/native.js').LoadableDevice} LoadableDevice */
/** @typedef {import('../../dist/device/device.js').Device} Device */
/** @typedef {import('../../dist/engine/result.js').GenerateResult} GenerateResult */
/** @typedef {{ promptTokens: number, answerTokens: number, seed: number }} Load */
/** @typedef {{ policy: string, prefetch?: string, load: Load, trace?: boolean }} RunOptions */
/** @typedef {{ one: number, many: number }} ByTokens decode steps, and steps of a prompt */
/** @typedef {{ result: GenerateResult, stepUs: number[], planUs: ByTokens }} Run */

export class Machine {
  /** @param {string} model  @param {number} linkGBs */
  constructor(model, linkGBs) {
    this.opened = openModel(model);
    const facts = weightFacts(this.opened);
    this.settings = resolveSettings(
      {
        model,
        units: 1,
        threadsPerUnit: 1,
        gpu: 'host',
        gpuThreads: 1,
        kvTokens: 1024,
        transferBandwidthGBs: linkGBs,
      },
      { spec: this.opened.spec, ...facts },
      binding().cpuInfo(),
    );
    this.flags = new Int32Array(new SharedArrayBuffer(64));
    this.device = createNativeDevice(this.opened.spec, nativeOptions(this.settings, facts), this.flags);
    fillDevice(
      this.device,
      this.opened,
      this.settings,
      facts,
      () => undefined,
      () => false,
    );
    // What every run's planner starts from, real or simulated: measured once, so that equal routing is planned equally.
    this.profile = calibrate(this.device, this.device.info, this.settings.maxBatchTokens);
  }

  /** One request, alone; `on` is this machine's device where none is given. @param {RunOptions} options  @returns {Run} */
  run({ policy, prefetch = 'off', load, trace = false }, on = this.device) {
    const { spec } = this.opened;
    const names = { policy, prefetch, cachePolicy: 'score' };
    const planner = createPlanner(this.device.info, spec, names, this.profile);
    const planned = timePlans(planner);
    /** @type {GenerateResult | undefined} */
    let result;
    const engine = createEngine(on, this.opened, this.settings, planner, this.flags, {
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
    const prompt = Int32Array.from(
      { length: load.promptTokens },
      (_, i) => (i * 7 + 3 + 31 * load.seed) % spec.vocabSize,
    );
    engine.add(0, 0, prompt, {
      maxTokens: load.answerTokens,
      temperature: 0,
      repetitionPenalty: 1,
      ignoreEos: true,
      recordRouting: true,
      trace,
    });
    const stepUs = [];
    let fromUs = on.nowUs();
    while (engine.step()) {
      const untilUs = on.nowUs();
      stepUs.push(untilUs - fromUs);
      fromUs = untilUs;
    }
    if (result === undefined) throw new Error('the request gave no result');
    return { result, stepUs, planUs: { one: median(planned.one), many: median(planned.many) } };
  }

  dispose() {
    this.device.dispose();
  }
}

/** What each layer's plan takes this thread, microseconds. */
function timePlans(/** @type {import('../../dist/schedule/planner.js').Planner} */ planner) {
  /** @type {{ one: number[], many: number[] }} */
  const takenUs = { one: [], many: [] };
  const plan = planner.plan.bind(planner);
  planner.plan = (layer, routing, nowUs) => {
    const fromMs = performance.now();
    const made = plan(layer, routing, nowUs);
    takenUs[routing.tokens === 1 ? 'one' : 'many'].push((performance.now() - fromMs) * 1e3);
    return made;
  };
  return takenUs;
}

/** @param {readonly number[]} values */
export function median(values) {
  return [...values].sort((left, right) => left - right)[values.length >> 1] ?? 0;
}

/** @param {readonly number[]} values */
export function sum(values) {
  return values.reduce((total, value) => total + value, 0);
}
