/**
 * One kernel file compiled for one GPU target, and what ptxas says of each kernel in it: registers, shared
 * memory, spills, threads of a block. Called by compile-all.mjs. Results are kept under node_modules/.cache by
 * a hash of the file, what it includes and the flags, so that an interrupted run goes on where it was.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { root } from '../checks/report.mjs';

/**
 * @typedef {{ name: string, registers: number, sharedBytes: number, stackBytes: number, spillStoreBytes: number,
 *   spillLoadBytes: number, blockThreads: number }} KernelUse
 * @typedef {{ file: string, target: number, seconds: number, errors: string, kernels: KernelUse[] }} Compiled
 */

const folder = path.join(root, 'kernels/cuda');
const cache = path.join(root, 'node_modules/.cache/nearmoe-cuda');

/** Every warning of the compiler and of ptxas is an error, register spills included. */
export const flags = [
  ...['-std=c++20', '-O3', '--expt-relaxed-constexpr', `-I${root}`],
  ...['-Werror', 'all-warnings', '-Xptxas=-v,-warn-spills,-Werror'],
];

/** Names of the kernel files, without `.cu`. */
export const kernelFiles = readdirSync(folder)
  .filter((file) => file.endsWith('.cu'))
  .map((file) => file.slice(0, -3))
  .sort();

/**
 * @param {string} file of the project
 * @param {Set<string>} seen the file itself and what it includes of the project, filled in
 */
