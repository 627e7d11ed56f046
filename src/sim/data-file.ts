/**
 * Typed reading of the simulator's JSON files (hardware, models, workloads, recorded routing): every wrong value is a
 * ModelFormatError that names file, field, expected and got. Called by the loaders of this folder; knows no format.
 */

import { ModelFormatError } from '../errors.js';
import {
  describeKind,
  isJsonObject,
  type JsonObject,
  parseJsonObject,
  readTextFile,
} from '../model/json-file.js';

/** One object of a file, with the path that leads to it for messages. */
export class DataNode {
  constructor(
    readonly file: string,
    readonly field: string,
    private readonly values: JsonObject,
  ) {}

  get keys(): string[] {
    return Object.keys(this.values);
  }

  has(key: string): boolean {
    return this.values[key] !== undefined;
  }

  /** The error that a wrong value of `key` is. */
  wrong(key: string, expected: string): ModelFormatError {
    const got = this.values[key];
    return new ModelFormatError({
      file: this.file,
      field: this.path(key),
      expected,
      got: got === undefined ? 'nothing' : typeof got === 'number' ? String(got) : describeKind(got),
    });
  }

  text(key: string): string {
    const value = this.values[key];
    if (typeof value !== 'string' || value === '') throw this.wrong(key, 'a non-empty string');
    return value;
  }

  flag(key: string): boolean {
    const value = this.values[key];
    if (typeof value !== 'boolean') throw this.wrong(key, 'true or false');
    return value;
  }

  /** A finite number of at least `least`. */
  number(key: string, least = 0): number {
    const value = this.values[key];
    if (typeof value !== 'number' || !Number.isFinite(value) || value < least) {
      throw this.wrong(key, `a number >= ${least}`);
    }
    return value;
  }

  integer(key: string, least = 0): number {
    const value = this.number(key, least);
    if (!Number.isInteger(value)) throw this.wrong(key, `an integer >= ${least}`);
    return value;
  }

  numbers(key: string): number[] {
    const value = this.values[key];
    if (!Array.isArray(value) || !value.every((entry) => Number.isFinite(entry))) {
      throw this.wrong(key, 'a list of numbers');
    }
    return value as number[];
  }

  node(key: string): DataNode {
    const value = this.values[key];
    if (!isJsonObject(value)) throw this.wrong(key, 'an object');
    return new DataNode(this.file, this.path(key), value);
  }

  nodes(key: string): DataNode[] {
    const value = this.values[key];
    if (!Array.isArray(value) || value.length === 0) throw this.wrong(key, 'a non-empty list of objects');
    return value.map((entry, index) => {
      if (!isJsonObject(entry)) throw this.wrong(`${key}[${index}]`, 'an object');
      return new DataNode(this.file, this.path(`${key}[${index}]`), entry);
    });
  }

  /** A number that says where it comes from: { value, source }. */
  sourced(key: string, least = Number.MIN_VALUE): number {
    const entry = this.node(key);
    entry.text('source');
    return entry.number('value', least);
  }

  private path(key: string): string {
    return this.field === '' ? key : `${this.field}.${key}`;
  }
}

/** The object that a file holds. Throws ModelFormatError, also where there is no such file. */
export function readDataFile(path: string): DataNode {
  const text = readTextFile(path);
  if (text === undefined)
    throw new ModelFormatError({ file: path, expected: 'a file', got: 'nothing there' });
  return new DataNode(path, '', parseJsonObject(text, path));
}
