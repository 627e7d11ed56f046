/**
 * Tables of every kernel against what the machine can do: builds bench/kernels (CMake, in build-cmake/bench), runs it
 * and prints one row a measurement. Options it does not know go to the executable (see bench/kernels/main.cc).
 *
 *     node bench/kernels.mjs [--isa avx512] [--dtype q4_0] [--op decode|prefill|vector|attention]
 *                            [--save FILE] [--compare FILE] [--executable PATH]
 *
 * --save keeps the measurements as JSON; --compare prints the ratio to kept ones, of shares where there are any (they
 * hold when the machine's speed drifts), else of values.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** @typedef {{ op: string, isa: string, case: string, format: string, shape: string, tokens: number,
 *   threads: number, value: number, unit: string, ceiling: number, share: number }} Measurement */

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const own = new Map();
/** @type {string[]} */
const passed = [];
const args = process.argv.slice(2);
for (let i = 0; i < args.length; i += 2) {
  const [name = '', value] = args.slice(i, i + 2);
  if (value === undefined) fail(`Expected a value after ${name}`);
  else if (['--save', '--compare', '--executable'].includes(name)) own.set(name, value);
  else passed.push(name, value);
}

const executable = own.get('--executable') ?? build();
const kept = own.has('--compare') ? read(own.get('--compare')) : [];
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

for (const m of measured) console.log(row(m));
const file = own.get('--save');
if (file !== undefined) writeFileSync(file, `${JSON.stringify(measured, null, 1)}\n`);

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
  return JSON.parse(readFileSync(from, 'utf8'));
}

/** @param {Measurement} m */
function key(m) {
  return [m.op, m.isa, m.case, m.format, m.shape, m.tokens, m.threads].join('|');
}

/** @param {Measurement} m */
function row(m) {
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
  const before = kept.find((other) => key(other) === key(m));
  if (before !== undefined) {
    // Times get better as they fall, rates and shares as they rise.
    const ratio =
      m.ceiling > 0
        ? m.share / before.share
        : m.unit === 'ns'
          ? before.value / m.value
          : m.value / before.value;
    cells.push(`${ratio.toFixed(2)} x`);
  }
  return cells.join('  ');
}

/** @param {string} message @returns {never} */
function fail(message) {
  console.error(message);
  process.exit(1);
}
