/**
 * An op has one name everywhere (docs/architecture.md): the kernel folders, the kernel table and test/kernels
 * name the same ops. kernels/reference/<op>.cc is the definition; the other places are compared with it.
 */
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { isCommand, report, root } from './report.mjs';

/** Places that name ops: folder, and the pattern that cuts the op's name out of a file's name. */
const places = [
  { folder: 'kernels/reference', pattern: /^(\w+)\.cc$/ },
  { folder: 'kernels/cpu', pattern: /^(\w+)\.inl\.h$/ },
];

/**
 * @param {string} sourceRoot
 * @returns {{ problems: string[], ops: string[] }}
 */
export function checkOps(sourceRoot) {
  const [definition, ...others] = places.map(({ folder, pattern }) => ({
    folder,
    ops: namesIn(sourceRoot, folder, pattern),
  }));
  const ops = definition?.ops ?? [];
  const problems = others.flatMap(({ folder, ops: found }) => [
    ...ops
      .filter((op) => !found.includes(op))
      .map((op) => `op ${op} has a reference and is missing in ${folder}`),
    ...found.filter((op) => !ops.includes(op)).map((op) => `op ${op} of ${folder} has no reference`),
  ]);
  return { problems, ops };
}

/**
 * @param {string} sourceRoot
 * @param {string} folder
 * @param {RegExp} pattern
 * @returns {string[]}
 */
function namesIn(sourceRoot, folder, pattern) {
  const full = path.join(sourceRoot, folder);
  if (!existsSync(full)) return [];
  return readdirSync(full).flatMap((file) => pattern.exec(file)?.[1] ?? []);
}

if (isCommand(import.meta.url)) {
  const { problems, ops } = checkOps(root);
  report('ops', problems, `${ops.length} ops are named alike`);
}
