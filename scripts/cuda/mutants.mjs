/**
 * `npm run test:gpu-mutants`: breaks the kernels one way at a time and demands that the small set of kernel
 * tests fails for each, so that the tests keep proving something. Works on copies: one mutated file is compiled
 * with the command of the plain build and linked in place of the true one. Arguments: parts of mutants' names.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { isCommand, report, root } from '../checks/report.mjs';
import { buildFolder, buildTests, runTests } from './kernel-tests.mjs';
import { mutants } from './mutations.mjs';

/** @typedef {import('./mutations.mjs').Mutant} Mutant */

const kernels = path.join(root, 'kernels/cuda');

/**
 * @param {Mutant} mutant
 * @returns {string} the mutated file
 */
export function mutate({ name, file, from, to }) {
  const text = readFileSync(path.join(kernels, file), 'utf8');
  const found = text.split(from).length - 1;
  if (found !== 1)
    throw new Error(`${name}: expected the text once in ${file}, found it ${found} times:\n${from}`);
  return text.replace(from, () => to);
}

if (isCommand(import.meta.url)) main();

function main() {
  const given = process.argv.slice(2);
  const chosen = mutants.filter(
    ({ name }) => given.length === 0 || given.some((part) => name.includes(part)),
  );
  const problems = chosen.length === 0 ? ['no mutant has such a name'] : baselineProblems(chosen);
  if (problems.length === 0) {
    for (const mutant of chosen) {
      const problem = survives(mutant);
      if (problem) problems.push(problem);
    }
  }
  report('GPU mutants', problems, `all ${chosen.length} broken kernels were noticed`);
}

/**
 * @param {Mutant[]} chosen
 * @returns {string[]} why the true kernels are no basis for a comparison
 */
function baselineProblems(chosen) {
  return [...new Set(chosen.map(({ kind }) => kind ?? 'plain'))].flatMap((kind) => {
    const built = buildTests(kind);
    if (built.status !== 0) return [`the tests do not build:\n${built.output}`];
    const names = [...new Set(chosen.filter((m) => (m.kind ?? 'plain') === kind).map(({ test }) => test))];
    const { status, output } = runTests(kind, ['--quick', ...names]);
    return status === 0 ? [] : [`the unbroken kernels fail:\n${output}`];
  });
}

/**
 * @param {Mutant} mutant
 * @returns {string | undefined} a problem where the tests pass all the same
 */
function survives(mutant) {
  const scratch = mkdtempSync(path.join(os.tmpdir(), 'nearmoe-mutant-'));
  try {
    const unit = `${mutant.unit ?? mutant.file.replace('.cu', '')}`;
    // The whole folder, so that headers include the mutated one too.
    cpSync(path.join(root, 'kernels'), path.join(scratch, 'kernels'), { recursive: true });
    writeFileSync(path.join(scratch, 'kernels/cuda', mutant.file), mutate(mutant));
    writeFileSync(path.join(scratch, `${unit}.cc`), `#include "${scratch}/kernels/cuda/${unit}.cu"\n`);
    const program = compileAndLink(unit, scratch, mutant.kind ?? 'plain');
    const { status, output } = execute(
      `TSAN_OPTIONS=halt_on_error=1 timeout 120 ${program} --quick ${mutant.test}`,
    );
    const how = /(?:FAILED|WARNING): (.*)/.exec(output)?.[1] ?? `exit status ${status}`;
    console.log(
      `${status === 0 ? 'MISSED' : 'ok    '} ${mutant.name}: ${status === 0 ? 'all tests pass' : how.slice(0, 150)}`,
    );
    return status === 0 ? `${mutant.name} was not noticed by ${mutant.test}` : undefined;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/**
 * @param {string} unit kernel file without `.cu`
 * @param {string} scratch folder with the mutated sources
 * @param {import('./kernel-tests.mjs').Kind} kind
 * @returns {string} the program
 */
function compileAndLink(unit, scratch, kind) {
  const build = buildFolder(kind);
  const commands = demand(`ninja -C ${build} -t commands gpu_kernels_test`).split('\n');
  const ours = new RegExp(`nearmoe_gpu_kernels\\.dir/emulated/${unit}\\.cc\\.o`);
  const compile = commands.find((line) => line.includes(' -c ') && ours.test(line));
  const link = commands.find((line) => !line.includes(' -c ') && ours.test(line));
  const object = / -o (\S+\.o) /.exec(compile ?? '')?.[1];
  if (!compile || !link || !object) throw new Error(`no commands were found for ${unit} in ${build}`);
  const mutated = path.join(scratch, `${unit}.o`);
  const program = path.join(scratch, 'gpu_kernels_test');
  const source = compile
    .replaceAll(object, mutated)
    .replace(/ -c \S+/, ` -c ${path.join(scratch, `${unit}.cc`)}`);
  demand(`cd ${build} && ${source}`);
  demand(`cd ${build} && ${link.replace(object, mutated).replace(/ -o \S+/, ` -o ${program}`)}`);
  return program;
}

/** @param {string} command */
function demand(command) {
  const { status, output } = execute(command);
  if (status !== 0) throw new Error(`${command}\nended with status ${status}:\n${output}`);
  return output;
}

/** @param {string} command of the shell */
function execute(command) {
  const { status, stdout, stderr } = spawnSync('sh', ['-c', command], {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  return { status: status ?? 128, output: stdout + stderr };
}
