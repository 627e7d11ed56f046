/**
 * Writes a GGUF file of version 3: header first, then each tensor's values as its source hands them over, so that no
 * more than one piece is in memory. Called by convert.ts. Decides nothing about names or types.
 */
import { closeSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { OutputError } from '../../errors.js';
import { type DTypeName, dtypeTraits, storedBytes } from '../dtypes.js';

/** A metadata value with its type in the file. */
export type MetadataValue =
  | { type: 'u32' | 'f32'; value: number }
  | { type: 'bool'; value: boolean }
  | { type: 'string'; value: string }
  | { type: 'strings'; value: readonly string[] }
  | { type: 'bools'; value: readonly boolean[] }
  | { type: 'i32s' | 'f32s'; value: ArrayLike<number> };

export type OutputTensor = {
  name: string;
  dtype: DTypeName;
  /** Row-major, the contiguous dimension last. */
  shape: readonly number[];
  /** The values in pieces of any size, in the dtype's stored layout. */
  pieces: () => Iterable<Uint8Array>;
};

const ALIGNMENT = 32;
const TYPE = { u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9 } as const;

/**
 * Writes to a neighbouring file first: `path` appears whole or not at all, also where the caller stops in the middle.
 * Yields the bytes of values written so far. Throws OutputError, and RangeError where pieces and shape disagree.
 */
export function* writeGguf(
  path: string,
  metadata: ReadonlyMap<string, MetadataValue>,
  tensors: readonly OutputTensor[],
): Generator<number, void> {
  const head = header(metadata, tensors);
  const partial = `${path}.partial`;
  let handle: number | undefined = io(path, () => openSync(partial, 'w'));
  try {
    const write = (bytes: Uint8Array) => io(path, () => writeAll(handle ?? -1, bytes));
    write(head);
    let doneBytes = 0;
    for (const tensor of tensors) {
      for (const writtenBytes of tensorPieces(tensor, write)) yield doneBytes + writtenBytes;
      doneBytes += tensorBytes(tensor);
    }
    io(path, () => closeSync(handle ?? -1));
    handle = undefined;
    io(path, () => renameSync(partial, path));
  } finally {
    if (handle !== undefined) closeSync(handle);
    rmSync(partial, { force: true });
  }
}

/** Failures of the file system tell which file they hindered. */
function io<Result>(path: string, action: () => Result): Result {
  try {
    return action();
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    const hint = code === 'ENOSPC' ? 'Free space on that disk or choose a smaller format.' : '';
    throw new OutputError(path, message, { hint, cause });
  }
}

/** Bytes that a tensor takes in the file. Throws RangeError where its columns are no whole blocks. */
export function tensorBytes({ name, dtype, shape }: Pick<OutputTensor, 'name' | 'dtype' | 'shape'>): number {
  const rows = shape.slice(0, -1).reduce((product, dim) => product * dim, 1);
  const sizeBytes = storedBytes(dtype, rows, shape.at(-1) ?? 0);
  if (sizeBytes === undefined)
    throw new RangeError(`${name}: ${shape.at(-1)} columns are no whole blocks of ${dtype}`);
  return sizeBytes;
}

const padded = (size: number) => Math.ceil(size / ALIGNMENT) * ALIGNMENT;

function header(metadata: ReadonlyMap<string, MetadataValue>, tensors: readonly OutputTensor[]): Buffer {
  const parts: Buffer[] = [Buffer.from('GGUF'), u32(3), u64(tensors.length), u64(metadata.size)];
  for (const [key, value] of metadata) {
    parts.push(text(key));
    // One by one: a vocabulary is longer than what a call may have of arguments.
    for (const part of encodeValue(value)) parts.push(part);
  }
  let offset = 0;
  for (const tensor of tensors) {
    parts.push(text(tensor.name), u32(tensor.shape.length));
    for (const dim of [...tensor.shape].reverse()) parts.push(u64(dim));
    parts.push(u32(dtypeTraits(tensor.dtype).ggmlType), u64(offset));
    offset += padded(tensorBytes(tensor));
  }
  const size = parts.reduce((sum, part) => sum + part.length, 0);
  parts.push(Buffer.alloc(padded(size) - size));
  return Buffer.concat(parts);
}

function encodeValue(entry: MetadataValue): Buffer[] {
  switch (entry.type) {
    case 'u32':
      return [u32(TYPE.u32), u32(entry.value)];
    case 'f32':
      return [u32(TYPE.f32), f32(entry.value)];
    case 'bool':
      return [u32(TYPE.bool), Buffer.of(entry.value ? 1 : 0)];
    case 'string':
      return [u32(TYPE.string), text(entry.value)];
    case 'strings':
      return [u32(TYPE.array), u32(TYPE.string), u64(entry.value.length), ...entry.value.map(text)];
    case 'bools':
      return [u32(TYPE.array), u32(TYPE.bool), u64(entry.value.length), Buffer.from(entry.value.map(Number))];
    case 'i32s':
      return [u32(TYPE.array), u32(TYPE.i32), u64(entry.value.length), bytesOf(Int32Array.from(entry.value))];
    case 'f32s':
      return [
        u32(TYPE.array),
        u32(TYPE.f32),
        u64(entry.value.length),
        bytesOf(Float32Array.from(entry.value)),
      ];
  }
}

/** Yields the bytes of this tensor written so far. */
function* tensorPieces(tensor: OutputTensor, write: (bytes: Uint8Array) => void): Generator<number, void> {
  const expected = tensorBytes(tensor);
  let written = 0;
  for (const piece of tensor.pieces()) {
    write(piece);
    written += piece.length;
    yield written;
  }
  if (written !== expected)
    throw new RangeError(`${tensor.name}: expected ${expected} bytes of values, got ${written}`);
  write(Buffer.alloc(padded(expected) - expected));
}

function writeAll(handle: number, bytes: Uint8Array): void {
  let done = 0;
  while (done < bytes.length) done += writeSync(handle, bytes, done, bytes.length - done);
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function f32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return bytes;
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([u64(bytes.length), bytes]);
}

function bytesOf(array: Int32Array | Float32Array): Buffer {
  return Buffer.from(array.buffer, array.byteOffset, array.byteLength);
}
