/**
 * How long a model takes from `loadModel` to ready, and how much memory that takes: a fresh process for each
 * repetition, the median counts. `warm` reads every file once before. Prints a line per repetition and the medians.
 *
 *     node bench/load.mjs MODEL [--repetitions 3] [--quantize FORMAT] [--repack-cache FOLDER] [--json]
 */
import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readdirSync, readFileSync, readSync, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { isMainThread } from 'node:worker_threads';
import { loadModel } from '../dist/index.js';

const { values: args, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    repetitions: { type: 'string', default: '3' },
    quantize: { type: 'string' },
    'repack-cache': { type: 'string' },
    json: { type: 'boolean', default: false },
    once: { type: 'boolean', default: false },
  },
});
const [model] = positionals;
if (model === undefined || !isMainThread) {
  console.error(
    'usage: node bench/load.mjs MODEL [--repetitions N] [--quantize FORMAT] [--repack-cache FOLDER]',
  );
  process.exit(2);
}

/** Peak resident bytes of this process. */
function peakBytes() {
  const status = readFileSync('/proc/self/status', 'utf8');
  return Number(/VmHWM:\s+(\d+)/.exec(status)?.[1]) * 1024;
}

async function once() {
  const startBytes = peakBytes();
  const started = performance.now();
  const cache = args['repack-cache'] === undefined ? {} : { repackCache: args['repack-cache'] };
  const options = { model, quantize: args.quantize, ...cache };
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

/** @param {number[]} numbers */
const median = (numbers) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN;

function repeat() {
  warm(model ?? '');
  const runs = Array.from({ length: Number(args.repetitions) }, () => {
    const output = execFileSync(process.execPath, [
      fileURLToPath(import.meta.url),
      ...process.argv.slice(2),
      '--once',
    ]);
    return /** @type {Record<string, number>} */ (JSON.parse(output.toString()));
  });
  /** @param {string} key */
  const mid = (key) => median(runs.map((run) => run[key] ?? Number.NaN));
  const summary = {
    model,
    readyMs: mid('readyMs'),
    minMs: Math.min(...runs.map((run) => run.readyMs ?? Number.NaN)),
    maxMs: Math.max(...runs.map((run) => run.readyMs ?? Number.NaN)),
    firstRequestMs: mid('firstRequestMs'),
    heldBytes: mid('heldBytes'),
    peakBytes: mid('peakBytes'),
    peakOverHeld: mid('peakBytes') / mid('heldBytes'),
  };
  if (args.json) console.log(JSON.stringify(summary));
  else for (const [key, value] of Object.entries(summary)) console.log(`${key.padEnd(15)} ${value}`);
}

if (args.once) await once();
else repeat();
