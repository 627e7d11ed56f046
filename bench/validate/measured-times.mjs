/**
 * OperationTimes of the machine at hand for the simulated device, from a watched run of the real one. Used by
 * reality.mjs. Experts and transfers are measured alone; attention by its own observations; what a decode step takes
 * beyond all of these is spread over its layers as the host's fixed time.
 */

/** @typedef {import('../../dist/device/native.js').LoadableDevice} LoadableDevice */
/** @typedef {import('../../dist/device/operation-times.js').OperationTimes} OperationTimes */
/** @typedef {import('../../dist/engine/result.js').GenerateResult} GenerateResult */
/** @typedef {{ tokens: number, attentionUs: number[], unitUs: number, logitsUs: number, stepUs: number }} Step */

/** @implements {OperationTimes} */
export class MeasuredTimes {
  routingSyncUs = 0;
  planUs = 0;
  gpuLaunchUs = 0;
  ndpCommandUs = 0;
  ndpResultUs = 0;
  combineUs = 0;

  /** @param {LoadableDevice} device  @param {(device: LoadableDevice) => GenerateResult} run */
  constructor(device, run) {
    this.transferUs = median(Array.from({ length: 9 }, () => device.measureTransfer()));
    this.gpu = curve((tokens) => device.measureExperts(true, tokens));
    this.unit = curve((tokens) => device.measureExperts(false, tokens));
    run(device);
    /** @type {Step[]} */
    const steps = [];
    run(watched(device, steps));
    const decode = steps.filter(({ tokens }) => tokens === 1);
    const prompt = steps.find(({ tokens }) => tokens > 1);
    this.layers = (decode[0]?.attentionUs ?? []).map((_, layer) => ({
      one: median(decode.map(({ attentionUs }) => attentionUs[layer] ?? 0)),
      many: prompt?.attentionUs[layer] ?? 0,
    }));
    this.manyTokens = prompt?.tokens ?? 2;
    this.logits = median(decode.map(({ logitsUs }) => logitsUs));
    const restUs = median(
      decode.map((step) => step.stepUs - sum(step.attentionUs) - step.unitUs - step.logitsUs),
    );
    this.planUs = Math.max(0, restUs / Math.max(1, this.layers.length));
  }

  embeddingUs() {
    return 0;
  }

  /** @param {number} layer  @param {number} tokens */
  attentionUs(layer, tokens) {
    const times = this.layers[layer];
    if (times === undefined) return 0;
    return times.one + ((times.many - times.one) * (tokens - 1)) / (this.manyTokens - 1);
  }

  /** @param {number} rows */
  logitsUs(rows) {
    return rows * this.logits;
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

/** @type {(device: LoadableDevice, steps: Step[]) => LoadableDevice} */
function watched(device, steps) {
  let [startUs, logitsUs, tokens] = [0, 0, 0];
  return new Proxy(device, {
    get(target, name) {
      if (name === 'beginStep') {
        return (/** @type {any} */ batch) => {
          startUs = target.nowUs();
          tokens = batch.sequences[0].tokenIds.length;
          target.beginStep(batch);
        };
      }
      if (name === 'runLogits') {
        return () => {
          const fromUs = target.nowUs();
          const result = target.runLogits();
          logitsUs = target.nowUs() - fromUs;
          return result;
        };
      }
      if (name === 'observations') {
        return () => {
          const all = target.observations();
          const last = all.at(-1)?.makespanUs ?? 0;
          steps.push({
            tokens,
            attentionUs: all.map((layer) => layer.attentionUs),
            unitUs: sum(all.map((layer) => layer.makespanUs)),
            // The last layer's experts are done inside this call.
            logitsUs: Math.max(0, logitsUs - last),
            stepUs: target.nowUs() - startUs,
          });
          return all;
        };
      }
      const value = Reflect.get(target, name);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

/** Piecewise linear through measured points. @param {(tokens: number) => number} measure */
function curve(measure) {
  const points = [1, 2, 4, 8, 16, 32, 64, 128].map((tokens) => ({
    tokens,
    timeUs: Math.min(...Array.from({ length: 5 }, () => measure(tokens))),
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

/** @param {number[]} values */
function sum(values) {
  return values.reduce((total, value) => total + value, 0);
}

/** @param {number[]} values */
function median(values) {
  return [...values].sort((left, right) => left - right)[values.length >> 1] ?? 0;
}
