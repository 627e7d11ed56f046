/**
 * `npm run check:gpu`: everything that needs a GPU, on a box that has one: the kernels against their references,
 * the goldens with the CUDA backend, bandwidth of the decode kernels, and latency of each policy. Prints Markdown
 * for an issue. Refuses with status 2 where there is no toolkit, driver or device.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { isCommand, root } from '../checks/report.mjs';

const build = path.join(root, 'build-gpu-device');
const policies = ['balanced', 'gpu-on-demand', 'ndp-only', 'static-split', 'monde', 'duplex', 'fiddler'];

if (isCommand(import.meta.url)) process.exitCode = main();

/** @returns {number} exit status */
function main() {
  const device = findDevice();
  if ('missing' in device) {
    console.error(`check:gpu: ${device.missing}`);
    return 2;
  }
  console.log(`## nearmoe on ${device.name}\n\n${device.line}\n${revision()}\n`);
  /** @type {[string, () => Result][]} */
  const steps = [
    ['Build', () => buildAll(device.target)],
    ['Kernels against references', () => run(path.join(build, 'kernels/cuda/gpu_kernels_device_test'), [])],
    ['Bandwidth of decode kernels', () => run(path.join(build, 'kernels/cuda/gpu_bandwidth'), [])],
    ['Goldens with the CUDA backend', goldens],
    ...policies.map(
      (policy) =>
        /** @type {[string, () => Result]} */ ([`Latency, policy ${policy}`, () => latency(policy)]),
    ),
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
 * @param {string} target compute capability, without its dot
 * @returns {Result}
 */
function buildAll(target) {
  const configure = [
    ...['-S', root, '-B', build, '-G', 'Ninja', '-DCMAKE_BUILD_TYPE=Release', '-DNEARMOE_ADDON=OFF'],
    ...['-DNEARMOE_TESTS=ON', '-DNEARMOE_CUDA=ON', `-DNEARMOE_CUDA_ARCHITECTURES=${target}-real`],
  ];
  const targets = ['gpu_kernels_device_test', 'gpu_bandwidth'];
  for (const [command, ...rest] of [
    ['cmake', ...configure],
    ['cmake', '--build', build, '--target', ...targets],
    ['npm', 'run', '--silent', 'build:ts'],
    ['npm', 'run', '--silent', 'build:cuda'],
  ]) {
    const result = run(String(command), rest);
    if (result.status !== 0) return result;
  }
  return { status: 0, output: '' };
}

/** @returns {Result} */
function goldens() {
  const vitest = path.join(root, 'node_modules/.bin/vitest');
  const env = { NEARMOE_GPU_MATRIX: '1', NEARMOE_GPU_KIND: 'cuda', NO_COLOR: '1' };
  return run(vitest, ['run', 'test/golden/gpu.test.ts', '--reporter=dot'], env);
}

/**
 * @param {string} policy
 * @returns {Result}
 */
function latency(policy) {
  const model = ['--synthetic', 'olmoe-1b-7b', '--quant', 'q4_0'];
  return run(process.execPath, [
    path.join(root, 'infer.js'),
    'bench',
    ...model,
    '--gpu',
    'cuda',
    '--policy',
    policy,
  ]);
}

/** @param {string} output */
function shown(output) {
  const lines = output.trim().split('\n');
  const text = lines.slice(-60).join('\n');
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
