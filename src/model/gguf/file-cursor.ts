/**
 * Reads little-endian values one after the other from a file, through a small window, and never past the end or past
 * a budget of bytes. Used by the GGUF reader; knows nothing of the format itself.
 */
import { readSync } from 'node:fs';
import { ModelFormatError } from '../../errors.js';

const WINDOW_BYTES = 1 << 18;

export class FileCursor {
  readonly path: string;
  readonly fileBytes: number;
  readonly #handle: number;
  readonly #budgetBytes: number;
  #window = Buffer.alloc(0);
  #windowStart = 0;
  #position = 0;

  /** `budgetBytes`: most bytes that may be read in all. */
  constructor(handle: number, path: string, fileBytes: number, budgetBytes: number) {
    this.#handle = handle;
    this.path = path;
    this.fileBytes = fileBytes;
    this.#budgetBytes = budgetBytes;
  }

  get position(): number {
    return this.#position;
  }

  get remainingBytes(): number {
    return this.fileBytes - this.#position;
  }

  u8(what: string): number {
    return this.#take(1, what).readUInt8();
  }

  u32(what: string): number {
    return this.#take(4, what).readUInt32LE();
  }

  /** A 64-bit number that must fit into 53 bits. */
  u64(what: string): number {
    const value = this.#take(8, what).readBigUInt64LE();
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw this.error(what, `a number below 2^53`, `${value}`, this.#position - 8);
    }
    return Number(value);
  }

  /** A copy of the next bytes. */
  bytes(count: number, what: string): Buffer {
    return Buffer.from(this.#take(count, what));
  }

  /** A string with its length in front. `strict` refuses what is not UTF-8. */
  text(what: string, maxBytes: number, strict = false): string {
    const start = this.#position;
    const length = this.u64(`${what} length`);
    if (length > maxBytes)
      throw this.error(what, `a string of at most ${maxBytes} bytes`, `${length} bytes`, start);
    const bytes = this.#take(length, what);
    if (!strict) return bytes.toString('utf8');
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
      throw this.error(what, 'UTF-8 text', 'invalid bytes', start);
    }
  }

  error(field: string, expected: string, got: unknown, offset = this.#position): ModelFormatError {
    return new ModelFormatError({ file: this.path, field, expected, got, offset });
  }

  /** The next bytes as a view that is valid until the next call. */
  #take(count: number, what: string): Buffer {
    const end = this.#position + count;
    if (end > this.fileBytes) {
      throw this.error(what, `${count} bytes`, `the end of the file after ${this.remainingBytes}`);
    }
    if (end > this.#budgetBytes)
      throw this.error(what, `a header of at most ${this.#budgetBytes} bytes`, 'a longer one');
    if (end > this.#windowStart + this.#window.length) this.#fill(count);
    const from = this.#position - this.#windowStart;
    this.#position = end;
    return this.#window.subarray(from, from + count);
  }

  #fill(count: number): void {
    const size = Math.min(Math.max(count, WINDOW_BYTES), this.remainingBytes);
    const window = Buffer.allocUnsafe(size);
    let done = 0;
    while (done < size) {
      const read = readSync(this.#handle, window, done, size - done, this.#position + done);
      if (read === 0)
        throw this.error('file', `${this.fileBytes} bytes`, `${this.#position + done}: it shrank`);
      done += read;
    }
    this.#window = window;
    this.#windowStart = this.#position;
  }
}
