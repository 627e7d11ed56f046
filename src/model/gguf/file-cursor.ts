/**
 * Reads little-endian values one after the other from a file, through a small window, and never past the end or past
 * a budget of bytes. Used by the GGUF reader; knows nothing of the format itself. Makes no garbage per value, since a
 * hostile header may hold a million of them.
 */
import { readSync } from 'node:fs';
import { ModelFormatError } from '../../errors.js';

const WINDOW_BYTES = 1 << 18;

export class FileCursor {
  readonly path: string;
  readonly fileBytes: number;
  readonly #handle: number;
  readonly #budgetBytes: number;
  #window = Buffer.alloc(WINDOW_BYTES);
  /** Part of the file that the window holds. */
  #windowStart = 0;
  #windowEnd = 0;
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

  u32(what: string): number {
    const from = this.#take(4, what);
    return this.#window.readUInt32LE(from);
  }

  /** A 64-bit number that must fit into 53 bits. */
  u64(what: string): number {
    const from = this.#take(8, what);
    const high = this.#window.readUInt32LE(from + 4);
    const value = high * 2 ** 32 + this.#window.readUInt32LE(from);
    if (value <= Number.MAX_SAFE_INTEGER) return value;
    throw this.error(
      what,
      'a number below 2^53',
      `${this.#window.readBigUInt64LE(from)}`,
      this.#position - 8,
    );
  }

  /** A copy of the next bytes. */
  bytes(count: number, what: string): Buffer {
    const from = this.#take(count, what);
    return Buffer.from(this.#window.subarray(from, from + count));
  }

  /** A string with its length in front. `strict` refuses what is not UTF-8. */
  text(what: string, maxBytes: number, strict = false): string {
    const start = this.#position;
    const length = this.u64(what);
    if (length > maxBytes)
      throw this.error(what, `a string of at most ${maxBytes} bytes`, `${length} bytes`, start);
    const from = this.#take(length, what);
    if (!strict) return this.#window.toString('utf8', from, from + length);
    try {
      const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
      return utf8.decode(this.#window.subarray(from, from + length));
    } catch {
      throw this.error(what, 'UTF-8 text', 'invalid bytes', start);
    }
  }

  /** Moves over a string with its length in front. */
  skipText(what: string, maxBytes: number): void {
    const start = this.#position;
    const length = this.u64(what);
    if (length > maxBytes)
      throw this.error(what, `a string of at most ${maxBytes} bytes`, `${length} bytes`, start);
    if (this.#position + length > this.#windowEnd) this.#take(length, what);
    else this.#position += length;
  }

  /** Bytes that were passed already, read once more. */
  passedBytes(start: number): Buffer {
    const bytes = Buffer.alloc(this.#position - start);
    this.#read(bytes, bytes.length, start);
    return bytes;
  }

  error(field: string, expected: string, got: unknown, offset = this.#position): ModelFormatError {
    return new ModelFormatError({ file: this.path, field, expected, got, offset });
  }

  /** Moves over the next bytes and returns their place in the window; valid until the next call. */
  #take(count: number, what: string): number {
    const end = this.#position + count;
    if (end > this.fileBytes) {
      throw this.error(what, `${count} bytes`, `the end of the file after ${this.remainingBytes}`);
    }
    if (end > this.#budgetBytes) {
      throw this.error(what, `a header of at most ${this.#budgetBytes} bytes`, 'a longer one');
    }
    if (end > this.#windowEnd) this.#fill(count);
    const from = this.#position - this.#windowStart;
    this.#position = end;
    return from;
  }

  #fill(count: number): void {
    if (count > this.#window.length) this.#window = Buffer.alloc(count);
    const size = Math.min(this.#window.length, this.remainingBytes);
    this.#read(this.#window, size, this.#position);
    this.#windowStart = this.#position;
    this.#windowEnd = this.#position + size;
  }

  #read(into: Buffer, size: number, offset: number): void {
    let done = 0;
    while (done < size) {
      const count = readSync(this.#handle, into, done, size - done, offset + done);
      if (count === 0) throw this.error('file', `${this.fileBytes} bytes`, `${offset + done}: it shrank`);
      done += count;
    }
  }
}
