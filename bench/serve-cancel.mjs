/**
 * How long a place stays taken after its client has gone: from the moment a client closes its connection, while its prompt
 * or its answer is computed, to the start of the request that waits for the place, beside the time of a layer. The server
 * has one place, and runs in this process with its clients.
 *
 *     node bench/serve-cancel.mjs [--model DIR | --model synthetic:olmoe-1b-7b:q4_0] [--prompt-tokens 1500]
 *         [--repetitions 20] [--json]
 *
 * Loads the package as built (dist/). A layer's time is that of a step without leaving clients over the number of layers:
 * of a whole chunk of the prompt, or of one token. The floor is the same way without an engine: clients, sockets and server
 * of this process, and a model that lets go of an answer at once.
 */
import { subscribe } from 'node:diagnostics_channel';
import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import { parseArgs } from 'node:util';

/** @type {typeof import('../src/index.js')} */
const { loadModel } = await import(new URL('../dist/index.js', import.meta.url).href);
/** @type {typeof import('../src/server/index.js')} */
const { createServer } = await import(new URL('../dist/server/index.js', import.meta.url).href);

const { values: args } = parseArgs({
  options: {
    model: { type: 'string', default: 'synthetic:olmoe-1b-7b:q4_0' },
    'prompt-tokens': { type: 'string', default: '1500' },
    repetitions: { type: 'string', default: '20' },
    json: { type: 'boolean', default: false },
  },
});
const repetitions = Number(args.repetitions);
const VOCABULARY = 2000;
/** Long enough that no answer ends by itself. */
const ANSWER_TOKENS = 400;

const model = await loadModel({ model: args.model, kvTokens: 8192 });
const server = createServer(model, { modelName: 'm', maxConcurrent: 1, dashboard: false });
const engine = await server.listen({ port: 0 });
const idleServer = createServer(idleModel(), { modelName: 'm', maxConcurrent: 1, dashboard: false });
const idle = await idleServer.listen({ port: 0 });
const promptTokens = Math.min(Number(args['prompt-tokens']), model.info.maxContext - ANSWER_TOKENS - 2);

/** Told of each request that the engine is given: the first of these functions. @type {((nowMs: number) => void)[]} */
const waitingStarts = [];
const start = () => waitingStarts.shift()?.(performance.now());
subscribe('nearmoe.request.start', start);
const started = () => new Promise((resolve) => waitingStarts.push(resolve));

const ids = seeded(1);
const randomPrompt = (/** @type {number} */ length) =>
  Array.from({ length }, () => 3 + Math.floor(ids() * (VOCABULARY - 3)));

const layerMs = await measureLayers();
// Code that runs for the first time is not what is measured.
await series('idle', true);
/** @type {Record<string, { layerMs: number, freedMs: number[] }>} */
const cases = {
  'floor, streamed': { layerMs: 0, freedMs: await series('idle', true) },
  'floor, whole': { layerMs: 0, freedMs: await series('idle', false) },
  'prefill, streamed': { layerMs: layerMs.prefill, freedMs: await series('prefill', true) },
  'prefill, whole': { layerMs: layerMs.prefill, freedMs: await series('prefill', false) },
  'decode, streamed': { layerMs: layerMs.decode, freedMs: await series('decode', true) },
};
await Promise.all([server.close(), idleServer.close()]);
await model.dispose();
report();

/** Milliseconds of a layer in a chunk of a prompt and in the step of one token, medians. */
async function measureLayers() {
  // The first prompt also pays for pages that nobody has touched yet.
  await stepTimes(promptTokens, 1);
  const chunks = await stepTimes(promptTokens, 1);
  const tokens = await stepTimes(16, 32);
  const { layers } = model.info;
  // The last chunk is what is left of the prompt, with the first token.
  return {
    prefill: quantile(chunks.slice(0, -1), 0.5) / layers,
    decode: quantile(tokens.slice(1), 0.5) / layers,
  };
}

