/**
 * Reads the header of one safetensors file and distrusts every word of it: length, JSON, dtypes, shapes, offsets,
 * overlaps, holes. Called by safetensors-folder.ts. Never reads tensor values; those are mapped by the native side.
 * Format: u64 header length, JSON header, then the values without holes (github.com/huggingface/safetensors).
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { describeValue, ModelFormatError } from '../errors.js';
import { DTYPES, type DTypeName, storedBytes } from './dtypes.js';
import { describeKind, isJsonObject, type JsonObject, parseJsonObject } from './json-file.js';
import { findDuplicateKey } from './json-keys.js';
import type { CodeType, RawTensor } from './scaled-tensors.js';

const LENGTH_BYTES = 8;
/** The limit that the format's own implementation sets. */
const MAX_HEADER_BYTES = 100_000_000;

const SUPPORTED = new Map<string, DTypeName>();
for (const traits of DTYPES) {
  if ('safetensorsName' in traits) SUPPORTED.set(traits.safetensorsName, traits.name);
}
/** Types that tensors of codes have, which scales belong to. */
const CODES: Readonly<Record<string, CodeType>> = { U8: 'u8', F8_E4M3: 'f8_e4m3' };
/** Types of the format that no kernel here computes with. */
const UNSUPPORTED = new Set([
  ...['F64', 'I64', 'I32', 'I16', 'I8', 'U64', 'U32', 'U16', 'BOOL', 'C64'],
  ...['F8_E5M2', 'F8_E8M0', 'F6_E2M3', 'F6_E3M2', 'F4'],
]);

/** Tensors of one file; `file` is the number that RawTensor.file gets. Throws ModelFormatError. */
export function readSafetensors(path: string, file = 0): RawTensor[] {
  const handle = openTensorFile(path);
  try {
    const stat = fstatSync(handle);
    if (!stat.isFile()) throw new ModelFormatError({ file: path, expected: 'a file', got: 'something else' });
    const header = readHeader(handle, path, stat.size);
    const dataStart = LENGTH_BYTES + header.sizeBytes;
    const tensors: RawTensor[] = [];
    for (const [name, entry] of Object.entries(header.json)) {
      if (name === '__metadata__') checkMetadata(entry, path);
      else tensors.push(readEntry({ path, name, file, dataStart, fileBytes: stat.size }, entry));
    }
    checkCoverage(tensors, path, dataStart, stat.size);
    return tensors;
  } finally {
    closeSync(handle);
  }
}

function openTensorFile(path: string): number {
  try {
    return openSync(path, 'r');
  } catch (cause) {
    throw new ModelFormatError({
      code: (cause as NodeJS.ErrnoException).code === 'ENOENT' ? 'ERR_MODEL_NOT_FOUND' : 'ERR_MODEL_FORMAT',
      file: path,
      expected: 'a readable safetensors file',
      got: describeValue(cause),
      cause,
    });
  }
}

function readHeader(
  handle: number,
  path: string,
  fileBytes: number,
): { json: JsonObject; sizeBytes: number } {
  const fail = (expected: string, got: unknown, offset = 0): never => {
    throw new ModelFormatError({ file: path, field: 'header', expected, got, offset });
  };
  if (fileBytes < LENGTH_BYTES) fail(`at least ${LENGTH_BYTES} bytes`, `a file of ${fileBytes} bytes`);
  const lengthBytes = readExactly(handle, path, 0, LENGTH_BYTES);
  const declared = lengthBytes.readBigUInt64LE(0);
  if (declared > BigInt(MAX_HEADER_BYTES)) fail(`a length of at most ${MAX_HEADER_BYTES} bytes`, declared);
  const sizeBytes = Number(declared);
  if (sizeBytes > fileBytes - LENGTH_BYTES) {
    fail(`a header that fits into the file of ${fileBytes} bytes`, `a header length of ${sizeBytes} bytes`);
  }
  const bytes = readExactly(handle, path, LENGTH_BYTES, sizeBytes);
  if (bytes[0] !== 0x7b) fail('JSON that starts with {', describeStart(bytes), LENGTH_BYTES);
  let text = '';
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    fail('UTF-8 text', 'invalid bytes', LENGTH_BYTES);
  }
  const json = parseJsonObject(text, path);
  const duplicate = findDuplicateKey(text);
  if (duplicate !== undefined) fail('each name once', `${JSON.stringify(duplicate)} twice`, LENGTH_BYTES);
  return { json, sizeBytes };
}

