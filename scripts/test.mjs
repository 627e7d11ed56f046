/**
 * `npm test`: builds what is out of date, runs every check and test, prints one line for each and closes with
 * `N passed, N failed` (`, N skipped` where something was): vitest's and ctest's own counts plus one for each
 * check. Exit status 1 on any failure. `--checks` stops before the tests.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { root } from './checks/report.mjs';

/**
 * @typedef {{ passed: number, failed: number, skipped: number }} Counts
 * @typedef {{ name: string, command: string[], live?: boolean, count?: (status: number) => Counts }} Step
 * `live` steps print as they go; others only where they fail or have something to say.
 */

const { values: args } = parseArgs({ options: { checks: { type: 'boolean', default: false } } });
const reports = path.join(root, 'node_modules/.cache/nearmoe-test');
rmSync(reports, { recursive: true, force: true });
mkdirSync(reports, { recursive: true });
const vitestReport = path.join(reports, 'vitest.json');
const ctestReport = path.join(reports, 'ctest.xml');

const node = process.execPath;
const bin = path.join(root, 'node_modules/.bin');

/** @type {Step[]} */
const builds = [
  { name: 'build: TypeScript', command: [`${bin}/tsc`, '-p', 'tsconfig.build.json'] },
  // Into a folder of its own, for test/package; it empties build/, so the addon is put back right after.
  { name: 'build: prebuilt binary', command: ['npm', 'run', '--silent', 'prebuild', '--', '--out', reports] },
  { name: 'build: addon and native tests', command: [node, 'scripts/build-addon.mjs', '--tests'] },
];

/** @type {Step[]} */
const checks = [
  { name: 'types of tests and scripts', command: [`${bin}/tsc`, '-p', 'tsconfig.json'] },
  { name: 'types of the dashboard', command: [`${bin}/tsc`, '-p', 'dashboard/tsconfig.json'] },
  { name: 'Biome', command: [`${bin}/biome`, 'ci', '--colors=off', '--error-on-warnings', '.'] },
  { name: 'knip', command: [`${bin}/knip`, '--no-progress'] },
  ...['layers', 'core-path', 'ops', 'words', 'weak-symbols', 'clang-format', 'publint'].map((name) => ({
    name,
    command: [node, `scripts/checks/${name}.mjs`],
  })),
];

/** @type {Step[]} */
const tests = [
  {
    name: 'native tests',
    command: ['ctest', '--test-dir', 'build-cmake', '--output-on-failure', '--output-junit', ctestReport],
    count: countCtest,
  },
  {
    name: 'AArch64 kernels and x86-64 dispatch on emulated CPUs',
    command: [node, 'scripts/cross/aarch64.mjs', '--quick', '--no-install'],
    // The cross compiler is no part of what every machine must have, CI's included.
    count: (status) => (status === 3 ? { passed: 0, failed: 0, skipped: 1 } : countCheck(status)),
  },
  {
    name: 'vitest',
    command: [
      `${bin}/vitest`,
      'run',
      '--reporter=default',
      '--reporter=json',
      `--outputFile.json=${vitestReport}`,
    ],
    live: true,
    count: countVitest,
  },
];

/** @type {Counts} */
const total = { passed: 0, failed: 0, skipped: 0 };
/** @type {string[]} */
const failures = [];

const built = await runAll(builds, 1);
await runAll(checks, os.availableParallelism());
if (built && !args.checks) await runAll(tests, 1);

if (failures.length > 0) console.log(`\nFailed: ${failures.join(', ')}`);
if (!built) console.log('The tests did not run, since the build failed.');
const skipped = total.skipped > 0 ? `, ${total.skipped} skipped` : '';
console.log(`\n${total.passed} passed, ${total.failed} failed${skipped}`);
process.exitCode = total.failed > 0 ? 1 : 0;

/**
 * @param {Step[]} steps
 * @param {number} width how many run side by side
 * @returns {Promise<boolean>} whether all of them passed
 */
