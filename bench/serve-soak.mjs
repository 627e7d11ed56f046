/**
 * Soak of the server: many requests of mixed length, some cancelled at random points, some malformed, against
 * `infer.js serve` in a process of its own. Checks that nothing crashes or leaks, that every completed greedy answer is
 * the one that the same request gets alone, and that the metrics add up. Exit status 1 where one of these fails.
 *
 *     node bench/serve-soak.mjs [--requests 2000] [--concurrency 16] [--model DIR] [--seed 1]
 *         [--young-mib 1] [--old-mib 24] [--rest-seconds 20]
 *         [--most-growth 0.03] [--json] [-- serve options]
 *
 * V8 lets the young generation of each thread grow with the load up to 48 MiB and never gives it back; --young-mib bounds
 * its semi-spaces (0: V8's own default). Garbage in the old generation is collected as lazily; --old-mib bounds that, and
 * an idle process gives it back. Resident memory is therefore compared at rest: after the first requests and after the last
 * one the server gets none for --rest-seconds. --most-growth bounds what is more the second time; memory amid the load is told
 * beside it.
 */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';

const root = path.resolve(import.meta.dirname, '..');
const { values: args, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    requests: { type: 'string', default: '2000' },
    concurrency: { type: 'string', default: '16' },
    model: { type: 'string', default: path.join(root, 'models/demo') },
    seed: { type: 'string', default: '1' },
    'young-mib': { type: 'string', default: '1' },
    'old-mib': { type: 'string', default: '24' },
    'rest-seconds': { type: 'string', default: '20' },
    'most-growth': { type: 'string', default: '0.03' },
    json: { type: 'boolean', default: false },
  },
});
const requestCount = Number(args.requests);
const concurrency = Number(args.concurrency);
/** Requests after which resident memory is measured first. */
const WARM_REQUESTS = Math.min(100, Math.floor(requestCount / 2));

/**
 * @typedef {{ url: string, pid: number, stop: () => Promise<number | null> }} Server
 * @typedef {{ path: string, body: Record<string, unknown> }} Ask
 * @typedef {{ sent: number, completed: number, cancelled: number, malformed: number, wrongTexts: number,
 *   wrongStatuses: string[], tokens: number }} Counts
 */

const SUBJECTS = ['a fox', 'a bear', 'a sparrow', 'a kite', 'a lantern', 'a garden', 'the sea', 'a key'];
const FORMS = [
  (/** @type {string} */ s) => `Tell me a story about ${s}.`,
  (/** @type {string} */ s) => `Once upon a time, ${s}`,
];
const LENGTHS = [1, 12, 40, 120];

/** Every request that is not malformed is one of these, so that each is computed alone only once. */
const asks = SUBJECTS.flatMap((subject) =>
  FORMS.flatMap((form, chat) =>
    LENGTHS.map((length, at) => {
      // Prompts of mixed length as well.
      const text = `${'They went on and on. '.repeat(at * 6)}${form(subject)}`;
      const common = { model: 'demo', temperature: 0, max_tokens: length };
      return chat === 0
        ? { path: '/v1/chat/completions', body: { ...common, messages: [{ role: 'user', content: text }] } }
        : { path: '/v1/completions', body: { ...common, prompt: text } };
    }),
  ),
);

/** Ways to spoil a request. */
const MALFORMED = [
  () => '{"model": "demo", ',
  (/** @type {Record<string, unknown>} */ body) => ({ ...body, model: 'other' }),
  (/** @type {Record<string, unknown>} */ body) => ({ ...body, temperature: 'warm' }),
  (/** @type {Record<string, unknown>} */ body) => ({ ...body, max_tokens: -1 }),
  (/** @type {Record<string, unknown>} */ body) => ({ ...body, unheard: 1 }),
  (/** @type {Record<string, unknown>} */ body) => ({ ...body, messages: [], prompt: [] }),
  () => ({ model: 'demo', prompt: 'on and on '.repeat(3000) }),
];

const random = seeded(Number(args.seed));
const server = await startServer();
/** @type {Map<Ask, string>} */
const alone = new Map();
for (const ask of asks) alone.set(ask, await answerOf(ask, false));

