/**
 * `npm run test:gpu-faults`: lets every single allocation, copy, launch, kernel, graph call and operation of a small
 * model's load and decode fail in turn, with experts that arrive in each layer and with experts that stay; the outcome
 * must be right logits or ERR_GPU. `npm test` takes every 7th or so. Arguments: kinds of gpu_device_test, for example
 * `copy lost`.
 */
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { isCommand, report, root } from '../checks/report.mjs';

const known = ['allocation', 'pinned', 'copy', 'launch', 'kernel', 'graph', 'lost'];

if (isCommand(import.meta.url)) {
  const given = process.argv.slice(2);
  const problems = given.filter((kind) => !known.includes(kind)).map((kind) => `no fault is called ${kind}`);
  const build = spawnSync(process.execPath, ['scripts/build-addon.mjs', '--tests'], {
    cwd: root,
    encoding: 'utf8',
  });
  if (build.status !== 0) problems.push(`the tests do not build:\n${build.stdout}${build.stderr}`);
  if (problems.length === 0) problems.push(...(given.length > 0 ? given : known).flatMap(runKind));
  report('GPU faults', problems, 'every fault ended in right logits or ERR_GPU');
}

/**
 * @param {string} kind
 * @returns {string[]} problems
 */
function runKind(kind) {
  const program = path.join(root, 'build-cmake/kernels/cuda/gpu_device_test');
  const env = { ...process.env, NEARMOE_GPU_LIBRARY_PATH: path.join(root, 'build-cmake/Release') };
  const started = performance.now();
  const { status, stdout, stderr } = spawnSync(program, ['--every', kind], { encoding: 'utf8', env });
  console.log(`${stdout.trim()} (${((performance.now() - started) / 1000).toFixed(0)} s)`);
  return status === 0 ? [] : [`${kind}: ended with status ${status}\n${stderr}`];
}
