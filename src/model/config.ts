/**
 * Checked reading of a model's configuration: config.json, or GGUF metadata renamed to the same keys. Families ask
 * it for values; each answer has its type and range, and each error names file, key, what was expected and got.
 * Keys with several spellings over the years are given as a list; spellings that disagree are refused.
 */
import { describeValue, ModelFormatError } from '../errors.js';
import type { JsonObject } from './json-file.js';

/** One key or all its spellings, the newest first. */
export type ConfigKeys = string | readonly string[];

export type NumberRange = { min?: number; max?: number };

type Found = { key: string; value: unknown };

export class ConfigReader {
  readonly file: string;
  readonly #values: JsonObject;
  readonly #labels: Readonly<Record<string, string>>;

  /** `labels` gives the names that errors use where they differ from the keys (GGUF metadata). */
  constructor(values: JsonObject, file: string, labels: Readonly<Record<string, string>> = {}) {
    this.#values = values;
    this.file = file;
    this.#labels = labels;
  }

  /** The key's value where it is there and not null. Throws ModelFormatError where spellings disagree. */
  find(keys: ConfigKeys): Found | undefined {
    let found: Found | undefined;
    for (const key of typeof keys === 'string' ? [keys] : keys) {
      const value = Object.hasOwn(this.#values, key) ? this.#values[key] : undefined;
      if (value === undefined || value === null) continue;
      if (found === undefined) found = { key, value };
      else if (JSON.stringify(value) !== JSON.stringify(found.value)) {
        throw this.contradiction(found.key, found.value, key, value);
      }
    }
    return found;
  }

  keys(): string[] {
    return Object.keys(this.#values);
  }

  has(keys: ConfigKeys): boolean {
    return this.find(keys) !== undefined;
  }

  integer(keys: ConfigKeys, fallback: number | undefined, range: NumberRange = {}): number {
    const { min = 1, max = 2 ** 31 - 1 } = range;
    return this.#checked(keys, fallback, `an integer from ${min} to ${max}`, (value) =>
      typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max
        ? value
        : undefined,
    );
  }

  number(keys: ConfigKeys, fallback: number | undefined, range: NumberRange = {}): number {
    const { min = -Number.MAX_VALUE, max = Number.MAX_VALUE } = range;
    const expected =
      range.min === undefined && range.max === undefined ? 'a number' : `a number from ${min} to ${max}`;
    return this.#checked(keys, fallback, expected, (value) =>
      typeof value === 'number' && value >= min && value <= max ? value : undefined,
    );
  }

  flag(keys: ConfigKeys, fallback: boolean): boolean {
    return this.#checked(keys, fallback, 'true or false', (value) =>
      typeof value === 'boolean' ? value : undefined,
    );
  }

  text(keys: ConfigKeys, fallback: string | undefined): string {
    return this.#checked(keys, fallback, 'a string', (value) =>
      typeof value === 'string' ? value : undefined,
    );
  }

  integers(keys: ConfigKeys, fallback: number[]): number[] {
    return this.#checked(keys, fallback, 'a list of integers', (value) =>
      Array.isArray(value) && value.every((item) => Number.isInteger(item)) ? (value as number[]) : undefined,
    );
  }

  texts(keys: ConfigKeys, fallback: string[]): string[] {
    return this.#checked(keys, fallback, 'a list of strings', (value) =>
      Array.isArray(value) && value.every((item) => typeof item === 'string')
        ? (value as string[])
        : undefined,
    );
  }

  /** A list of `length` finite numbers above 0. */
  positiveNumbers(keys: ConfigKeys, length: number): number[] {
    return this.#checked(keys, undefined, `a list of ${length} numbers above 0`, (value) =>
      Array.isArray(value) &&
      value.length === length &&
      value.every((item) => Number.isFinite(item) && item > 0)
        ? (value as number[])
        : undefined,
    );
  }

  /** A reader of the object under the key, with errors that name `key.inner`; undefined where it is absent. */
  object(keys: ConfigKeys): ConfigReader | undefined {
    const found = this.find(keys);
    if (found === undefined) return undefined;
    const { key, value } = found;
    if (typeof value !== 'object' || Array.isArray(value)) throw this.error(key, 'an object', value);
    const inner = value as JsonObject;
    const labels: Record<string, string> = {};
    for (const name of Object.keys(inner)) labels[name] = this.#labels[name] ?? `${this.label(key)}.${name}`;
    return new ConfigReader(inner, this.file, labels);
  }

  label(key: string): string {
    return this.#labels[key] ?? key;
  }

  error(key: string, expected: string, got: unknown, hint = ''): ModelFormatError {
    return new ModelFormatError({
      file: this.file,
      field: this.label(key),
      expected,
      got: describeValue(got),
      hint,
    });
  }

  /** Two values that cannot both hold. */
  contradiction(keyA: string, a: unknown, keyB: string, b: unknown): ModelFormatError {
    const [labelA, labelB] = [this.label(keyA), this.label(keyB)];
    return new ModelFormatError({
      file: this.file,
      field: labelB,
      expected: `a value that agrees with \`${labelA}\` = ${describeValue(a)}`,
      got: describeValue(b),
    });
  }

  /** A value that is well-formed but asks for what this engine lacks. */
  unsupported(key: string, expected: string, got: unknown, hint = ''): ModelFormatError {
    return new ModelFormatError({
      code: 'ERR_MODEL_UNSUPPORTED',
      file: this.file,
      field: this.label(key),
      expected,
      got: describeValue(got),
      hint,
    });
  }

  #checked<T>(
    keys: ConfigKeys,
    fallback: T | undefined,
    expected: string,
    check: (value: unknown) => T | undefined,
  ): T {
    const found = this.find(keys);
    const key = found?.key ?? (typeof keys === 'string' ? keys : (keys[0] ?? ''));
    if (found === undefined) {
      if (fallback === undefined) throw this.error(key, expected, undefined);
      return fallback;
    }
    const value = check(found.value);
    if (value === undefined) throw this.error(key, expected, found.value);
    return value;
  }
}
