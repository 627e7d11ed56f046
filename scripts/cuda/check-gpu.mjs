/**
 * `npm run check:gpu`: everything that needs a GPU, on a box that has one: the kernels against their references,
 * bandwidth of every kernel, the goldens with the CUDA backend, and latency of each policy, with and without CUDA
 * graphs. Prints Markdown for an issue. Refuses with status 2 where there is no toolkit, driver or device.
 * `npm run check:gpu -- --emulated` goes the same way on the CPU emulation with small sizes, to show that it can be gone;
 * its times mean nothing.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { isCommand, root } from '../checks/report.mjs';

const policies = ['balanced', 'gpu-on-demand', 'ndp-only', 'static-split', 'monde', 'duplex', 'fiddler'];

/**
 * Where a GPU's checks run, and with which programs.
 * @typedef {{ gpu: 'cuda' | 'emulated', build: () => Result, programs: string, kernels: [string, string[]], bandwidth: string,
 *   model: string[] }} Place
 */

/** @type {Place} */
const emulation = {
  gpu: 'emulated',
  build: () =>
    runAll([
      [process.execPath, 'scripts/build-addon.mjs', '--tests'],
      ['npm', 'run', '--silent', 'build:ts'],
    ]),
  programs: path.join(root, 'build-cmake/kernels/cuda'),
  kernels: ['gpu_kernels_test', ['--quick']],
  bandwidth: 'gpu_bandwidth_emulated',
  model: [
    ...['--model', 'test/golden/fixtures/qwen3_moe', '--prompt-tokens', '16', '--gen-tokens', '4'],
    ...['--repetitions', '1'],
  ],
};

if (isCommand(import.meta.url)) process.exitCode = main();

/** @returns {number} exit status */
function main() {
  if (process.argv.includes('--emulated')) {
    console.log(`## nearmoe on the CPU emulation of a GPU (no GPU was used)\n\n${revision()}\n`);
    return checkAll(emulation);
  }
  const device = findDevice();
  if ('missing' in device) {
    console.error(`check:gpu: ${device.missing}`);
    return 2;
  }
  console.log(`## nearmoe on ${device.name}\n\n${device.line}\n${revision()}\n`);
  const build = path.join(root, 'build-gpu-device');
  return checkAll({
    gpu: 'cuda',
    build: () => buildAll(build, device.target),
    programs: path.join(build, 'kernels/cuda'),
    kernels: ['gpu_kernels_device_test', []],
    bandwidth: 'gpu_bandwidth',
    model: ['--synthetic', 'olmoe-1b-7b', '--quant', 'q4_0'],
  });
}

/**
 * @param {Place} place
 * @returns {number} exit status
 */
function checkAll(place) {
  const program = (/** @type {string} */ name) => path.join(place.programs, name);
  /** @type {[string, () => Result][]} */
  const steps = [
    ['Build', place.build],
    ['Kernels against references', () => run(program(place.kernels[0]), place.kernels[1])],
    ['Bandwidth of every kernel', () => withAllKernels(run(program(place.bandwidth), []))],
    [`Goldens with --gpu ${place.gpu}`, () => goldens(place.gpu)],
    ...policies.map((policy) => latencyStep(place, policy, '')),
    latencyStep(place, 'balanced', 'off'),
    latencyStep(place, 'gpu-on-demand', 'off'),
  ];
  const failed = [];
  for (const [name, step] of steps) {
    const { status, output } = step();
    console.log(`### ${name}: ${status === 0 ? 'ok' : `FAILED, status ${status}`}\n\n${shown(output)}\n`);
    if (status !== 0) failed.push(name);
    if (status !== 0 && name === 'Build') break;
  }
  console.log(failed.length === 0 ? 'All steps passed.' : `Failed: ${failed.join(', ')}.`);
  return failed.length === 0 ? 0 : 1;
}

/**
 * The bandwidth table, failed where a kernel file has no line in it.
 * @param {Result} result
 * @returns {Result}
 */
function withAllKernels({ status, output }) {
  const kernels = readdirSync(path.join(root, 'kernels/cuda')).filter(
    (name) => /\.cu$/.test(name) && name !== 'support.cu',
  );
  const missing = kernels.map((name) => name.slice(0, -3)).filter((name) => !output.includes(`| ${name}`));
  if (missing.length === 0) return { status, output };
  return { status: status || 1, output: `${output}\nno line for ${missing.join(', ')}` };
}

