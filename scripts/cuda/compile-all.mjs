/**
 * `npm run check:cuda`: compiles every kernel for every GPU target with nvcc 13, warnings and register spills
 * being errors, and checks that at least one block of each kernel fits a multiprocessor. Needs no GPU; many CPU
 * minutes, but an interrupted run goes on where it was.
 *
 *   --targets 87,90,120   only these targets      --files gemv,gemm   only these files
 *   --jobs 2              files at a time          --write             writes docs/cuda-kernels.md (all targets)
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { isCommand, report, root } from '../checks/report.mjs';
import { writeTables } from './kernel-tables.mjs';
import { compileKernels, kernelFiles, runsOn } from './nvcc.mjs';

/** RTX 20, A100, RTX 30, Orin, RTX 40, H100, B200, RTX 50. */
export const allTargets = [75, 80, 86, 87, 89, 90, 100, 120];

/**
 * @typedef {import('./nvcc.mjs').Compiled} Compiled
 * @typedef {import('./nvcc.mjs').KernelUse & { file: string, target: number, dynamicBytes: number, blocks: number,
 *   warps: number, warpRoom: number, limit: string }} Placed a kernel on a target, with its occupancy
 */

if (isCommand(import.meta.url)) await main();

async function main() {
  const { values } = parseArgs({
    options: {
      targets: { type: 'string', default: allTargets.join(',') },
      files: { type: 'string', default: kernelFiles.join(',') },
      jobs: { type: 'string', default: String(os.availableParallelism()) },
      write: { type: 'boolean', default: false },
    },
  });
  const targets = values.targets.split(',').map(Number);
  const files = values.files.split(',');
  const problems = [...wrongNames(targets, files), ...toolkitProblems()];
  if (problems.length > 0) return report('CUDA kernels', problems, '');
  const compiled = await compileAll(files, targets, Number(values.jobs));
  problems.push(...compileProblems(compiled));
  const placed = problems.length === 0 ? place(compiled) : [];
  problems.push(
    ...placed.filter(({ name, target, blocks }) => blocks === 0 && runsOn(name, target)).map(tooLarge),
  );
  if (values.write && problems.length === 0) problems.push(...write(placed, targets, files));
  const looked = `${placed.length} kernels of ${files.length} files for ${targets.map((t) => `sm_${t}`).join(', ')}: no warning, no spill`;
  report('CUDA kernels', problems, looked);
}

/**
 * @param {number[]} targets
 * @param {string[]} files
 */
function wrongNames(targets, files) {
  const wrong = targets
    .filter((target) => !allTargets.includes(target))
    .map((target) => `sm_${target} is no target`);
  const missing = files
    .filter((file) => !kernelFiles.includes(file))
    .map((file) => `there is no kernels/cuda/${file}.cu`);
  return [...wrong, ...missing];
}

/** @returns {string[]} */
function toolkitProblems() {
  try {
    const version = /release (\d+)\./.exec(execFileSync('nvcc', ['--version'], { encoding: 'utf8' }))?.[1];
    return Number(version) >= 13 ? [] : [`expected nvcc 13 or newer, got ${version ?? 'an unknown version'}`];
  } catch {
    return ['nvcc was not found: put the bin folder of the CUDA toolkit 13 into PATH'];
  }
}

/**
 * @param {string[]} files
 * @param {number[]} targets
 * @param {number} width files at a time
 */
async function compileAll(files, targets, width) {
  const queue = files.flatMap((file) => targets.map((target) => ({ file, target })));
  /** @type {Compiled[]} */
  const compiled = [];
  const worker = async () => {
    for (let next = queue.shift(); next; next = queue.shift()) {
      const result = await compileKernels(next.file, next.target);
      console.log(
        `${result.errors ? 'FAIL' : 'ok  '} ${next.file}.cu sm_${next.target}: ${result.kernels.length} kernels`,
      );
      compiled.push(result);
    }
  };
  await Promise.all(Array.from({ length: width }, worker));
  return compiled;
}

/** @param {Compiled[]} compiled */
function compileProblems(compiled) {
  return compiled.flatMap(({ file, target, errors, kernels }) => {
    if (errors) return [`${file}.cu does not compile for sm_${target}:\n${errors}`];
    return kernels
      .filter((kernel) => kernel.spillStoreBytes + kernel.spillLoadBytes > 0)
      .map((kernel) => `${kernel.name} spills ${kernel.spillStoreBytes} bytes on sm_${target}`);
  });
}

/** @param {Placed} kernel */
function tooLarge(kernel) {
  return `${kernel.name} needs more ${kernel.limit} than a multiprocessor of sm_${kernel.target} has`;
}

/**
 * Dynamic shared memory of a kernel, which only its launch knows: attention_prefill.cu, kSharedBytes;
 * attention_wide.cu, kSharedBytes; latent_tile.cuh, LatentTiling for rows of 576 values.
 * @param {string} name
 */
function dynamicShared(name) {
  const [, latent, groups] = /^latent_attention<(\w+), (\d)>$/.exec(name) ?? [];
  if (latent) return 2 * (576 + 8) * 16 * (2 * Number(groups) + (latent === 'f32' || groups === '1' ? 2 : 1));
  const wide = /^attention_wide<(\w+)>$/.exec(name)?.[1];
  if (wide) return 2 * (512 + 8) * 16 * (2 + (wide === 'bf16' ? 1 : 2));
  const [, head, kind] = /^attention_prefill<(\d+), (\w+)>$/.exec(name) ?? [];
  if (!head) return 0;
  const [rows, keys] = head === '256' ? [32, 16] : [64, 32];
  return 2 * (Number(head) + 8) * (2 * rows + 2 * (kind === 'bf16' ? 1 : 2) * keys);
}

/**
 * @param {Compiled[]} compiled
 * @returns {Placed[]} with the occupancy that the toolkit's calculator gives
 */
function place(compiled) {
  const kernels = compiled.flatMap(({ file, target, kernels }) =>
    kernels.map((kernel) => ({ ...kernel, file, target, dynamicBytes: dynamicShared(kernel.name) })),
  );
  const scratch = mkdtempSync(path.join(os.tmpdir(), 'nearmoe-occupancy-'));
  try {
    const program = path.join(scratch, 'occupancy');
    execFileSync('nvcc', ['-o', program, path.join(root, 'scripts/cuda/occupancy.cc')]);
    const input = kernels.map(
      (k) => `${k.target} ${k.registers} ${k.sharedBytes} ${k.dynamicBytes} ${k.blockThreads}`,
    );
    const lines = execFileSync(program, { input: `${input.join('\n')}\n`, encoding: 'utf8' })
      .trim()
      .split('\n');
    if (lines.length !== kernels.length)
      throw new Error(`occupancy answered ${lines.length} of ${kernels.length} lines`);
    return kernels.map((kernel, index) => {
      const [, blocks, room, limit] = /^(\d+) (\d+) (.+)$/.exec(lines[index] ?? '') ?? [];
      const warps = (Number(blocks) * kernel.blockThreads) / 32;
      return { ...kernel, blocks: Number(blocks), warps, warpRoom: Number(room), limit: String(limit) };
    });
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/**
 * @param {Placed[]} placed
 * @param {number[]} targets
 * @param {string[]} files
 * @returns {string[]} problems
 */
function write(placed, targets, files) {
  if (targets.length !== allTargets.length || files.length !== kernelFiles.length)
    return ['--write needs all targets and all files'];
  const page = path.join(root, 'docs/cuda-kernels.md');
  writeFileSync(page, writeTables(readFileSync(page, 'utf8'), placed, targets));
  return [];
}