/** @type {Counts} */
const counts = {
  sent: 0,
  completed: 0,
  cancelled: 0,
  malformed: 0,
  wrongTexts: 0,
  wrongStatuses: [],
  tokens: 0,
};
await run(WARM_REQUESTS);
const warmLoadedBytes = residentBytes(server.pid);
const warmBytes = await atRest();
const startMs = performance.now();
/** Resident memory by the way, after each further quarter of the requests. @type {number[]} */
const quarterBytes = [];
for (let quarter = 1; quarter <= 4; quarter++) {
  const until = Math.round(WARM_REQUESTS + (quarter / 4) * (requestCount - WARM_REQUESTS));
  await run(until - counts.sent);
  quarterBytes.push(residentBytes(server.pid));
}
const seconds = (performance.now() - startMs) / 1e3;
const endBytes = await atRest();
const problems = [...(await checkMetrics()), ...checkCounts()];
const status = await server.stop();
if (status !== 0) problems.push(`the server ended with status ${status}`);
report();
process.exitCode = problems.length > 0 ? 1 : 0;

/** Sends this many requests, `concurrency` at a time. @param {number} count */
async function run(count) {
  let left = count;
  const worker = async () => {
    while (left > 0) {
      left--;
      await one();
    }
  };
  await Promise.all(Array.from({ length: concurrency }, worker));
}

/** Resident memory after some time without a request. */
async function atRest() {
  await new Promise((resolve) => setTimeout(resolve, 1e3 * Number(args['rest-seconds'])));
  return residentBytes(server.pid);
}

async function one() {
  counts.sent++;
  const ask = /** @type {Ask} */ (asks[Math.floor(random() * asks.length)]);
  const kind = random();
  const streamed = random() < 0.6;
  if (kind < 0.1) return malformed(ask);
  if (kind < 0.1 + 1 / 3) return cancelled(ask, streamed);
  const text = await answerOf(ask, streamed);
  counts.completed++;
  if (text !== alone.get(ask)) counts.wrongTexts++;
}

/** @param {Ask} ask */
async function malformed(ask) {
  const spoil = /** @type {any} */ (MALFORMED[Math.floor(random() * MALFORMED.length)]);
  const response = await post(ask.path, spoil(ask.body));
  await response.text();
  counts.malformed++;
  if (response.status < 400 || response.status >= 500) counts.wrongStatuses.push(`${response.status}`);
}

/** Leaves at some moment: before the first text, amidst the stream, or hardly before its end. @param {Ask} ask @param {boolean} streamed */
async function cancelled(ask, streamed) {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), random() ** 2 * 400);
  try {
    await answerOf(ask, streamed, controller.signal);
    counts.completed++;
  } catch (error) {
    if (!controller.signal.aborted) throw error;
    counts.cancelled++;
  } finally {
    clearTimeout(timer);
  }
}

/** @param {Ask} ask @param {boolean} stream @param {AbortSignal} [signal] @returns {Promise<string>} */
async function answerOf(ask, stream, signal) {
  const response = await post(ask.path, { ...ask.body, stream }, signal);
  const text = await response.text();
  if (response.status !== 200) throw new Error(`status ${response.status}: ${text}`);
  const bodies = stream
    ? text
        .split('\n\n')
        .filter((line) => line.startsWith('data: {'))
        .map((line) => JSON.parse(line.slice(6)))
    : [JSON.parse(text)];
  if (stream && !text.endsWith('data: [DONE]\n\n'))
    throw new Error(`the stream ended early: ${text.slice(-200)}`);
  return bodies
    .flatMap(({ choices }) => choices)
    .map((choice) => choice.text ?? choice.delta?.content ?? choice.message?.content ?? '')
    .join('');
}

/** @param {string} at @param {unknown} body @param {AbortSignal} [signal] */
function post(at, body, signal) {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  return fetch(server.url + at, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: text,
    signal,
  });
}