async function runAll(steps, width) {
  const queue = [...steps];
  let ok = true;
  const worker = async () => {
    for (let step = queue.shift(); step; step = queue.shift()) ok = (await runStep(step)) && ok;
  };
  await Promise.all(Array.from({ length: width }, worker));
  return ok;
}

/**
 * @param {Step} step
 * @returns {Promise<boolean>}
 */
async function runStep(step) {
  const started = performance.now();
  const { status, output } = await execute(step);
  const counts = (step.count ?? countCheck)(status);
  // A runner that died without a report has failed, whatever it counted before.
  if (status !== 0 && status !== 3 && counts.failed === 0) counts.failed = 1;
  total.passed += counts.passed;
  total.failed += counts.failed;
  total.skipped += counts.skipped;
  const verdict = counts.failed > 0 ? 'FAIL' : counts.passed === 0 && counts.skipped > 0 ? 'skip' : 'ok  ';
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  const tally = step.count ? `  ${counts.passed} passed, ${counts.failed} failed` : '';
  console.log(`${verdict} ${step.name} (${seconds} s)${tally}`);
  if (verdict !== 'ok  ' && output) console.log(indent(output));
  if (counts.failed > 0) failures.push(step.name);
  return counts.failed === 0;
}

/**
 * @param {Step} step
 * @returns {Promise<{ status: number, output: string }>}
 */
function execute({ command: [file, ...rest], live }) {
  return new Promise((resolve) => {
    const child = spawn(String(file), rest, {
      cwd: root,
      env: { ...process.env, ...(process.stdout.isTTY ? {} : { NO_COLOR: '1' }) },
      stdio: ['ignore', live ? 'inherit' : 'pipe', live ? 'inherit' : 'pipe'],
    });
    let output = '';
    child.stdout?.on('data', (chunk) => (output += chunk));
    child.stderr?.on('data', (chunk) => (output += chunk));
    child.on('error', (error) => resolve({ status: 127, output: `${file}: ${error.message}` }));
    child.on('close', (code) => resolve({ status: code ?? 128, output }));
  });
}

/**
 * @param {number} status exit status of a check; 3: skipped, which counts as a failure where CI is set
 * @returns {Counts}
 */
function countCheck(status) {
  if (status === 3 && !process.env.CI) return { passed: 0, failed: 0, skipped: 1 };
  return status === 0 ? { passed: 1, failed: 0, skipped: 0 } : { passed: 0, failed: 1, skipped: 0 };
}

/** @returns {Counts} */
function countCtest() {
  const suite = existsSync(ctestReport)
    ? /<testsuite[^>]*>/.exec(readFileSync(ctestReport, 'utf8'))?.[0]
    : undefined;
  const number = (/** @type {string} */ key) =>
    Number(new RegExp(`\\s${key}="(\\d+)"`).exec(suite ?? '')?.[1] ?? 0);
  const failed = number('failures');
  const skipped = number('skipped') + number('disabled');
  return { passed: number('tests') - failed - skipped, failed, skipped };
}

/** @returns {Counts} */
function countVitest() {
  if (!existsSync(vitestReport)) return { passed: 0, failed: 1, skipped: 0 };
  const report = JSON.parse(readFileSync(vitestReport, 'utf8'));
  /** @type {{ status: string, assertionResults: unknown[] }[]} */
  const files = report.testResults;
  // A file that could not even be imported reports no test of its own; it counts as one failure.
  const broken = files.filter(
    (file) => file.status === 'failed' && file.assertionResults.length === 0,
  ).length;
  return {
    passed: report.numPassedTests,
    failed: report.numFailedTests + broken,
    skipped: report.numPendingTests + (report.numTodoTests ?? 0),
  };
}

/** @param {string} text */
function indent(text) {
  return text.trimEnd().replace(/^/gm, '     ');
}
