/**
 * Building and running gpu_kernels_test, the emulated kernels against their references. Called by
 * kernel-matrix.mjs and mutants.mjs. Builds live in build-gpu-<kind>.
 */
import { spawnSync } from 'node:child_process';
import os from 'node:os';
import path from 'node:path';
import { root } from '../checks/report.mjs';

/**
 * @typedef {'plain' | 'address' | 'thread'} Kind
 * @typedef {{ status: number, output: string }} Outcome status 128 and more: ended by a signal
 */

/** @param {Kind} kind */
export const buildFolder = (kind) => path.join(root, `build-gpu-${kind}`);

/**
 * @param {Kind} kind
 * @param {string} [source] of the tree to build, the repository itself unless given
 * @param {string} [build] where to
 * @returns {Outcome}
 */
export function buildTests(kind, source = root, build = buildFolder(kind)) {
  const configured = run('cmake', [
    ...['-S', source, '-B', build, '-G', 'Ninja', '-DCMAKE_BUILD_TYPE=Release'],
    ...['-DNEARMOE_ADDON=OFF', '-DNEARMOE_TESTS=ON'],
    `-DNEARMOE_SANITIZE=${kind === 'plain' ? '' : kind}`,
  ]);
  if (configured.status !== 0) return configured;
  const parallel = String(os.availableParallelism());
  return run('cmake', ['--build', build, '--parallel', parallel, '--target', 'gpu_kernels_test']);
}

/**
 * @param {Kind} kind
 * @param {string[]} testArguments of gpu_kernels_test
 * @param {string} [build]
 * @returns {Outcome}
 */
export function runTests(kind, testArguments, build = buildFolder(kind)) {
  return run(path.join(build, 'kernels/cuda/gpu_kernels_test'), testArguments);
}

/**
 * @param {string} command
 * @param {string[]} commandArguments
 * @returns {Outcome}
 */
function run(command, commandArguments) {
  const env = {
    ...process.env,
    ASAN_OPTIONS: 'detect_leaks=1:strict_init_order=1',
    UBSAN_OPTIONS: 'print_stacktrace=1',
    TSAN_OPTIONS: 'halt_on_error=1',
  };
  const { status, signal, stdout, stderr, error } = spawnSync(command, commandArguments, {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    env,
  });
  if (error) return { status: 127, output: `${command}: ${error.message}` };
  return { status: status ?? 128, output: stdout + stderr + (signal ? `\nended by ${signal}` : '') };
}