/** What the server counted against what was sent. @returns {Promise<string[]>} */
async function checkMetrics() {
  // Those that left early may still be on their way out.
  let figures = await scrape();
  for (let turn = 0; turn < 100 && figures.get('nearmoe_places_taken') !== 0; turn++) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    figures = await scrape();
  }
  const sum = (/** @type {string} */ outcome) =>
    [...figures].reduce(
      (total, [name, value]) =>
        name.startsWith('nearmoe_requests_total') && name.includes(`outcome="${outcome}"`)
          ? total + value
          : total,
      0,
    );
  const all = ['completed', 'cancelled', 'invalid', 'failed', 'refused', 'timed_out'].map((outcome) =>
    sum(outcome),
  );
  const sent = counts.sent + asks.length;
  const found = [];
  const expect = (/** @type {string} */ what, /** @type {unknown} */ got, /** @type {unknown} */ wanted) => {
    if (got !== wanted) found.push(`${what}: expected ${wanted}, got ${got}`);
  };
  // A client that leaves before its request was read was never there.
  const seen = all.reduce((total, value) => total + value, 0);
  if (seen > sent || seen < sent - counts.cancelled) found.push(`requests: ${sent} sent, ${seen} counted`);
  expect('malformed', sum('invalid'), counts.malformed);
  expect('failed', sum('failed') + sum('refused') + sum('timed_out'), 0);
  if (sum('completed') < counts.completed + asks.length)
    found.push(`completed: ${counts.completed}, ${sum('completed')} counted`);
  expect('durations', figures.get('nearmoe_request_duration_seconds_count'), seen);
  expect('places taken', figures.get('nearmoe_places_taken'), 0);
  expect('queue', figures.get('nearmoe_queue_length'), 0);
  expect('running sequences', figures.get('nearmoe_engine_running'), 0);
  expect('free KV blocks', figures.get('nearmoe_kv_blocks_free_ratio'), 1);
  counts.tokens = figures.get('nearmoe_tokens_generated_total') ?? 0;
  return found;
}

/** @returns {string[]} */
function checkCounts() {
  const found = [];
  if (counts.wrongTexts > 0) found.push(`${counts.wrongTexts} answers differ from the same request alone`);
  if (counts.wrongStatuses.length > 0)
    found.push(`malformed requests got ${counts.wrongStatuses.join(', ')}`);
  const growth = endBytes / warmBytes - 1;
  if (growth > Number(args['most-growth']))
    found.push(`resident memory grew by ${(100 * growth).toFixed(1)}%`);
  return found;
}

function report() {
  const megabytes = (/** @type {number} */ bytes) => (bytes / 2 ** 20).toFixed(1);
  const result = {
    ...counts,
    seconds,
    warmLoadedBytes,
    warmBytes,
    quarterBytes,
    endBytes,
    growth: endBytes / warmBytes - 1,
    problems,
  };
  if (args.json) {
    console.log(JSON.stringify(result));
    return;
  }
  console.log(
    `${counts.sent} requests in ${seconds.toFixed(1)} s: ${counts.completed} completed, ${counts.cancelled} cancelled, ` +
      `${counts.malformed} malformed; ${counts.tokens} tokens generated`,
  );
  console.log(
    `resident memory after ${args['rest-seconds']} s of rest: ${megabytes(warmBytes)} MiB after ${WARM_REQUESTS} requests, ` +
      `${megabytes(endBytes)} MiB after all (${(100 * result.growth).toFixed(1)}%); under load ${megabytes(warmLoadedBytes)} MiB ` +
      `then, by quarters of the rest ${quarterBytes.map(megabytes).join(', ')} MiB`,
  );
  console.log(problems.length === 0 ? 'no problem' : problems.join('\n'));
}

/** @returns {Promise<Map<string, number>>} */
async function scrape() {
  const text = await (await fetch(`${server.url}/metrics`)).text();
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.split(' ').at(-1))]));
}

/** @param {number} pid */
function residentBytes(pid) {
  const kibibytes = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  return Number(kibibytes) * 1024;
}

/** @returns {Promise<Server>} */
async function startServer() {
  const flags = [];
  if (args['young-mib'] !== '0') flags.push(`--max-semi-space-size=${args['young-mib']}`);
  if (args['old-mib'] !== '0') flags.push(`--max-old-space-size=${args['old-mib']}`);
  const argv = ['serve', '--port', '0', '--model', args.model, '--model-name', 'demo', ...positionals];
  const child = spawn(process.execPath, [...flags, path.join(root, 'infer.js'), ...argv], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  // A soak that fails must not leave its server behind.
  process.once('exit', () => child.kill('SIGKILL'));
  const ended = new Promise((resolve) => {
    child.on('exit', (code) => resolve(code));
  });
  for await (const line of createInterface({ input: child.stdout })) {
    const url = /^listening on (.*)$/.exec(line)?.[1];
    if (url === undefined) continue;
    const stop = () => {
      child.kill('SIGTERM');
      return /** @type {Promise<number | null>} */ (ended);
    };
    return { url, pid: child.pid ?? 0, stop };
  }
  throw new Error('the server did not start');
}

/** Uniform numbers in [0, 1): mulberry32. @param {number} seed */
function seeded(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
