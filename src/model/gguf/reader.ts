/**
 * Reads the header of one GGUF file, versions 2 and 3: metadata and tensor infos. Distrusts every count, length, type
 * and offset; whatever the file holds, it ends with an answer or a ModelFormatError within a bounded time and memory.
 * Called by split.ts. Never reads tensor values. Format: docs/gguf.md of ggml-org/ggml.
 */
import { closeSync, fstatSync, openSync } from 'node:fs';
import { describeValue, ModelFormatError } from '../../errors.js';
import { DTYPES, type DTypeName, storedBytes } from '../dtypes.js';
import type { TensorInfo } from '../tensor-index.js';
import { FileCursor } from './file-cursor.js';
import { GgufMetadata, type GgufValue } from './metadata.js';
import { type EntryBudget, readValue } from './metadata-values.js';

const MAGIC = 0x46554747; // "GGUF", little-endian
const DEFAULT_ALIGNMENT = 32;
const MAX_ALIGNMENT = 1 << 20;
const MAX_DIMENSIONS = 4;
const MAX_KEY_BYTES = 65535;
const MAX_NAME_BYTES = 256;
/** Headers of vocabularies of 260,000 tokens take about 16 MB. */
const MAX_HEADER_BYTES = 32 * 1024 * 1024;
/** List entries that become JavaScript values: tokens, merges. The largest vocabularies have 800,000. */
const MAX_LIST_ENTRIES = 900_000;
/** Published models have up to 2,000 tensors and 100 keys. */
const MAX_TENSORS = 32_768;
const MAX_KEYS = 8_192;
/** Key length, key, type and value take at least this much; so do name length, name, dimensions, type and offset. */
const MIN_KEY_VALUE_BYTES = 8 + 1 + 4 + 1;
const MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8;

const BY_GGML_TYPE = new Map<number, DTypeName>(DTYPES.map((traits) => [traits.ggmlType, traits.name]));
/** Types of ggml that no kernel here computes with, for messages. */
const UNSUPPORTED = new Map<number, string>([
  [9, 'q8_1'],
  [15, 'q8_k'],
  [16, 'iq2_xxs'],
  [17, 'iq2_xs'],
  [18, 'iq3_xxs'],
  [19, 'iq1_s'],
  [21, 'iq3_s'],
  [22, 'iq2_s'],
  [24, 'i8'],
  [25, 'i16'],
  [26, 'i32'],
  [27, 'i64'],
  [28, 'f64'],
  [29, 'iq1_m'],
  [34, 'tq1_0'],
  [35, 'tq2_0'],
  [40, 'nvfp4'],
]);

export type GgufHeader = { version: number; metadata: GgufMetadata; tensors: TensorInfo[] };

/** `file` is the number that TensorInfo.file gets. Throws ModelFormatError with the offset in the file. */
export function readGgufHeader(path: string, file = 0): GgufHeader {
  const handle = openFile(path);
  try {
    const stat = fstatSync(handle);
    if (!stat.isFile()) throw new ModelFormatError({ file: path, expected: 'a file', got: 'something else' });
    return parseHeader(new FileCursor(handle, path, stat.size, MAX_HEADER_BYTES), file);
  } finally {
    closeSync(handle);
  }
}

function openFile(path: string): number {
  try {
    return openSync(path, 'r');
  } catch (cause) {
    const missing = (cause as NodeJS.ErrnoException).code === 'ENOENT';
    throw new ModelFormatError({
      code: missing ? 'ERR_MODEL_NOT_FOUND' : 'ERR_MODEL_FORMAT',
      file: path,
      expected: 'a readable GGUF file',
      got: describeValue(cause),
      cause,
    });
  }
}

function parseHeader(cursor: FileCursor, file: number): GgufHeader {
  const magic = cursor.u32('magic');
  if (magic !== MAGIC) throw cursor.error('magic', 'the bytes "GGUF"', `0x${magic.toString(16)}`, 0);
  const version = readVersion(cursor);
  const tensorCount = readCount(cursor, 'number of tensors', MAX_TENSORS, MIN_TENSOR_BYTES);
  const keyCount = readCount(cursor, 'number of metadata keys', MAX_KEYS, MIN_KEY_VALUE_BYTES);
  const { values, alignment } = readMetadata(cursor, keyCount);
  const entries: TensorEntry[] = [];
  const names = new Set<string>();
  for (let i = 0; i < tensorCount; i++) entries.push(readTensorEntry(cursor, i, names));
  const dataStart = Math.ceil(cursor.position / alignment) * alignment;
  const tensors = entries.map((entry) => placeTensor(cursor, entry, { file, dataStart, alignment }));
  checkOverlaps(cursor, tensors);
  return { version, metadata: new GgufMetadata(cursor.path, values), tensors };
}

function readVersion(cursor: FileCursor): number {
  const version = cursor.u32('version');
  if (version === 2 || version === 3) return version;
  // Byte-swapped, a small version number stands in the upper bytes.
  const bigEndian = version !== 0 && (version & 0xffff) === 0;
  throw new ModelFormatError({
    code: 'ERR_MODEL_UNSUPPORTED',
    file: cursor.path,
    field: 'version',
    expected: 'GGUF version 2 or 3, little-endian',
    got: bigEndian ? 'a big-endian file' : version,
    offset: 4,
  });
}

function readCount(cursor: FileCursor, what: string, most: number, minBytesEach: number): number {
  const start = cursor.position;
  const count = cursor.u64(what);
  if (count > most) throw cursor.error(what, `at most ${most}`, count, start);
  if (count > cursor.remainingBytes / minBytesEach) {
    throw cursor.error(what, `what fits into the ${cursor.remainingBytes} bytes left`, count, start);
  }
  return count;
}

