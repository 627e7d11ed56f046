/**
 * Words that the house keeps out of its sources: names that say nothing (utils, helpers), marks of unfinished
 * or bypassed work, and paths of one developer's machine. Looks at every file that git knows or would add.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { isCommand, report, root } from './report.mjs';

/** The rules themselves and their test have to spell the words out. */
const exempt = ['scripts/checks/words.mjs', 'test/unit/checks/checks.test.ts', 'package-lock.json'];
const textFile = /\.(ts|mjs|js|cc|h|cu|cuh|py|md|json|jsonc|gyp|txt|sh)$|^\.ci\//;
const emptyName = /(^|[/_.-])(utils?|helpers?|common|managers?|misc|stuff)([/_.-]|$)/i;

/** @type {{ pattern: RegExp, why: string, only?: RegExp }[]} */
const rules = [
  { pattern: /\b(FIXME|XXX|HACK)\b/, why: 'is unfinished work: mend it or open an issue' },
  { pattern: /\bTODO\b(?!\(#\d+\))/, why: 'needs its issue, as in TODO(#12)' },
  { pattern: /@ts-(ignore|nocheck)\b/, why: 'switches the type check off' },
  { pattern: /\b(describe|test|it)\.only\(/, why: 'keeps the other tests from running', only: /^test\// },
  { pattern: /(^|[^\w./])\/(home|root|Users|work)\/\w/, why: "is a path of one developer's machine" },
];

/**
 * @param {string} file path from the root
 * @param {string} text its content
 * @returns {string[]} problems
 */
export function checkWords(file, text) {
  const problems = emptyName.test(file) ? [`${file}: the name does not say what lives there`] : [];
  text.split('\n').forEach((line, index) => {
    for (const { pattern, why, only } of rules) {
      const match = pattern.exec(line);
      if (match && (only?.test(file) ?? true))
        problems.push(`${file}:${index + 1}: '${match[0].trim()}' ${why}`);
    }
  });
  return problems;
}

if (isCommand(import.meta.url)) {
  const listed = execFileSync('git', ['ls-files', '-co', '--exclude-standard'], {
    cwd: root,
    encoding: 'utf8',
  });
  const files = listed
    .split('\n')
    .filter((file) => textFile.test(file) && !exempt.includes(file))
    .filter((file) => existsSync(path.join(root, file)) && !/^(test\/(golden|fixtures)|models)\//.test(file));
  const problems = files.flatMap((file) => checkWords(file, readFileSync(path.join(root, file), 'utf8')));
  report('words', problems, `${files.length} files`);
}
