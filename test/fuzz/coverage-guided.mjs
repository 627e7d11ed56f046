/**
 * Coverage-guided fuzzing of the GGUF and safetensors readers for a bounded time: inputs that reach new code (by V8's
 * block coverage) are kept and damaged further. Ends with status 1 at the first input that makes a reader throw
 * anything but a NearmoeError, take over a second or hang, and leaves that input behind.
 *
 *     npm run build:ts && node test/fuzz/coverage-guided.mjs [--seconds 60] [--seed 1]
 */
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import inspector from 'node:inspector';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';

const root = path.join(path.dirname(fileURLToPath(import.meta.url)), '../..');
const MAX_MS = 1000;
const HANG_MS = 10_000;
/** Header bytes that are worth damaging; values behind them are never read. */
const MAX_INPUT_BYTES = 16_384;

/** @typedef {{ inputs: number, kept: number, blocks: number }} Progress */

/** A small generator of numbers below `limit`; the same seed gives the same run. @param {number} seed */
function randomNumbers(seed) {
  let state = seed >>> 0;
  return (/** @type {number} */ limit) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % Math.max(1, limit);
  };
}

const EDGES = [
  0n,
  1n,
  3n,
  8n,
  9n,
  31n,
  32n,
  255n,
  65536n,
  2n ** 31n,
  2n ** 32n - 1n,
  2n ** 40n,
  2n ** 53n,
  2n ** 63n,
  2n ** 64n - 1n,
];
const JSON_EDGES = [
  '-1',
  '0',
  '1e99',
  '9007199254740993',
  '"F32"',
  '"F8_E4M3"',
  '[]',
  '{}',
  'null',
  '"',
  '}',
  ',',
];

/**
 * One damaged copy of an input, at times spliced with another.
 * @param {Buffer} original @param {Buffer} other @param {(limit: number) => number} random
 */
function damage(original, other, random) {
  let bytes = Buffer.from(original);
  for (let round = random(4); round >= 0; round--) {
    const offset = random(bytes.length);
    const kind = random(7);
    if (kind === 0 && bytes.length > 0) bytes[offset] = random(256);
    else if (kind === 1 && bytes.length >= 8) {
      bytes.writeBigUInt64LE(EDGES[random(EDGES.length)] ?? 0n, random(bytes.length - 7));
    } else if (kind === 2 && bytes.length >= 4) {
      bytes.writeUInt32LE(
        Number((EDGES[random(EDGES.length)] ?? 0n) & 0xffffffffn),
        random(bytes.length - 3),
      );
    } else if (kind === 3) bytes = bytes.subarray(0, offset);
    else if (kind === 4)
      bytes = Buffer.concat([bytes.subarray(0, offset), bytes.subarray(offset + random(32))]);
    else if (kind === 5) {
      const from = random(other.length);
      bytes = Buffer.concat([
        bytes.subarray(0, offset),
        other.subarray(from, from + random(64)),
        bytes.subarray(offset),
      ]);
    } else {
      const text = Buffer.from(JSON_EDGES[random(JSON_EDGES.length)] ?? '');
      bytes = Buffer.concat([bytes.subarray(0, offset), text, bytes.subarray(offset + text.length)]);
    }
  }
  return bytes.subarray(0, MAX_INPUT_BYTES);
}

/**
 * Names of the readers' blocks that ran, each with how often by order of magnitude, as in AFL.
 * @param {inspector.Profiler.ScriptCoverage[]} scripts
 */
function blocksOf(scripts) {
  return scripts
    .filter(({ url }) => url.includes('/dist/model/'))
    .flatMap(({ url, functions }) =>
      functions.flatMap(({ ranges }) => ranges.map((range) => ({ url, ...range }))),
    )
    .filter(({ count }) => count > 0)
    .map(({ url, startOffset, endOffset, count }) => {
      const magnitude = Math.min(6, Math.ceil(Math.log2(count + 1)));
      return `${url}:${startOffset}-${endOffset}:${magnitude}`;
    });
}

