/**
 * An op has one name everywhere (docs/architecture.md): the kernel table in kernels/ops.h lists the ops, and each
 * kernel folder has one file per op of that name. A folder without any op yet is left out.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { isCommand, report, root } from './report.mjs';

/** Where ops have a file of their own, the pattern that cuts out the name, and files that are no op. */
const places = [
  { folder: 'kernels/reference', pattern: /^(\w+)\.cc$/, others: ['table'] },
  { folder: 'kernels/cpu', pattern: /^(\w+)\.inl\.h$/, others: [] },
];

/**
 * @param {string} sourceRoot folder that holds kernels/
 * @returns {{ problems: string[], ops: string[] }}
 */
export function checkOps(sourceRoot) {
  const ops = opsOfTable(path.join(sourceRoot, 'kernels/ops.h'));
  const problems = places.flatMap(({ folder, pattern, others }) => {
    const found = namesIn(path.join(sourceRoot, folder), pattern).filter((name) => !others.includes(name));
    if (found.length === 0) return [];
    return [
      ...ops
        .filter((op) => !found.includes(op))
        .map((op) => `op ${op} of kernels/ops.h is missing in ${folder}`),
      ...found
        .filter((op) => !ops.includes(op))
        .map((op) => `${folder} has an op ${op} that kernels/ops.h lacks`),
    ];
  });
  return { problems, ops };
}

/**
 * @param {string} file
 * @returns {string[]} the function pointers of `struct OpTable`
 */
function opsOfTable(file) {
  if (!existsSync(file)) return [];
  const table = /struct OpTable \{[\s\S]*?\n\};/.exec(readFileSync(file, 'utf8'))?.[0] ?? '';
  return [...table.matchAll(/\(\*(\w+)\)\(/g)].flatMap((match) => match[1] ?? []);
}

/**
 * @param {string} folder
 * @param {RegExp} pattern
 * @returns {string[]}
 */
function namesIn(folder, pattern) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder).flatMap((file) => pattern.exec(file)?.[1] ?? []);
}

if (isCommand(import.meta.url)) {
  const { problems, ops } = checkOps(root);
  if (ops.length === 0) problems.push('kernels/ops.h has no struct OpTable with function pointers');
  report(
    'ops',
    problems,
    `${ops.length} ops are named alike in ${places.map(({ folder }) => folder).join(' and ')}`,
  );
}
