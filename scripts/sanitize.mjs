/**
 * Builds the native tests with AddressSanitizer and UndefinedBehaviorSanitizer, then with ThreadSanitizer, and
 * runs them. `npm run sanitize` does both, `npm run sanitize -- thread` one; further arguments go to ctest
 * (for example `-R arena`). Not part of `npm test`: instrumented code is slow to build and to run.
 */
import { spawnSync } from 'node:child_process';
import os from 'node:os';
import path from 'node:path';
import { root } from './checks/report.mjs';

const known = ['address', 'thread'];
const [first, ...rest] = process.argv.slice(2);
const kinds = first && known.includes(first) ? [first] : known;
const ctestArguments = first && !known.includes(first) ? [first, ...rest] : rest;

for (const kind of kinds) {
  const build = path.join(root, `build-sanitize-${kind}`);
  run('cmake', [
    ...['-S', root, '-B', build, '-G', 'Ninja', '-DCMAKE_BUILD_TYPE=Release'],
    ...['-DNEARMOE_ADDON=OFF', '-DNEARMOE_TESTS=ON', `-DNEARMOE_SANITIZE=${kind}`],
  ]);
  run('cmake', ['--build', build, '--parallel', String(os.availableParallelism())]);
  run('ctest', ['--test-dir', build, '--output-on-failure', ...ctestArguments]);
  console.log(`\n${kind}: no finding\n`);
}

/**
 * @param {string} command
 * @param {string[]} commandArguments
 */
function run(command, commandArguments) {
  const env = {
    ...process.env,
    ASAN_OPTIONS: 'detect_leaks=1:strict_init_order=1',
    UBSAN_OPTIONS: 'print_stacktrace=1',
    TSAN_OPTIONS: 'halt_on_error=1:second_deadlock_stack=1',
  };
  const { status, error } = spawnSync(command, commandArguments, { stdio: 'inherit', env });
  if (error) console.error(`${command}: ${error.message}`);
  if (status !== 0) process.exit(status ?? 1);
}
