/**
 * The forms that an answer can be held to, as an option of a request: type and check of its outline. Whether a schema
 * or pattern can be held to is found in the engine's worker, by constraint.ts.
 */
import { MAX_DEPTH } from './expression.js';

/** The form that an answer must have. */
export type ResponseFormat =
  | { type: 'text' }
  /** Any JSON object. */
  | { type: 'json_object' }
  /** JSON that a schema (draft 2020-12; docs/structured-output.md tells which keywords) accepts. */
  | {
      type: 'json_schema';
      schema: object | boolean;
      /** Text that stands before and behind the JSON, such as the tags of a tool call. */
      before?: string;
      after?: string;
    }
  /** Text that a regular expression (of ECMAScript, without look-around and back-references) matches as a whole. */
  | { type: 'regex'; pattern: string };

/** A schema may nest a little deeper than the texts it describes: each level of them is two or three of its own. */
const MAX_SCHEMA_DEPTH = 4 * MAX_DEPTH;

export function isResponseFormat(value: unknown): value is ResponseFormat {
  if (typeof value !== 'object' || value === null) return false;
  const { type, schema, pattern, before = '', after = '' } = value as Record<string, unknown>;
  if (type === 'json_schema') {
    const isSchema = typeof schema === 'boolean' || (typeof schema === 'object' && schema !== null);
    const hasTexts = typeof before === 'string' && typeof after === 'string';
    return isSchema && hasTexts && isPlainJson(schema, MAX_SCHEMA_DEPTH);
  }
  if (type === 'regex') return typeof pattern === 'string';
  return type === 'json_object' || type === 'text';
}

/** JSON of limited depth, so that it can cross to the worker. */
function isPlainJson(value: unknown, depth: number): boolean {
  if (depth < 0) return false;
  if (typeof value === 'object' && value !== null)
    return Object.values(value).every((part) => isPlainJson(part, depth - 1));
  return ['string', 'number', 'boolean', 'undefined'].includes(typeof value) || value === null;
}
