/**
 * OperationTimes of the machine at hand for the simulated device. Used by reality.mjs. Experts and transfers are
 * measured alone and by the trace of two calibration runs, `ndp-only` and `static-split`, with a prompt of their own:
 * when each attention, expert and step began and ended. No run that is compared later is looked at.
 */
import { median, sum } from './machine.mjs';

/** @typedef {import('../../dist/device/operation-times.js').OperationTimes} OperationTimes */
/** @typedef {import('../../dist/device/device.js').DeviceTraceEvent} Span */
/** @typedef {import('./machine.mjs').Machine} Machine */
/** @typedef {import('./machine.mjs').Run} Run */
/** @typedef {{ layer: number, attentionUs: number, unit: Span[], gpu: Span[], attentionEndUs: number, nextUs: number }} Layer */
/** @typedef {{ tokens: number, layers: Layer[], logitsUs: number, aroundUs: number }} Step */
/** @typedef {{ attentionUs: number, unitStartUs: number, gpuStartUs: number, unitUs: number, gpuUs: number, resultUs: number, gpuExperts: number }} LeastLayer */
/** @typedef {Omit<Step, 'layers'> & { layers: LeastLayer[] }} LeastStep */
/** @typedef {import('./machine.mjs').ByTokens} ByTokens */

/** @implements {OperationTimes} */
export class MeasuredTimes {
  routingSyncUs = 0;
  combineUs = 0;
  /** Set for each policy, see planFactor in reality.mjs. @type {ByTokens} */
  policyPlanUs = { one: 0, many: 0 };
  /** @type {keyof ByTokens} */
  regime = 'one';

  /** @param {Machine} machine  @param {Run[]} unitRuns of ndp-only  @param {Run[]} gpuRuns of static-split */
  constructor(machine, unitRuns, gpuRuns) {
    const { device } = machine;
    this.transferUs = median(Array.from({ length: 15 }, () => device.measureTransfer()));
    const onUnits = leastSteps(unitRuns);
    const onGpu = leastSteps(gpuRuns);
    const decode = onUnits.filter(({ tokens }) => tokens === 1);
    const prompts = onUnits.filter(({ tokens }) => tokens > 1);
    this.manyTokens = prompts[0]?.tokens ?? 2;
    this.layers = (decode[0]?.layers ?? []).map((_, layer) => ({
      one: median(decode.map(({ layers }) => layers[layer]?.attentionUs ?? 0)),
      many: median(prompts.map(({ layers }) => layers[layer]?.attentionUs ?? 0)),
    }));
    const both = (/** @type {(steps: LeastStep[]) => number} */ of) => ({
      one: of(decode),
      many: of(prompts),
    });
    this.logits = both((steps) => median(steps.map(({ logitsUs, aroundUs }) => logitsUs + aroundUs)));
    this.ndpCommand = startAfterPlan(onUnits, unitRuns, ({ unitStartUs }) => unitStartUs);
    this.gpuLaunch = startAfterPlan(onGpu, gpuRuns, ({ gpuStartUs }) => gpuStartUs);
    this.ndpResult = both((steps) =>
      median(steps.flatMap(({ layers }) => layers.map(({ resultUs }) => resultUs))),
    );
    const [unit, gpu] = [false, true].map((isGpu) => curve((tokens) => device.measureExperts(isGpu, tokens)));
    if (unit === undefined || gpu === undefined) throw new Error('no experts were measured');
    this.unit = scaled(
      unit,
      expertRatio(
        onUnits,
        unitRuns,
        unit,
        ({ unitUs }) => unitUs,
        (loads) => [...loads.values()],
      ),
    );
    this.gpu = scaled(
      gpu,
      expertRatio(onGpu, gpuRuns, gpu, ({ gpuUs }) => gpuUs, lowestExperts),
    );
  }

  get planUs() {
    return this.policyPlanUs[this.regime];
  }

  get ndpCommandUs() {
    return this.ndpCommand[this.regime];
  }

  get ndpResultUs() {
    return this.ndpResult[this.regime];
  }

