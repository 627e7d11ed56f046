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
  | { type: 'json_schema'; schema: object | boolean }
  /** Text that a regular expression (of ECMAScript, without look-around and back-references) matches as a whole. */
  | { type: 'regex'; pattern: string }
  /** Forms one behind the other. */
  | { type: 'sequence'; parts: readonly PartFormat[] }
  /** One of several forms. */
  | { type: 'choice'; options: readonly PartFormat[] };

/** What sequences and choices are made of. */
export type PartFormat =
  | Exclude<ResponseFormat, { type: 'text' }>
  /** This text; special tokens of the model that it names are written as such. */
  | { type: 'literal'; text: string };

/** A schema may nest a little deeper than the texts it describes: each level of them is two or three of its own. */
const MAX_SCHEMA_DEPTH = 4 * MAX_DEPTH;

export function isResponseFormat(value: unknown): value is ResponseFormat {
  return isOf(value, 'text') || (isPartFormat(value, MAX_DEPTH) && !isOf(value, 'literal'));
}

function isPartFormat(value: unknown, depth: number): boolean {
  if (typeof value !== 'object' || value === null || depth < 0) return false;
  const { type, schema, pattern, text, parts, options } = value as Record<string, unknown>;
  const areParts = (list: unknown, least: number) =>
    Array.isArray(list) && list.length >= least && list.every((part) => isPartFormat(part, depth - 1));
  switch (type) {
    case 'json_object':
      return true;
    case 'json_schema':
      return (
        (typeof schema === 'boolean' || (typeof schema === 'object' && schema !== null)) &&
        isPlainJson(schema, MAX_SCHEMA_DEPTH)
      );
    case 'regex':
      return typeof pattern === 'string';
    case 'literal':
      return typeof text === 'string';
    case 'sequence':
      return areParts(parts, 0);
    case 'choice':
      return areParts(options, 1);
    default:
      return false;
  }
}

function isOf(value: unknown, type: string): boolean {
  return typeof value === 'object' && value !== null && (value as Record<string, unknown>).type === type;
}

/** JSON of limited depth, so that it can cross to the worker. */
function isPlainJson(value: unknown, depth: number): boolean {
  if (depth < 0) return false;
  if (typeof value === 'object' && value !== null)
    return Object.values(value).every((part) => isPlainJson(part, depth - 1));
  return ['string', 'number', 'boolean', 'undefined'].includes(typeof value) || value === null;
}
