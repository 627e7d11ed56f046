/**
 * Tables of every kernel against what the machine can do: builds bench/kernels (CMake, in build-cmake/bench), runs it
 * and prints one row a measurement. Options it does not know go to the executable (see bench/kernels/main.cc).
 *
 *     node bench/kernels.mjs [--isa avx512] [--dtype q4_0] [--op decode|prefill|vector|attention|delta]
 *                            [--results FILE] [--renew] [--executable PATH]
 *
 * The first measurement of a case on a machine is kept in FILE (default: in the user's cache folder, one file for each
 * CPU model and count), and each later row ends with its ratio to it: of shares of the ceiling where there is one (they
 * hold when the machine's speed drifts), else of values. A line at the end names the cases below 0.9. --renew replaces
 * what is kept.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, homedir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** @typedef {{ op: string, isa: string, case: string, format: string, shape: string, tokens: number,
 *   threads: number, value: number, unit: string, ceiling: number, share: number }} Measurement */

/** A ratio to the kept measurement below this is told at the end. */
const SLOWER = 0.9;
const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const own = new Map();
/** @type {string[]} */
const passed = [];
const args = process.argv.slice(2).filter((arg) => arg !== '--renew');
for (let i = 0; i < args.length; i += 2) {
  const [name = '', value] = args.slice(i, i + 2);
  if (value === undefined) fail(`Expected a value after ${name}`);
  else if (['--results', '--executable'].includes(name)) own.set(name, value);
  else passed.push(name, value);
}

const executable = own.get('--executable') ?? build();
const file = own.get('--results') ?? machineFile();
/** @type {Map<string, Measurement>} */
const kept = new Map();
if (existsSync(file)) for (const m of read(file)) kept.set(key(m), m);
const run = spawnSync(executable, passed, {
  encoding: 'utf8',
  stdio: ['ignore', 'pipe', 'inherit'],
  maxBuffer: 1 << 26,
});
if (run.error) fail(`${executable} did not start: ${run.error.message}`);
if (run.status !== 0) fail(`${executable} ended with ${run.status ?? run.signal}`);
/** @type {Measurement[]} */
const measured = run.stdout
  .split('\n')
  .filter((line) => line !== '')
  .map((line) => JSON.parse(line));

const slower = [];
for (const m of measured) {
  const ratio = ratioToKept(m);
  console.log(row(m, ratio));
  if (ratio !== undefined && ratio < SLOWER) slower.push(`${key(m)} (${ratio.toFixed(2)} x)`);
}
if (slower.length > 0) console.log(`\nslower than kept in ${file}:\n  ${slower.join('\n  ')}`);
const renew = process.argv.includes('--renew');
for (const m of measured) if (renew || !kept.has(key(m))) kept.set(key(m), m);
mkdirSync(path.dirname(file), { recursive: true });
writeFileSync(file, `${JSON.stringify([...kept.values()], null, 1)}\n`);

/** One file for each CPU model and number of CPUs, in the user's cache folder. */
function machineFile() {
  const cache = process.env.XDG_CACHE_HOME || path.join(homedir(), '.cache');
  const model = (cpus()[0]?.model ?? process.arch).replace(/[^A-Za-z0-9]+/g, '-').toLowerCase();
  return path.join(cache, 'nearmoe', 'kernels', `${model}-${cpus().length}.json`);
}

/**
 * How many times as fast as the kept measurement of the same case, if there is one. Times get better as they fall, rates
 * and shares as they rise.
 * @param {Measurement} m
 */
function ratioToKept(m) {
  const before = kept.get(key(m));
  if (before === undefined) return undefined;
  if (m.ceiling > 0 && before.share > 0) return m.share / before.share;
  return m.unit === 'ns' ? before.value / m.value : m.value / before.value;
}

/** @returns {string} the executable's path */
function build() {
  const folder = path.join(root, 'build-cmake/bench');
  const configure = ['-S', root, '-B', folder, '-DNEARMOE_ADDON=OFF', '-DNEARMOE_BENCH=ON'];
  execFileSync('cmake', configure, { stdio: ['ignore', 'ignore', 'inherit'] });
  execFileSync('cmake', ['--build', folder, '--target', 'kernel_bench', '--parallel'], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  return path.join(folder, 'kernel_bench');
}

/** @param {string} from @returns {Measurement[]} */
function read(from) {
  try {
    return JSON.parse(readFileSync(from, 'utf8'));
  } catch (error) {
    return fail(`Expected kept measurements in ${from}: ${error instanceof Error ? error.message : error}`);
  }
}

/** @param {Measurement} m */
function key(m) {
  return [m.op, m.isa, m.case, m.format, m.shape, m.tokens, m.threads].join('|');
}

/** @param {Measurement} m @param {number | undefined} ratio to the kept measurement */
function row(m, ratio) {
  const cells = [
    m.isa.padEnd(8),
    m.op.padEnd(20),
    m.case.padEnd(8),
    m.format.padEnd(7),
    m.shape.padEnd(13),
    (m.case === 'vector' ? `n=${m.tokens}` : `${m.tokens} tok`).padStart(9),
    `${m.threads} thr`,
    `${m.value.toFixed(1)} ${m.unit}`.padStart(15),
  ];
  if (m.ceiling > 0)
    cells.push(`of ${m.ceiling.toFixed(1)}`.padStart(10), `${(100 * m.share).toFixed(1)}%`.padStart(7));
  if (ratio !== undefined) cells.push(`${ratio.toFixed(2)} x`);
  return cells.join('  ');
}

/** @param {string} message @returns {never} */
function fail(message) {
  console.error(message);
  process.exit(1);
}