  get gpuLaunchUs() {
    return this.gpuLaunch[this.regime];
  }

  embeddingUs() {
    return 0;
  }

  /** @param {number} layer  @param {number} tokens */
  attentionUs(layer, tokens) {
    // The first call of a layer: what follows of it is of the same step.
    this.regime = tokens === 1 ? 'one' : 'many';
    const times = this.layers[layer];
    if (times === undefined) return 0;
    return times.one + ((times.many - times.one) * (tokens - 1)) / (this.manyTokens - 1);
  }

  /** @param {number} rows */
  logitsUs(rows) {
    return rows * this.logits[this.regime];
  }

  sharedExpertUs() {
    return 0;
  }

  gpuExpertsFloorUs() {
    return 0;
  }

  /** @param {number} tokens */
  gpuExpertUs(tokens) {
    return this.gpu(tokens);
  }

  /** @param {number} tokens */
  unitExpertUs(tokens) {
    return this.unit(tokens);
  }

  linkUs() {
    return 0;
  }

  unitLinkUs() {
    return 0;
  }
}

/** A traced run by steps and layers; the first step is the prompt's. @param {Run} run  @returns {Step[]} */
function stepsOf({ result, stepUs }) {
  const spans = [...(result.trace ?? [])].sort((left, right) => left.startUs - right.startUs);
  return spans
    .filter(({ name }) => name === 'step')
    .map((step, index) => {
      const own = spans.filter(({ startUs }) => startUs >= step.startUs && startUs < step.endUs);
      const logits = own.find(({ name }) => name === 'logits');
      const attention = own.filter(({ name }) => name === 'attention');
      const experts = own.filter(({ name }) => name === 'experts');
      const layers = attention.map(({ layer, startUs, endUs }, at) => ({
        layer,
        attentionUs: endUs - startUs,
        attentionEndUs: endUs,
        unit: experts.filter((span) => span.layer === layer && span.lane !== 'gpu'),
        gpu: experts.filter((span) => span.layer === layer && span.lane === 'gpu'),
        nextUs: attention[at + 1]?.startUs ?? logits?.startUs ?? endUs,
      }));
      const logitsUs = logits === undefined ? 0 : logits.endUs - logits.startUs;
      // Beginning and end of the step, sampling and text: what lies before the first layer and behind the logits.
      const insideUs = (logits?.endUs ?? step.endUs) - (attention[0]?.startUs ?? step.startUs);
      return {
        tokens: index === 0 ? result.usage.promptTokens : 1,
        layers,
        logitsUs,
        aroundUs: (stepUs[index] ?? 0) - insideUs,
      };
    });
}

/** Of each step and layer of equal runs the least times: what else the machine does only ever adds. @param {Run[]} runs  @returns {LeastStep[]} */
function leastSteps(runs) {
  const all = runs.map(stepsOf);
  const least = (/** @type {(steps: Step[]) => number} */ of) => Math.min(...all.map(of));
  return (all[0] ?? []).map(({ tokens, layers }, step) => ({
    tokens,
    logitsUs: least((steps) => steps[step]?.logitsUs ?? Infinity),
    aroundUs: least((steps) => steps[step]?.aroundUs ?? Infinity),
    layers: layers.map((_, layer) => {
      const of = (/** @type {(row: Layer) => number} */ value) =>
        least((steps) => {
          const row = steps[step]?.layers[layer];
          return row === undefined ? Infinity : value(row);
        });
      const busy = (/** @type {readonly Span[]} */ spans) =>
        sum(spans.map(({ startUs, endUs }) => endUs - startUs));
      const start = (/** @type {readonly Span[]} */ spans) =>
        Math.min(...spans.map(({ startUs }) => startUs));
      return {
        attentionUs: of((row) => row.attentionUs),
        unitStartUs: of(({ unit, attentionEndUs }) => start(unit) - attentionEndUs),
        gpuStartUs: of(({ gpu, attentionEndUs }) => start(gpu) - attentionEndUs),
        unitUs: of(({ unit }) => busy(unit)),
        gpuUs: of(({ gpu }) => busy(gpu)),
        resultUs: of(({ unit, nextUs }) => nextUs - Math.max(...unit.map(({ endUs }) => endUs))),
        gpuExperts: Math.max(...all.map((steps) => steps[step]?.layers[layer]?.gpu.length ?? 0)),
      };
    }),
  }));
}

