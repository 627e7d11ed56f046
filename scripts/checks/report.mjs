/**
 * How every check ends: its problems one a line on stderr and exit status 1, or one line that says what was
 * looked at. Called by the checks beside this file when they run as commands; tests call their functions.
 */
import { realpathSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** The repository's root. */
export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');

/**
 * @param {string} moduleUrl the check's import.meta.url
 * @returns {boolean} whether that module is the command being run
 */
export function isCommand(moduleUrl) {
  const script = process.argv[1];
  return script !== undefined && realpathSync(script) === fileURLToPath(moduleUrl);
}

/**
 * @param {string} name the check
 * @param {string[]} problems one line each; none means the check holds
 * @param {string} looked what was looked at, for the line that says it holds
 */
export function report(name, problems, looked) {
  for (const problem of problems) console.error(`${name}: ${problem}`);
  if (problems.length > 0) process.exitCode = 1;
  else console.log(`${name}: ${looked}`);
}
