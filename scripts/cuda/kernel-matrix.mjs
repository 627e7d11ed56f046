/**
 * `npm run test:gpu-kernels`: all kernel tests in their larger shapes, in four thread orders each, as a plain
 * build, with AddressSanitizer and UndefinedBehaviorSanitizer, and with ThreadSanitizer. Long; `npm test` runs
 * the small set. Arguments: `plain`, `address`, `thread` choose builds, others are parts of test names.
 */
import { isCommand, report } from '../checks/report.mjs';
import { buildTests, runTests } from './kernel-tests.mjs';

/** @type {import('./kernel-tests.mjs').Kind[]} */
const kinds = ['plain', 'address', 'thread'];

if (isCommand(import.meta.url)) {
  const given = process.argv.slice(2);
  const chosen = kinds.filter((kind) => given.includes(kind));
  const names = given.filter((name) => !kinds.some((kind) => kind === name));
  const problems = [];
  for (const kind of chosen.length > 0 ? chosen : kinds) {
    const built = buildTests(kind);
    const result = built.status === 0 ? runTests(kind, names) : built;
    console.log(`${kind}: ${result.output.trimEnd().split('\n').slice(-30).join('\n')}`);
    if (result.status !== 0) problems.push(`${kind}: ended with status ${result.status}`);
  }
  report('GPU kernel tests', problems, 'every build passed');
}