/**
 * @param {Place} place
 * @param {string} policy
 * @param {'' | 'off'} graphs
 * @returns {[string, () => Result]}
 */
function latencyStep({ gpu, model }, policy, graphs) {
  const name = `Latency, policy ${policy}${graphs === 'off' ? ', without CUDA graphs' : ''}`;
  const command = ['infer.js', 'bench', ...model, '--gpu', gpu, '--policy', policy];
  return [name, () => run(process.execPath, command, graphs === 'off' ? { NEARMOE_GPU_GRAPHS: 'off' } : {})];
}

/** @typedef {{ status: number, output: string }} Result */

/** @returns {{ name: string, line: string, target: string } | { missing: string }} the first device, asked through the CUDA runtime */
function findDevice() {
  if (run('nvcc', ['--version']).status !== 0)
    return { missing: 'nvcc was not found: install the CUDA toolkit 13 and put its bin folder into PATH' };
  const scratch = mkdtempSync(path.join(os.tmpdir(), 'nearmoe-device-'));
  try {
    const program = path.join(scratch, 'device');
    const built = run('nvcc', ['-o', program, path.join(root, 'scripts/cuda/device.cc')]);
    if (built.status !== 0) return { missing: `nvcc does not compile a small program:\n${built.output}` };
    const { status, output } = run(program, []);
    if (status !== 0) return { missing: output.trim() };
    const target = /sm_(\d+)/.exec(output)?.[1] ?? '';
    return { name: String(output.split(',')[0]), line: output.trim(), target };
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

function revision() {
  return `commit ${run('git', ['-C', root, 'rev-parse', '--short', 'HEAD']).output.trim()}, Node.js ${process.version}`;
}

/**
 * @param {string} build folder
 * @param {string} target compute capability, without its dot
 * @returns {Result}
 */
function buildAll(build, target) {
  return runAll([
    [
      ...[
        'cmake',
        '-S',
        root,
        '-B',
        build,
        '-G',
        'Ninja',
        '-DCMAKE_BUILD_TYPE=Release',
        '-DNEARMOE_ADDON=OFF',
      ],
      ...['-DNEARMOE_TESTS=ON', '-DNEARMOE_CUDA=ON', `-DNEARMOE_CUDA_ARCHITECTURES=${target}-real`],
    ],
    ['cmake', '--build', build, '--target', 'gpu_kernels_device_test', 'gpu_bandwidth'],
    ['npm', 'run', '--silent', 'build:ts'],
    ['npm', 'run', '--silent', 'build:cuda'],
  ]);
}

/**
 * @param {string[][]} commands
 * @returns {Result} of the first that fails
 */
function runAll(commands) {
  for (const [command = '', ...rest] of commands) {
    const result = run(command, rest);
    if (result.status !== 0) return result;
  }
  return { status: 0, output: '' };
}

/**
 * @param {Place['gpu']} gpu with a GPU the whole matrix, emulated the small set
 * @returns {Result}
 */
function goldens(gpu) {
  const vitest = path.join(root, 'node_modules/.bin/vitest');
  const env = {
    ...(gpu === 'cuda' ? { NEARMOE_GPU_MATRIX: '1' } : {}),
    NEARMOE_GPU_KIND: gpu,
    NO_COLOR: '1',
  };
  return run(vitest, ['run', 'test/golden/gpu.test.ts', '--reporter=dot'], env);
}

/** @param {string} output */
function shown(output) {
  const lines = output.trim().split('\n');
  const text = lines.slice(-80).join('\n');
  return text.startsWith('|') ? text : `\`\`\`text\n${text}\n\`\`\``;
}

/**
 * @param {string} command
 * @param {string[]} commandArguments
 * @param {Record<string, string>} [env]
 * @returns {Result}
 */
function run(command, commandArguments, env = {}) {
  const { status, error, stdout, stderr } = spawnSync(command, commandArguments, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    env: { ...process.env, ...env },
  });
  if (error) return { status: 127, output: `${command}: ${error.message}` };
  return { status: status ?? 128, output: stdout + stderr };
}
