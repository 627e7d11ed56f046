/**
 * A result as --json prints it. Rows of logits, routing and timeline go to files (output-files.ts), not here.
 */
import { NearmoeError, serializeError } from '../errors.js';
import type { GenerateResult } from '../llm.js';

export type ResultJson = Omit<GenerateResult, 'logits' | 'routing' | 'trace'>;

/** The result without its bulky parts. */
export function resultJson(result: GenerateResult): ResultJson {
  const { logits: _logits, routing: _routing, trace: _trace, ...rest } = result;
  return rest;
}

/** What --json prints in place of a result when the command failed. */
export function errorJson(error: unknown): { error: Record<string, unknown> } {
  const { stack: _stack, fields, ...rest } = serializeError(error);
  return { error: { ...rest, ...(error instanceof NearmoeError ? fields : {}) } };
}