/** From the end of attention to a side's start, without the plan. @type {(steps: LeastStep[], runs: Run[], startUs: (row: LeastLayer) => number) => ByTokens} */
function startAfterPlan(steps, runs, startUs) {
  const of = (/** @type {keyof ByTokens} */ regime) => {
    const rows = steps
      .filter(({ tokens }) => (tokens === 1) === (regime === 'one'))
      .flatMap(({ layers }) => layers);
    const started = rows.map(startUs).filter((us) => Number.isFinite(us));
    return Math.max(0, median(started) - Math.min(...runs.map(({ planUs }) => planUs[regime])));
  };
  return { one: of('one'), many: of('many') };
}

/**
 * What experts took inside runs over what they took alone, where weights and inputs lie in caches: for one token, and
 * for the prompt's loads.
 * @type {(steps: LeastStep[], runs: Run[], alone: (tokens: number) => number, busyUs: (row: LeastLayer) => number, own: (loads: Map<number, number>, count: number) => number[]) => ByTokens}
 */
function expertRatio(steps, runs, alone, busyUs, own) {
  const routing = runs[0]?.result.routing;
  if (routing === undefined) throw new Error('no routing was recorded');
  /** @type {{ one: number[], many: number[] }} */
  const ratios = { one: [], many: [] };
  let token = 0;
  for (const step of steps) {
    step.layers.forEach((row, layer) => {
      const aloneUs = sum(own(loadsOf(routing, layer, token, step.tokens), row.gpuExperts).map(alone));
      if (busyUs(row) > 0 && aloneUs > 0)
        ratios[step.tokens === 1 ? 'one' : 'many'].push(busyUs(row) / aloneUs);
    });
    token += step.tokens;
  }
  return { one: median(ratios.one), many: median(ratios.many) };
}

/** @type {(routing: NonNullable<Run['result']['routing']>, layer: number, first: number, tokens: number) => Map<number, number>} */
function loadsOf({ ids, layers, topK }, layer, first, tokens) {
  const loads = new Map();
  for (let token = first; token < first + tokens; token++) {
    for (let k = 0; k < topK; k++) {
      const expert = ids[(token * layers.length + layer) * topK + k];
      loads.set(expert, (loads.get(expert) ?? 0) + 1);
    }
  }
  return loads;
}

/** static-split gives the GPU the experts with the lowest numbers. @type {(loads: Map<number, number>, count: number) => number[]} */
function lowestExperts(loads, count) {
  return [...loads]
    .sort(([left], [right]) => left - right)
    .slice(0, count)
    .map(([, tokens]) => tokens);
}

/** @type {(alone: (tokens: number) => number, ratio: { one: number, many: number }) => (tokens: number) => number} */
function scaled(alone, { one, many }) {
  return (tokens) => alone(tokens) * (one + (many - one) * Math.min(1, Math.log2(tokens) / 3));
}

/** Piecewise linear through measured points. @param {(tokens: number) => number} measure */
function curve(measure) {
  const points = [1, 2, 4, 8, 16, 32, 64, 128].map((tokens) => ({
    tokens,
    timeUs: Math.min(...Array.from({ length: 7 }, () => measure(tokens))),
  }));
  return (/** @type {number} */ tokens) => {
    let low = points[0] ?? { tokens: 1, timeUs: 0 };
    for (const high of points) {
      if (tokens <= high.tokens) {
        if (high.tokens === low.tokens) return high.timeUs;
        return low.timeUs + ((high.timeUs - low.timeUs) * (tokens - low.tokens)) / (high.tokens - low.tokens);
      }
      low = high;
    }
    return (low.timeUs * tokens) / low.tokens;
  };
}