function describeStart(bytes: Buffer): string {
  return bytes.length === 0 ? 'nothing' : `byte 0x${bytes.toString('hex', 0, 1)}`;
}

function readExactly(handle: number, path: string, offset: number, sizeBytes: number): Buffer {
  const bytes = Buffer.allocUnsafe(sizeBytes);
  let done = 0;
  while (done < sizeBytes) {
    const count = readSync(handle, bytes, done, sizeBytes - done, offset + done);
    if (count === 0) {
      throw new ModelFormatError({
        file: path,
        expected: `${sizeBytes} bytes from ${offset}`,
        got: `the end after ${done} bytes`,
        offset: offset + done,
      });
    }
    done += count;
  }
  return bytes;
}

function checkMetadata(entry: unknown, path: string): void {
  if (!isJsonObject(entry) || !Object.values(entry).every((value) => typeof value === 'string')) {
    throw new ModelFormatError({
      file: path,
      field: '__metadata__',
      expected: 'an object of strings',
      got: describeKind(entry),
    });
  }
}

type EntryPlace = { path: string; name: string; file: number; dataStart: number; fileBytes: number };

function readEntry(place: EntryPlace, entry: unknown): RawTensor {
  const fail = (what: string, expected: string, got: unknown): never => {
    throw new ModelFormatError({ file: place.path, field: `${place.name}${what}`, expected, got });
  };
  if (!isJsonObject(entry))
    return fail('', 'an object with dtype, shape and data_offsets', describeKind(entry));
  const dtype = readDtype(place, entry.dtype);
  const shape = entry.shape;
  if (!isCounts(shape)) return fail('.shape', 'a list of whole numbers >= 0', entry.shape);
  const offsets = entry.data_offsets;
  if (!isCounts(offsets) || offsets.length !== 2) {
    return fail('.data_offsets', 'two whole numbers >= 0', entry.data_offsets);
  }
  const [begin = 0, end = 0] = offsets;
  if (end < begin) fail('.data_offsets', 'begin <= end', offsets);
  const limit = place.fileBytes - place.dataStart;
  if (end > limit) fail('.data_offsets', `an end within the ${limit} bytes of values`, offsets);
  const count = shape.reduce((product, dim) => product * dim, 1);
  const needed = dtype === 'u8' || dtype === 'f8_e4m3' ? count : storedBytes(dtype, 1, count);
  if (needed !== end - begin) {
    fail('.data_offsets', `${needed} bytes for ${dtype} ${JSON.stringify(shape)}`, `${end - begin} bytes`);
  }
  const { name, file } = place;
  return { name, dtype, shape, file, offsetBytes: place.dataStart + begin, sizeBytes: end - begin };
}

function readDtype(place: EntryPlace, value: unknown): DTypeName | CodeType {
  const dtype = typeof value === 'string' ? (SUPPORTED.get(value) ?? CODES[value]) : undefined;
  if (dtype !== undefined) return dtype;
  const known = typeof value === 'string' && UNSUPPORTED.has(value);
  throw new ModelFormatError({
    code: known ? 'ERR_MODEL_UNSUPPORTED' : 'ERR_MODEL_FORMAT',
    file: place.path,
    field: `${place.name}.dtype`,
    expected: `one of ${[...SUPPORTED.keys()].join(', ')}`,
    got: value,
    hint: known ? 'Save the checkpoint in bfloat16, float16 or float32, or use a GGUF file of it.' : '',
  });
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);
}

/** The format wants every byte after the header to belong to exactly one tensor. */
function checkCoverage(tensors: RawTensor[], path: string, dataStart: number, fileBytes: number): void {
  const ordered = [...tensors].sort((a, b) => a.offsetBytes - b.offsetBytes || a.sizeBytes - b.sizeBytes);
  let end = dataStart;
  let previous = 'the header';
  for (const tensor of ordered) {
    if (tensor.offsetBytes !== end) {
      const kind = tensor.offsetBytes < end ? 'an overlap with' : 'a hole after';
      throw new ModelFormatError({
        file: path,
        field: tensor.name,
        expected: `values that start at byte ${end}, where ${previous} ends`,
        got: `${kind} ${previous}`,
        offset: tensor.offsetBytes,
      });
    }
    end += tensor.sizeBytes;
    previous = tensor.name;
  }
  if (end !== fileBytes) {
    throw new ModelFormatError({
      file: path,
      expected: `a file of ${end} bytes, where the last tensor ends`,
      got: `${fileBytes} bytes`,
      offset: end,
    });
  }
}
