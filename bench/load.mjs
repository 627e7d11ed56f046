/**
 * How long a model takes from `loadModel` to ready, and how much memory that takes: a fresh process for each repetition,
 * the median counts; the files are in the page cache. Before each, a process of its own touches as much fresh memory
 * with the same threads: what the operating system takes for handing it out, which no loader can go below.
 *
 *     node bench/load.mjs MODEL [--repetitions 3] [--quantize FORMAT] [--repack-cache FOLDER] [--json]
 */
import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readdirSync, readFileSync, readSync, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { isMainThread } from 'node:worker_threads';
import { binding } from '../dist/binding.js';
import { loadModel } from '../dist/index.js';
import { openModel } from '../dist/model/open-model.js';

const { values: args, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    repetitions: { type: 'string', default: '3' },
    quantize: { type: 'string' },
    'repack-cache': { type: 'string' },
    json: { type: 'boolean', default: false },
    'floor-bytes': { type: 'string' },
    once: { type: 'boolean', default: false },
    touch: { type: 'string' },
  },
});
const [model] = positionals;
if (model === undefined || !isMainThread) {
  console.error(
    'usage: node bench/load.mjs MODEL [--repetitions N] [--quantize FORMAT] [--repack-cache FOLDER]',
  );
  process.exit(2);
}

/** @param {string} path */
function weightFileBytes(path) {
  return openModel(path).tensors.sizeBytes;
}

/** Peak resident bytes of this process. */
function peakBytes() {
  const status = readFileSync('/proc/self/status', 'utf8');
  return Number(/VmHWM:\s+(\d+)/.exec(status)?.[1]) * 1024;
}

async function once() {
  const startBytes = peakBytes();
  const started = performance.now();
  const options = { model, quantize: args.quantize, repackCache: args['repack-cache'] };
  const loaded = await loadModel(/** @type {import('../dist/index.js').LoadOptions} */ (options));
  const readyMs = performance.now() - started;
  const heldBytes = loaded.info.memory.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const peak = peakBytes();
  const first = performance.now();
  await loaded.generate({ inputIds: [1, 2, 3] }, { maxTokens: 2, ignoreEos: true }).result;
  const result = {
    readyMs,
    firstRequestMs: performance.now() - first,
    heldBytes,
    peakBytes: peak,
    startBytes,
  };
  console.log(JSON.stringify(result));
  await loaded.dispose();
}

/**
 * Brings the files into the page cache.
 * @param {string} model
 */
function warm(model) {
  if (!statSync(model, { throwIfNoEntry: false })) return;
  const files = statSync(model).isDirectory()
    ? readdirSync(model).map((name) => path.join(model, name))
    : [model];
  const buffer = Buffer.alloc(8 << 20);
  for (const file of files) {
    const handle = openSync(file, 'r');
    while (readSync(handle, buffer, 0, buffer.length, null) > 0);
    closeSync(handle);
  }
}

/** Touches fresh memory in huge pages, as the loader's arenas are. @param {number} bufferBytes */
function touch(bufferBytes) {
  const threads = binding().cpuInfo().physicalCores;
  const started = performance.now();
  binding().measureCeiling({ kind: 'read', threads, pinThreads: true, timeMs: 1, bufferBytes, isa: '' });
  console.log(JSON.stringify({ floorMs: performance.now() - started }));
}

/** @param {number[]} numbers */
const median = (numbers) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN;

function repeat() {
  warm(model ?? '');
  /** @param {string[]} flags */
  const inProcess = (...flags) => {
    const file = fileURLToPath(import.meta.url);
    const output = execFileSync(process.execPath, [file, ...process.argv.slice(2), ...flags]);
    return /** @type {Record<string, number>} */ (JSON.parse(output.toString()));
  };
  const runs = Array.from({ length: Number(args.repetitions) }, () => {
    const floor = inProcess('--touch', `${args['floor-bytes'] ?? weightFileBytes(model ?? '')}`);
    return { ...floor, ...inProcess('--once') };
  });
  /** @param {string} key */
  const mid = (key) => median(runs.map((run) => run[key] ?? Number.NaN));
  const summary = {
    model,
    readyMs: mid('readyMs'),
    minMs: Math.min(...runs.map((run) => run.readyMs ?? Number.NaN)),
    floorMs: mid('floorMs'),
    maxMs: Math.max(...runs.map((run) => run.readyMs ?? Number.NaN)),
    firstRequestMs: mid('firstRequestMs'),
    heldBytes: mid('heldBytes'),
    peakBytes: mid('peakBytes'),
    peakOverHeld: mid('peakBytes') / mid('heldBytes'),
  };
  if (args.json) console.log(JSON.stringify(summary));
  else print(summary);
}

/** @param {Record<string, number | string | undefined>} summary */
function print({ readyMs, minMs, maxMs, floorMs, firstRequestMs, heldBytes, peakBytes, peakOverHeld }) {
  /** @param {number | string | undefined} ms */
  const seconds = (ms) => `${(Number(ms) / 1000).toFixed(2)} s`;
  /** @param {number | string | undefined} bytes */
  const size = (bytes) => `${(Number(bytes) / 1e9).toFixed(2)} GB`;
  console.log(`ready           ${seconds(readyMs)} (${seconds(minMs)} to ${seconds(maxMs)})`);
  console.log(`  floor         ${seconds(floorMs)} to touch as much memory`);
  console.log(`first request   ${seconds(firstRequestMs)}`);
  console.log(
    `memory          peak ${size(peakBytes)}, ${Number(peakOverHeld).toFixed(2)} x the ${size(heldBytes)} held`,
  );
}

if (args.once) await once();
else if (args.touch !== undefined) touch(Number(args.touch));
else repeat();