/** Milliseconds of each step of a request. @param {number} length @param {number} maxTokens */
async function stepTimes(length, maxTokens) {
  const begun = started();
  const options = { maxTokens, temperature: 0, ignoreEos: true, trace: true };
  const { trace = [] } = await model.generate({ inputIds: randomPrompt(length) }, options).result;
  await begun;
  return trace
    .filter(({ lane, name }) => lane === 'engine' && name === 'step')
    .map(({ startUs, endUs }) => (endUs - startUs) / 1e3);
}

/** A model that never answers, and lets go of a request as soon as it is cancelled. */
function idleModel() {
  const generate = (/** @type {unknown} */ _prompt, /** @type {{ signal: AbortSignal }} */ { signal }) => {
    start();
    const cancelled = once(signal, 'abort').then(() => Promise.reject(signal.reason));
    cancelled.catch(() => undefined);
    const parts = async function* () {
      yield await cancelled;
    };
    return { parts, result: cancelled, cancel: () => undefined };
  };
  return /** @type {any} */ ({ info: model.info, generate, chat: generate, stats: () => model.stats() });
}

/** @typedef {'prefill' | 'decode' | 'idle'} Phase */

/** @param {Phase} phase @param {boolean} stream */
async function series(phase, stream) {
  const freedMs = [];
  for (let run = 0; run < repetitions; run++) freedMs.push(await leave(phase, stream, run / repetitions));
  return freedMs;
}

/** One client that leaves, at a moment that is told by `share`. @param {Phase} phase @param {boolean} stream @param {number} share */
async function leave(phase, stream, share) {
  const first = started();
  const prompt = randomPrompt(phase === 'prefill' ? promptTokens : 16);
  const { port } = phase === 'idle' ? idle : engine;
  const leaving = ask(port, { prompt, max_tokens: ANSWER_TOKENS, ignore_eos: true, stream });
  leaving.on('error', () => undefined);
  await first;
  const second = started();
  const waiting = ask(port, { prompt: [3], max_tokens: 1 });
  waiting.on('error', () => undefined);
  if (phase === 'decode') {
    const [response] = await once(leaving, 'response');
    await once(response, 'data');
  }
  // Spread over several layers of several steps.
  const spreadMs = {
    prefill: 0.7 * layerMs.prefill * model.info.layers,
    decode: 20 * layerMs.decode,
    idle: 0,
  };
  await new Promise((resolve) => setTimeout(resolve, 5 + share * spreadMs[phase]));
  const leftMs = performance.now();
  leaving.destroy();
  const freedMs = (await second) - leftMs;
  if (phase === 'idle') {
    waiting.destroy();
    return freedMs;
  }
  const [response] = await once(waiting, 'response');
  if (response.statusCode !== 200) throw new Error(`the waiting request got ${response.statusCode}`);
  response.resume();
  await once(response, 'end');
  return freedMs;
}

/** @param {number} port @param {object} body */
function ask(port, body) {
  const sent = httpRequest({
    port,
    agent: false,
    method: 'POST',
    path: '/v1/completions',
    headers: { 'content-type': 'application/json' },
  });
  sent.end(JSON.stringify({ model: 'm', temperature: 0, ...body }));
  return sent;
}

function report() {
  const rows = Object.entries(cases).map(([name, { layerMs: layer, freedMs }]) => ({
    name,
    layerMs: layer,
    p50Ms: quantile(freedMs, 0.5),
    p90Ms: quantile(freedMs, 0.9),
    mostMs: quantile(freedMs, 1),
  }));
  if (args.json) {
    console.log(JSON.stringify({ model: args.model, promptTokens, rows }));
    return;
  }
  console.log(`${args.model}, ${repetitions} clients that leave each; milliseconds until the place is free`);
  for (const { name, layerMs: layer, p50Ms, p90Ms, mostMs } of rows) {
    const [p50, p90, most] = [p50Ms, p90Ms, mostMs].map((value) => value.toFixed(2));
    console.log(
      `${name.padEnd(18)} p50 ${p50}, p90 ${p90}, most ${most}${layer > 0 ? `; a layer takes ${layer.toFixed(3)}` : ''}`,
    );
  }
}

/** @param {readonly number[]} numbers @param {number} share */
function quantile(numbers, share) {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
}

/** Uniform numbers in [0, 1). @param {number} start */
function seeded(start) {
  let state = start >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}
