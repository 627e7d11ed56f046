/**
 * Streams through the server: how late the event loop of the process that serves becomes, and what the streams get.
 * The server runs in this process, its clients in another one, so that only serving is measured.
 *
 *     node bench/serve-streams.mjs [--streams 16] [--tokens 200] [--model DIR] [--json]
 */
import { fork } from 'node:child_process';
import path from 'node:path';
import { parseArgs } from 'node:util';

const root = path.resolve(import.meta.dirname, '..');
const { values: args } = parseArgs({
  options: {
    streams: { type: 'string', default: '16' },
    tokens: { type: 'string', default: '200' },
    model: { type: 'string', default: path.join(root, 'models/demo') },
    json: { type: 'boolean', default: false },
    url: { type: 'string' },
  },
});
/** Timers of this length tell how late the event loop is. */
const TIMER_MS = 2;

if (args.url) await runClients(args.url);
else await measure();

async function measure() {
  const { loadModel } = await import('../dist/index.js');
  const { createServer } = await import('../dist/server/index.js');
  const model = await loadModel({ model: args.model });
  const server = createServer(model, { modelName: 'demo' });
  const { url } = await server.listen({ port: 0 });
  const argv = ['--url', url, '--streams', args.streams, '--tokens', args.tokens];
  const before = await model.stats();
  const child = fork(import.meta.filename ?? process.argv[1] ?? '', argv);
  /** @type {{ lateMs: number[], firstMs: number[], seconds: number }} */
  const seen = { lateMs: [], firstMs: [], seconds: 0 };
  let streaming = false;
  child.on('message', (/** @type {any} */ message) => {
    streaming = message.type === 'start';
    if (message.type === 'end') Object.assign(seen, message.result);
  });
  const ended = new Promise((resolve) => {
    child.on('exit', resolve);
  });
  let over = false;
  ended.then(() => {
    over = true;
  });
  while (!over) {
    const startMs = performance.now();
    await new Promise((resolve) => setTimeout(resolve, TIMER_MS));
    if (streaming) seen.lateMs.push(Math.max(0, performance.now() - startMs - TIMER_MS));
  }
  const after = await model.stats();
  await server.close();
  await model.dispose();
  report(seen, after.total.generatedTokens - before.total.generatedTokens);
}

/** @param {{ lateMs: number[], firstMs: number[], seconds: number }} seen @param {number} tokens */
function report({ lateMs, firstMs, seconds }, tokens) {
  const result = {
    streams: Number(args.streams),
    tokensPerSecond: tokens / seconds,
    firstTokenMs: share(firstMs, 0.5),
    eventLoopDelayMs: { p50: share(lateMs, 0.5), p99: share(lateMs, 0.99), most: share(lateMs, 1) },
    samples: lateMs.length,
  };
  if (args.json) {
    console.log(JSON.stringify(result));
    return;
  }
  const { p50, p99, most } = result.eventLoopDelayMs;
  console.log(
    `${result.streams} streams: ${result.tokensPerSecond.toFixed(0)} tokens/s, first text after ${result.firstTokenMs.toFixed(1)} ms`,
  );
  console.log(
    `event-loop delay: p50 ${p50.toFixed(2)} ms, p99 ${p99.toFixed(2)} ms, most ${most.toFixed(2)} ms (${result.samples} samples)`,
  );
}

/** @param {number[]} values @param {number} part */
function share(values, part) {
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] ?? 0;
}

/** All streams at once, after one that warms up. @param {string} url */
async function runClients(url) {
  await stream(url, 0);
  process.send?.({ type: 'start' });
  const startMs = performance.now();
  const firstMs = await Promise.all(
    Array.from({ length: Number(args.streams) }, (_, index) => stream(url, index)),
  );
  const seconds = (performance.now() - startMs) / 1e3;
  process.send?.({ type: 'end', result: { firstMs, seconds } });
  process.disconnect();
}

/** @param {string} url @param {number} index @returns {Promise<number>} milliseconds to the first text */
async function stream(url, index) {
  const startMs = performance.now();
  const body = {
    model: 'demo',
    messages: [{ role: 'user', content: `Tell me story number ${index}.` }],
    max_tokens: Number(args.tokens),
    temperature: 1,
    seed: index,
    ignore_eos: true,
    stream: true,
  };
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  if (!response.ok || response.body === null) throw new Error(await response.text());
  let firstMs = 0;
  for await (const _ of response.body) firstMs ||= performance.now() - startMs;
  return firstMs;
}
