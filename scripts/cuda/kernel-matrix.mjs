/**
 * `npm run test:gpu-kernels`: all kernel tests in their larger shapes, in four thread orders each, as a plain
 * build, with AddressSanitizer and UndefinedBehaviorSanitizer, and with ThreadSanitizer; the plain build also on an
 * emulated sm_75, with what that does in place of later instructions. `npm test` runs the small set. Arguments: `plain`,
 * `sm75`, `address`, `thread` choose runs, others are parts of test names.
 */
import { isCommand, report } from '../checks/report.mjs';
import { buildTests, runTests } from './kernel-tests.mjs';

/** @typedef {import('./kernel-tests.mjs').Kind} Kind */

/** @type {{ name: string, kind: Kind, flags: string[] }[]} */
const runs = [
  { name: 'plain', kind: 'plain', flags: [] },
  { name: 'sm75', kind: 'plain', flags: ['--sm75'] },
  { name: 'address', kind: 'address', flags: [] },
  { name: 'thread', kind: 'thread', flags: [] },
];

if (isCommand(import.meta.url)) {
  const given = process.argv.slice(2);
  const chosen = runs.filter(({ name }) => given.includes(name));
  const names = given.filter((name) => !runs.some((run) => run.name === name));
  const problems = [];
  for (const { name, kind, flags } of chosen.length > 0 ? chosen : runs) {
    const built = buildTests(kind);
    const started = performance.now();
    const result = built.status === 0 ? runTests(kind, [...flags, ...names]) : built;
    const seconds = ((performance.now() - started) / 1000).toFixed(0);
    console.log(`${name}, ${seconds} s: ${result.output.trimEnd().split('\n').slice(-30).join('\n')}`);
    if (result.status !== 0) problems.push(`${name}: ended with status ${result.status}`);
  }
  report('GPU kernel tests', problems, 'every build passed');
}