/** Counts blocks of the readers' code that ran since the last call, and says whether any was new. */
function coverageOf() {
  const session = new inspector.Session();
  session.connect();
  session.post('Profiler.enable');
  session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true });
  /** @type {Set<string>} */
  const seen = new Set();
  return {
    seen,
    isNew() {
      let fresh = false;
      session.post('Profiler.takePreciseCoverage', (error, answer) => {
        if (error) throw error;
        for (const block of blocksOf(answer.result)) {
          fresh ||= !seen.has(block);
          seen.add(block);
        }
      });
      return fresh;
    },
  };
}

async function fuzz() {
  const { seconds, seed, inputPath } = workerData;
  const { readGgufHeader } = await import(`${root}/dist/model/gguf/reader.js`);
  const { readSafetensors } = await import(`${root}/dist/model/safetensors.js`);
  const { NearmoeError } = await import(`${root}/dist/errors.js`);
  const fixtures = path.join(root, 'test/fixtures/gguf');
  const corpus = readdirSync(fixtures)
    .filter((name) => name.endsWith('.gguf'))
    .map((name) => readFileSync(path.join(fixtures, name)).subarray(0, MAX_INPUT_BYTES));
  const checkpoint = path.join(root, 'test/golden/fixtures/mixtral/model.safetensors');
  corpus.push(readFileSync(checkpoint).subarray(0, MAX_INPUT_BYTES));
  const random = randomNumbers(seed);
  const coverage = coverageOf();
  const end = Date.now() + seconds * 1000;
  /** @type {Progress} */
  const progress = { inputs: 0, kept: 0, blocks: 0 };
  const pick = () => corpus[random(corpus.length)] ?? Buffer.alloc(0);
  while (Date.now() < end) {
    const input = progress.inputs < corpus.length ? pick() : damage(pick(), pick(), random);
    writeFileSync(inputPath, input);
    for (const read of [readGgufHeader, readSafetensors]) {
      const start = performance.now();
      try {
        read(inputPath);
      } catch (error) {
        if (!(error instanceof NearmoeError)) throw error;
      }
      if (performance.now() - start > MAX_MS) throw new Error(`${read.name} took over ${MAX_MS} ms`);
    }
    progress.inputs++;
    if (coverage.isNew()) {
      corpus.push(input);
      progress.kept++;
    }
    progress.blocks = coverage.seen.size;
    if (progress.inputs % 100 === 0) parentPort?.postMessage({ ...progress });
  }
  parentPort?.postMessage({ ...progress });
}

function main() {
  const { values } = parseArgs({
    options: { seconds: { type: 'string', default: '60' }, seed: { type: 'string', default: '1' } },
  });
  const inputPath = path.join(mkdtempSync(path.join(os.tmpdir(), 'nearmoe-fuzz-')), 'input');
  const data = { seconds: Number(values.seconds), seed: Number(values.seed), inputPath };
  const worker = new Worker(fileURLToPath(import.meta.url), { workerData: data });
  /** @type {Progress} */
  let last = { inputs: 0, kept: 0, blocks: 0 };
  const fail = (/** @type {unknown} */ reason) => {
    console.error(reason, `\nafter ${last.inputs} inputs; the input is ${inputPath}`);
    process.exit(1);
  };
  let watchdog = setTimeout(() => fail('nothing happened'), HANG_MS);
  worker.on('message', (progress) => {
    last = progress;
    clearTimeout(watchdog);
    watchdog = setTimeout(() => fail(`no answer within ${HANG_MS} ms`), HANG_MS);
  });
  worker.on('error', fail);
  worker.on('exit', () => {
    clearTimeout(watchdog);
    console.log(
      `${last.inputs} inputs, ${last.kept} kept for new coverage, ${last.blocks} blocks: no failure`,
    );
  });
}

if (isMainThread) main();
else await fuzz();