function followIncludes(file, seen = new Set()) {
  if (seen.has(file)) return seen;
  seen.add(file);
  for (const [, name] of readFileSync(file, 'utf8').matchAll(/^#include "(.+)"$/gm)) {
    if (name === 'cuda_on_cpu.h') continue; // the emulation, which nvcc does not see
    const found = [path.dirname(file), root]
      .map((base) => path.join(base, name ?? ''))
      .find((candidate) => existsSync(candidate));
    if (!found) throw new Error(`${file}: "${name}" was not found`);
    followIncludes(found, seen);
  }
  return seen;
}

/**
 * @param {string} file name of a kernel file without `.cu`
 * @returns {string} hash of everything that the compiled file depends on
 */
function sourceHash(file) {
  const hash = createHash('sha256').update(flags.join(' ').replaceAll(root, '.'));
  for (const source of [...followIncludes(path.join(folder, `${file}.cu`))].sort())
    hash.update(path.relative(root, source)).update(readFileSync(source));
  return hash.digest('hex').slice(0, 16);
}

/**
 * @param {string} file name of a kernel file without `.cu`
 * @param {number} target compute capability times ten
 * @returns {Promise<Compiled>} kept results are not compiled again; failures are
 */
export async function compileKernels(file, target) {
  const kept = path.join(cache, `${file}-sm_${target}-${sourceHash(file)}.json`);
  if (existsSync(kept)) return JSON.parse(readFileSync(kept, 'utf8'));
  const scratch = mkdtempSync(path.join(os.tmpdir(), 'nearmoe-nvcc-'));
  const started = performance.now();
  try {
    const source = path.join(folder, `${file}.cu`);
    const output = path.join(scratch, `${file}.cubin`);
    const nvcc = [
      '-cubin',
      `-arch=sm_${target}`,
      ...flags,
      '--keep',
      '--keep-dir',
      scratch,
      source,
      '-o',
      output,
    ];
    const { status, text } = await run('nvcc', nvcc);
    const seconds = (performance.now() - started) / 1000;
    if (status !== 0) return { file, target, seconds, errors: text, kernels: [] };
    const ptx = readFileSync(path.join(scratch, `${file}.ptx`), 'utf8');
    const names = await demangle(text);
    const result = { file, target, seconds, errors: '', kernels: readUse(names, await demangle(ptx)) };
    mkdirSync(cache, { recursive: true });
    writeFileSync(kept, JSON.stringify(result));
    return result;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/**
 * @param {string} report what `ptxas -v` printed, demangled
 * @param {string} ptx the PTX that it compiled, demangled
 * @returns {KernelUse[]}
 */
export function readUse(report, ptx) {
  return report
    .split(/Compiling entry function /)
    .slice(1)
    .map((part) => {
      const entry = /^'(.+?)' for /.exec(part)?.[1] ?? '';
      const spills = /(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads/.exec(part);
      const registers = /Used (\d+) registers/.exec(part)?.[1];
      const threads = ptx.slice(ptx.indexOf(`.entry ${entry}`)).match(/\.maxntid (\d+)/)?.[1];
      if (!entry || !spills || !registers || !threads)
        throw new Error(`nvcc: no registers, spills or launch bounds were found for '${entry}' in\n${part}`);
      return {
        name: shortName(entry),
        registers: Number(registers),
        sharedBytes: Number(/(\d+) bytes smem/.exec(part)?.[1] ?? 0),
        stackBytes: Number(spills[1]),
        spillStoreBytes: Number(spills[2]),
        spillLoadBytes: Number(spills[3]),
        blockThreads: Number(threads),
      };
    });
}

/** Numbers of enum DType (kernels/dtypes.h) and KvKind (kv_pool.cuh). */
const dtypes = enumNames('../dtypes.h', 'DType');
const kvKinds = enumNames('kv_pool.cuh', 'KvKind');

/**
 * @param {string} file from kernels/cuda
 * @param {string} name of an enum class whose values are written out
 * @returns {Map<string, string>} value -> name in lower case
 */
function enumNames(file, name) {
  const text = readFileSync(path.join(folder, file), 'utf8');
  const body = new RegExp(`enum class ${name}\\b[^{]*\\{([^}]*)\\}`).exec(text)?.[1] ?? '';
  return new Map(
    [...body.matchAll(/(\w+)\s*=\s*(\d+)/g)].map((m) => [String(m[2]), String(m[1]).toLowerCase()]),
  );
}

/**
 * @param {string} entry for example `void nearmoe::cuda::(anonymous namespace)::gemv_kernel<(nearmoe::DType)4, 1>(...)`
 * @returns {string} for example `gemv<q4_0, 1>`
 */
function shortName(entry) {
  return entry
    .replace(/^void /, '')
    .replaceAll('(anonymous namespace)::', '')
    .replace(/\((nearmoe::)?DType\)(\d+)/g, (_, _space, number) => dtypes.get(number) ?? `dtype ${number}`)
    .replace(
      /\((nearmoe::cuda::)?KvKind\)(\d+)/g,
      (_, _space, number) => kvKinds.get(number) ?? `kv ${number}`,
    )
    .replace(/\(.*$/, '')
    .replaceAll('nearmoe::cuda::', '')
    .replace('_kernel', '');
}

/**
 * sm_75 has no bf16 matrix instruction, so the backend never launches the kernels there that need it; they
 * compile to a trap.
 * @param {string} name short name of a kernel
 * @param {number} target
 */
export function runsOn(name, target) {
  return (
    target !== 75 ||
    !/^attention_prefill|^attention_wide|^latent_attention|^\w*gemm\w*<(f32|f16|bf16)\b/.test(name)
  );
}

/**
 * @param {string} text
 * @returns {Promise<string>} with C++ names demangled
 */
async function demangle(text) {
  const { status, text: output } = await run('c++filt', [], text);
  if (status !== 0) throw new Error(`c++filt (binutils) failed: ${output}`);
  return output;
}

/**
 * @param {string} command
 * @param {string[]} commandArguments
 * @param {string} [input]
 * @returns {Promise<{ status: number, text: string }>} stdout and stderr together
 */
function run(command, commandArguments, input) {
  return new Promise((resolve) => {
    const child = execFile(command, commandArguments, { maxBuffer: 1 << 28 }, (error, stdout, stderr) => {
      const status = error ? (typeof error.code === 'number' ? error.code : 127) : 0;
      resolve({ status, text: stdout + stderr + (status === 127 ? `${error?.message}\n` : '') });
    });
    child.stdin?.end(input ?? '');
  });
}
