/**
 * Checks (or with --write, mends) the layout of all C++ and CUDA sources with clang-format. The binary is the
 * one that the npm package `clang-format` ships, else the one on PATH; exit status 3 means there is neither.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { isCommand, report, root } from './report.mjs';

const sourceFile = /\.(cc|h|cu|cuh)$/;

/** @returns {string | undefined} a clang-format that runs here */
function findClangFormat() {
  const require = createRequire(import.meta.url);
  const shipped = path.join(
    path.dirname(require.resolve('clang-format/package.json')),
    `bin/${process.platform}_${process.arch}/clang-format`,
  );
  const candidates = existsSync(shipped) ? [shipped, 'clang-format'] : ['clang-format'];
  return candidates.find((binary) => spawnSync(binary, ['--version']).status === 0);
}

/**
 * @param {string} binary a clang-format
 * @param {string[]} files
 * @returns {string[]} problems: one for each file whose layout differs
 */
export function checkFormat(binary, files) {
  if (files.length === 0) return [];
  const run = spawnSync(binary, ['--dry-run', '--Werror', '--style=file', ...files], {
    cwd: root,
    encoding: 'utf8',
  });
  if (run.status === 0) return [];
  const named = [...new Set([...run.stderr.matchAll(/^(.+?):(\d+):\d+: error/gm)].map((match) => match[1]))];
  return named.length > 0
    ? named.map((file) => `${file} is not laid out as .clang-format says: run \`npm run format\``)
    : [`clang-format failed: ${run.stderr.trim()}`];
}

if (isCommand(import.meta.url)) {
  const listed = execFileSync('git', ['ls-files', '-co', '--exclude-standard'], {
    cwd: root,
    encoding: 'utf8',
  });
  const files = listed
    .split('\n')
    .filter((file) => sourceFile.test(file) && existsSync(path.join(root, file)));
  const binary = findClangFormat();
  if (!binary) {
    console.log(
      'clang-format: skipped, neither the npm package nor PATH has a clang-format for this machine',
    );
    process.exitCode = 3;
  } else if (process.argv.includes('--write')) {
    execFileSync(binary, ['-i', '--style=file', ...files], { cwd: root, stdio: 'inherit' });
  } else {
    report('clang-format', checkFormat(binary, files), `${files.length} files`);
  }
}
