/**
 * What the commands say on stderr: notes, dimmed on a terminal, and errors with what mends them. Called by main.ts
 * and the commands.
 */
import { NearmoeError } from '../errors.js';
import type { CliContext } from './context.js';
import { dim } from './format.js';

/** One line beside the result. */
export function note(context: CliContext, line: string): void {
  context.stderr.write(`${dim(line, context.stderr, context.env)}\n`);
}

/** Lines for people. Errors that nearmoe did not throw on purpose come with their stack, to be reported. */
export function errorText(error: unknown): string {
  if (error instanceof NearmoeError) {
    const internal = error.code === 'ERR_INTERNAL' && error.stack ? `\n${error.stack}` : '';
    const hint = error.hint === '' ? '' : `\n  ${error.hint}`;
    return `error: ${error.message} (${error.code})${hint}${internal}\n`;
  }
  return `internal error: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`;
}
