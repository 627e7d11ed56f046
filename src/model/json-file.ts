/**
 * Reading of JSON files of a model folder with typed errors: missing file, over-long file, text that is not JSON,
 * a top level that is not an object. Called by all readers of this folder.
 */
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { describeValue, ModelFormatError } from '../errors.js';

export type JsonObject = { [key: string]: unknown };

/** tokenizer.json of the largest vocabularies is about 30 MB. */
const MAX_JSON_BYTES = 256 * 1024 * 1024;

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Kind of a JSON value for messages. */
export function describeKind(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object') return 'an object';
  return describeValue(value);
}

/** The file's text, or undefined where there is no such file. Throws ModelFormatError. */
export function readTextFile(path: string, maxBytes = MAX_JSON_BYTES): string | undefined {
  let handle: number;
  try {
    handle = openSync(path, 'r');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new ModelFormatError({ file: path, expected: 'a readable file', got: describeValue(cause), cause });
  }
  try {
    const stat = fstatSync(handle);
    if (!stat.isFile()) throw new ModelFormatError({ file: path, expected: 'a file', got: 'something else' });
    if (stat.size > maxBytes) {
      throw new ModelFormatError({
        file: path,
        expected: `at most ${maxBytes} bytes`,
        got: `${stat.size} bytes`,
      });
    }
    return readFileSync(handle, 'utf8');
  } finally {
    closeSync(handle);
  }
}

/** Parses text that must hold one JSON object. Throws ModelFormatError. */
export function parseJsonObject(text: string, file: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new ModelFormatError({ file, expected: 'JSON', got: describeValue(cause), cause });
  }
  if (!isJsonObject(value)) {
    throw new ModelFormatError({ file, expected: 'a JSON object', got: describeKind(value) });
  }
  return value;
}

/** The file as a JSON object, or undefined where there is no such file. Throws ModelFormatError. */
export function readJsonObject(path: string): JsonObject | undefined {
  const text = readTextFile(path);
  return text === undefined ? undefined : parseJsonObject(text, path);
}