function readMetadata(
  cursor: FileCursor,
  count: number,
): { values: Map<string, GgufValue>; alignment: number } {
  const values = new Map<string, GgufValue>();
  const budget: EntryBudget = { left: MAX_LIST_ENTRIES };
  let alignment = DEFAULT_ALIGNMENT;
  for (let i = 0; i < count; i++) {
    const start = cursor.position;
    const key = cursor.text(`key ${i}`, MAX_KEY_BYTES, true);
    if (key === '') throw cursor.error(`key ${i}`, 'a name', 'an empty string', start);
    if (values.has(key)) throw cursor.error(key, 'each key once', 'it twice', start);
    const { typeName, value } = readValue(cursor, key, budget);
    values.set(key, value);
    if (key === 'general.alignment') alignment = checkedAlignment(cursor, typeName, value, start);
  }
  return { values, alignment };
}

function checkedAlignment(cursor: FileCursor, typeName: string, value: GgufValue, start: number): number {
  const key = 'general.alignment';
  if (typeName !== 'u32' || typeof value !== 'number')
    throw cursor.error(key, 'a u32', `a value of ${typeName}`, start);
  const isPowerOfTwo = value > 0 && (value & (value - 1)) === 0;
  if (!isPowerOfTwo || value > MAX_ALIGNMENT) {
    throw cursor.error(key, `a power of two up to ${MAX_ALIGNMENT}`, value, start);
  }
  return value;
}

type TensorEntry = {
  name: string;
  shape: number[];
  dtype: DTypeName;
  sizeBytes: number;
  offset: number;
  start: number;
};

function readTensorEntry(cursor: FileCursor, index: number, names: Set<string>): TensorEntry {
  const start = cursor.position;
  const name = cursor.text(`name of tensor ${index}`, MAX_NAME_BYTES, true);
  if (name === '') throw cursor.error(`name of tensor ${index}`, 'a name', 'an empty string', start);
  if (names.has(name)) throw cursor.error(name, 'each tensor name once', 'it twice', start);
  names.add(name);
  const shape = readShape(cursor, name);
  const dtype = readDtype(cursor, name);
  const cols = shape.at(-1) ?? 0;
  const rows = shape.slice(0, -1).reduce((product, dim) => product * dim, 1);
  const sizeBytes = storedBytes(dtype, rows, cols);
  if (sizeBytes === undefined)
    throw cursor.error(name, `columns in whole blocks of ${dtype}`, `${cols} columns`, start);
  if (sizeBytes > cursor.fileBytes) {
    throw cursor.error(
      name,
      `a tensor that fits into the file of ${cursor.fileBytes} bytes`,
      `${sizeBytes} bytes`,
      start,
    );
  }
  return { name, shape, dtype, sizeBytes, offset: cursor.u64(`offset of ${name}`), start };
}

/** GGUF names the contiguous dimension first; here it is the last. */
function readShape(cursor: FileCursor, name: string): number[] {
  const start = cursor.position;
  const dimensions = cursor.u32(`dimensions of ${name}`);
  if (dimensions < 1 || dimensions > MAX_DIMENSIONS) {
    throw cursor.error(name, `1 to ${MAX_DIMENSIONS} dimensions`, dimensions, start);
  }
  const shape: number[] = [];
  let count = 1;
  for (let i = 0; i < dimensions; i++) {
    const dim = cursor.u64(`dimension ${i} of ${name}`);
    if (dim === 0) throw cursor.error(name, 'dimensions of at least 1', 'a dimension of 0', start);
    count *= dim;
    if (count > Number.MAX_SAFE_INTEGER) throw cursor.error(name, 'fewer than 2^53 values', 'more', start);
    shape.unshift(dim);
  }
  return shape;
}

function readDtype(cursor: FileCursor, name: string): DTypeName {
  const start = cursor.position;
  const number = cursor.u32(`type of ${name}`);
  const dtype = BY_GGML_TYPE.get(number);
  if (dtype !== undefined) return dtype;
  const known = UNSUPPORTED.get(number);
  throw new ModelFormatError({
    code: known === undefined ? 'ERR_MODEL_FORMAT' : 'ERR_MODEL_UNSUPPORTED',
    file: cursor.path,
    field: name,
    expected: `one of the types ${DTYPES.map((traits) => traits.name).join(', ')}`,
    got: known ?? `type number ${number}`,
    offset: start,
  });
}

type Placement = { file: number; dataStart: number; alignment: number };

function placeTensor(
  cursor: FileCursor,
  entry: TensorEntry,
  { file, dataStart, alignment }: Placement,
): TensorInfo {
  const { name, dtype, shape, sizeBytes, offset, start } = entry;
  if (offset % alignment !== 0)
    throw cursor.error(name, `an offset that ${alignment} divides`, offset, start);
  const offsetBytes = dataStart + offset;
  if (offsetBytes + sizeBytes > cursor.fileBytes) {
    throw cursor.error(
      name,
      `values within the file of ${cursor.fileBytes} bytes`,
      `${sizeBytes} bytes from byte ${offsetBytes}`,
      start,
    );
  }
  return { name, dtype, shape, file, offsetBytes, sizeBytes };
}

function checkOverlaps(cursor: FileCursor, tensors: readonly TensorInfo[]): void {
  const ordered = [...tensors].sort((a, b) => a.offsetBytes - b.offsetBytes);
  let previous: TensorInfo | undefined;
  for (const tensor of ordered) {
    if (previous !== undefined && tensor.offsetBytes < previous.offsetBytes + previous.sizeBytes) {
      throw cursor.error(
        tensor.name,
        'values of its own',
        `an overlap with ${previous.name}`,
        tensor.offsetBytes,
      );
    }
    previous = tensor;
  }
}
