/**
 * Objects compiled per ISA define no weak symbols: the linker keeps one copy of a weak function for the whole
 * addon, and an AVX-512 copy of a std::vector member would then run on every machine. Reads the objects of
 * the CMake build with nm; run after the addon is built.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { isCommand, report, root } from './report.mjs';

/**
 * @param {string} buildFolder a CMake build of this repository
 * @returns {string[]} the per-ISA objects in it
 */
export function isaObjects(buildFolder) {
  const folder = path.join(buildFolder, 'CMakeFiles');
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.startsWith('nearmoe_isa_') && file.endsWith('.o'))
    .map((file) => path.join(folder, file));
}

/**
 * @param {string[]} objects paths of object files
 * @returns {string[]} problems: one for each weak definition
 */
export function checkWeakSymbols(objects) {
  return objects.flatMap((object) =>
    execFileSync('nm', ['--defined-only', '--demangle', object], { encoding: 'utf8' })
      .split('\n')
      .map((line) => /^[0-9a-f]* ?([A-Za-z]) (.+)$/.exec(line))
      .filter((match) => match?.[1] !== undefined && 'WwVvu'.includes(match[1]))
      .map((match) => `${path.relative(root, object)} defines the weak symbol ${match?.[2]}`),
  );
}

if (isCommand(import.meta.url)) {
  const objects = isaObjects(path.join(root, 'build-cmake'));
  const problems = checkWeakSymbols(objects);
  if (objects.length === 0 && existsSync(path.join(root, 'kernels/cpu/kernels.cc'))) {
    problems.push('no object of kernels/cpu was found in build-cmake: run `npm run build:native` first');
  }
  report('weak symbols', problems, `${objects.length} objects compiled per ISA define none`);
}
