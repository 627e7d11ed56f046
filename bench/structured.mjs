/**
 * What structured output costs: choosing a token under a JSON schema beside choosing one freely, as a share of the whole
 * decode step on a model, and the masks alone for a vocabulary of any size, made of random pieces of text.
 *
 *     node bench/structured.mjs [--model FOLDER] [--vocabulary 150000] [--gen-tokens 200] [--json]
 *
 * Loads the package as built (dist/).
 */
import { parseArgs } from 'node:util';

/** @type {typeof import('../src/index.js')} */
const { loadModel } = await import(new URL('../dist/index.js', import.meta.url).href);
/** @type {typeof import('../src/grammar/constraint.js')} */
const { Constraints } = await import(new URL('../dist/grammar/constraint.js', import.meta.url).href);
/** @type {typeof import('../src/engine/logit-mask.js')} */
const { LogitMask } = await import(new URL('../dist/engine/logit-mask.js', import.meta.url).href);

const { values } = parseArgs({
  options: {
    model: { type: 'string', default: new URL('../models/demo', import.meta.url).pathname },
    vocabulary: { type: 'string', default: '150000' },
    'gen-tokens': { type: 'string', default: '200' },
    json: { type: 'boolean', default: false },
  },
});

/** @type {import('../src/index.js').ResponseFormat} */
const responseFormat = {
  type: 'json_schema',
  schema: {
    type: 'object',
    properties: {
      title: { type: 'string', maxLength: 200 },
      year: { type: 'integer', minimum: 1900, maximum: 2100 },
      chapters: {
        type: 'array',
        items: {
          type: 'object',
          properties: { name: { type: 'string' }, text: { type: 'string', minLength: 100 } },
          required: ['name', 'text'],
        },
        minItems: 3,
      },
    },
    required: ['title', 'year', 'chapters'],
  },
};

/** @param {readonly number[]} numbers @param {number} share */
function quantile(numbers, share) {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
}

/** @param {number} size */
function masksAlone(size) {
  let seed = 1;
  /** @param {number} limit */
  const random = (limit) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return (seed >>> 8) % limit;
  };
  const letters = 'etaoinshrdlu cmfwypvbgkqjxz0123456789.,"{}[]:\\n-';
  const tokens = Array.from({ length: size }, (_, id) => {
    if (id < 256) return Uint8Array.of(id);
    const length = 2 + random(9);
    return new TextEncoder().encode(Array.from({ length }, () => letters[random(letters.length)]).join(''));
  });
  const none = new Uint8Array(0);
  const source = { vocabSize: size + 1, eosIds: [size], droppedSpaces: 0 };
  const constraints = new Constraints({
    ...source,
    specialTexts: new Map(),
    bytesOf: (id) => tokens[id] ?? none,
  });
  const times = { createMs: [0], tokenUs: [[0]] };
  const logits = new Float32Array(size + 1).map(() => random(1000) / 100);
  const mask = new LogitMask();
  for (let text = 0; text < 4; text++) {
    let startMs = performance.now();
    const constraint = constraints.create(responseFormat, true);
    times.createMs[text] = performance.now() - startMs;
    /** @type {number[]} */
    const tokenUs = [];
    for (let count = 0; count < 300 && constraint !== undefined && !constraint.isOver; count++) {
      startMs = performance.now();
      const allowed = constraint.mask();
      const row = mask.apply(logits, allowed);
      tokenUs.push(1e3 * (performance.now() - startMs));
      let id = random(size);
      while (row[id] === -Infinity) id = (id + 1) % size;
      constraint.accept(id);
    }
    times.tokenUs[text] = tokenUs;
  }
  const warm = times.tokenUs.slice(1).flat();
  return {
    vocabulary: size,
    firstCreateMs: times.createMs[0] ?? 0,
    firstTextMeanUs:
      (times.tokenUs[0] ?? []).reduce((sum, us) => sum + us, 0) / (times.tokenUs[0]?.length || 1),
    warmMeanUs: warm.reduce((sum, us) => sum + us, 0) / warm.length,
    warmP50Us: quantile(warm, 0.5),
    warmP99Us: quantile(warm, 0.99),
  };
}

async function onModel() {
  const model = await loadModel({ model: values.model });
  const options = { maxTokens: Number(values['gen-tokens']), ignoreEos: true, temperature: 1, trace: true };
  /** @param {number} seed @param {boolean} held */
  const run = async (seed, held) => {
    const extra = held ? { responseFormat } : {};
    const { trace = [] } = await model.generate('A book in JSON: ', { ...options, ...extra, seed }).result;
    /** @param {string} name */
    const spans = (name) =>
      trace
        .filter((span) => span.lane === 'engine' && span.name === name)
        .map(({ startUs, endUs }) => endUs - startUs);
    return { sampleUs: spans('sample').slice(1), stepUs: spans('step').slice(1) };
  };
  for (const held of [true, false]) await run(1, held);
  /** @type {Record<'held' | 'free', { sampleUs: number[], stepUs: number[] }>} */
  const all = { held: { sampleUs: [], stepUs: [] }, free: { sampleUs: [], stepUs: [] } };
  for (let seed = 2; seed < 8; seed++) {
    for (const name of /** @type {const} */ (['held', 'free'])) {
      const { sampleUs, stepUs } = await run(seed, name === 'held');
      all[name].sampleUs.push(...sampleUs);
      all[name].stepUs.push(...stepUs);
    }
  }
  await model.dispose();
  const stepUs = quantile(all.free.stepUs, 0.5);
  const sampleUs = { held: quantile(all.held.sampleUs, 0.5), free: quantile(all.free.sampleUs, 0.5) };
  return { stepUs, sampleUs, share: (sampleUs.held - sampleUs.free) / stepUs };
}

const alone = masksAlone(Number(values.vocabulary));
const whole = await onModel();
if (values.json) console.log(JSON.stringify({ alone, whole }));
else {
  const us = (/** @type {number} */ value) => value.toFixed(1);
  console.log(
    [
      `${alone.vocabulary} tokens: first request ${alone.firstCreateMs.toFixed(0)} ms once; a token ` +
        `${us(alone.firstTextMeanUs)} us in the first text, then mean ${us(alone.warmMeanUs)}, ` +
        `median ${us(alone.warmP50Us)}, p99 ${us(alone.warmP99Us)}`,
      `${values.model}: step ${us(whole.stepUs)} us, choosing a token ${us(whole.sampleUs.free)} us freely and ` +
        `${us(whole.sampleUs.held)} under the schema: ${(100 * whole.share).toFixed(1)}% of a step (medians)`,
    ].join('\n'),
  );
}
