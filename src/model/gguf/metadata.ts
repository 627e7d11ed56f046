/**
 * GGUF metadata: what kinds of values there are, and typed access to them with errors that name file, key, what was
 * expected and got. Filled by reader.ts; read by the families' GGUF parts and by the tokenizer builder.
 */
import { describeValue, ModelFormatError } from '../../errors.js';

/** Whole numbers beyond 2^53 are bigints. Lists of numbers of up to 32 bits are typed arrays. */
export type GgufScalar = number | bigint | boolean | string;
export type GgufNumbers =
  | Float64Array
  | Float32Array
  | Int32Array
  | Uint32Array
  | Int16Array
  | Uint16Array
  | Int8Array
  | Uint8Array;
export type GgufValue = GgufScalar | readonly GgufScalar[] | GgufNumbers | TextList;

/** A list of strings as its bytes in the file, whose lengths are known to fit; made into strings where asked for. */
export class TextList {
  readonly length: number;
  readonly #bytes: Buffer;

  constructor(length: number, bytes: Buffer) {
    this.length = length;
    this.#bytes = bytes;
  }

  toArray(): string[] {
    let offset = 0;
    return Array.from({ length: this.length }, () => {
      const start = offset + 8;
      offset = start + Number(this.#bytes.readBigUInt64LE(offset));
      return this.#bytes.toString('utf8', start, offset);
    });
  }
}

export class GgufMetadata {
  readonly path: string;
  readonly #values: ReadonlyMap<string, GgufValue>;

  constructor(path: string, values: ReadonlyMap<string, GgufValue>) {
    this.path = path;
    this.#values = values;
  }

  keys(): IterableIterator<string> {
    return this.#values.keys();
  }

  has(key: string): boolean {
    return this.#values.has(key);
  }

  get(key: string): GgufValue | undefined {
    return this.#values.get(key);
  }

  /** Throws ModelFormatError where the key is there with another type. */
  text(key: string): string | undefined {
    return this.#typed(key, 'a string', (value) => (typeof value === 'string' ? value : undefined));
  }

  number(key: string): number | undefined {
    return this.#typed(key, 'a number', (value) => (typeof value === 'number' ? value : undefined));
  }

  /** A whole number from `min` to `max`. */
  integer(key: string, min = 0, max = 2 ** 31 - 1): number | undefined {
    return this.#typed(key, `an integer from ${min} to ${max}`, (value) =>
      typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max
        ? value
        : undefined,
    );
  }

  flag(key: string): boolean | undefined {
    return this.#typed(key, 'true or false', (value) => (typeof value === 'boolean' ? value : undefined));
  }

  flags(key: string): readonly boolean[] | undefined {
    return this.#typed(key, 'a list of true and false', (value) =>
      Array.isArray(value) && value.every((item) => typeof item === 'boolean') ? value : undefined,
    );
  }

  texts(key: string): readonly string[] | undefined {
    return this.#typed(key, 'a list of strings', (value) =>
      value instanceof TextList ? value.toArray() : undefined,
    );
  }

  numbers(key: string): ArrayLike<number> | undefined {
    return this.#typed(key, 'a list of numbers', (value) =>
      ArrayBuffer.isView(value) || (Array.isArray(value) && value.length === 0)
        ? (value as GgufNumbers | never[])
        : undefined,
    );
  }

  error(key: string, expected: string, got: unknown, hint = ''): ModelFormatError {
    return new ModelFormatError({ file: this.path, field: key, expected, got, hint });
  }

  #typed<T>(key: string, expected: string, check: (value: GgufValue) => T | undefined): T | undefined {
    const value = this.#values.get(key);
    if (value === undefined) return undefined;
    const typed = check(value);
    if (typed === undefined) throw this.error(key, expected, describeGgufValue(value));
    return typed;
  }
}

function describeGgufValue(value: GgufValue): string {
  if (value instanceof TextList) return `a list of ${value.length} strings`;
  if (ArrayBuffer.isView(value)) return `a list of ${value.length} numbers`;
  if (typeof value === 'object') return `a list of ${value.length} values`;
  return describeValue(value);
}
