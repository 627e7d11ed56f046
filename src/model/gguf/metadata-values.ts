/**
 * The value types of GGUF metadata and how each is read. Called by reader.ts for every key. Bounds every count before
 * anything is allocated: a file of a few bytes must not ask for gigabytes.
 */
import type { FileCursor } from './file-cursor.js';
import { type GgufNumbers, type GgufScalar, type GgufValue, TextList } from './metadata.js';

/** Longest string value; chat templates are the longest ones, well under 1 MB. */
const MAX_TEXT_BYTES = 8 * 1024 * 1024;

const STRING = 8;
const ARRAY = 9;

type ValueType = {
  name: string;
  sizeBytes: number;
  read: (bytes: Buffer, offset: number) => GgufScalar;
  /** A typed array over a copy of the list's bytes, where there is one. */
  list?: (bytes: Buffer) => GgufNumbers;
};

const copyOf = (bytes: Buffer): ArrayBuffer => {
  const copy = new ArrayBuffer(bytes.length);
  new Uint8Array(copy).set(bytes);
  return copy;
};

const narrow = (value: bigint): number | bigint =>
  value <= BigInt(Number.MAX_SAFE_INTEGER) && value >= BigInt(Number.MIN_SAFE_INTEGER)
    ? Number(value)
    : value;

/** By the type's number in the file. */
const TYPES = new Map<number, ValueType>([
  [0, { name: 'u8', sizeBytes: 1, read: (b, o) => b.readUInt8(o), list: (b) => new Uint8Array(copyOf(b)) }],
  [1, { name: 'i8', sizeBytes: 1, read: (b, o) => b.readInt8(o), list: (b) => new Int8Array(copyOf(b)) }],
  [
    2,
    { name: 'u16', sizeBytes: 2, read: (b, o) => b.readUInt16LE(o), list: (b) => new Uint16Array(copyOf(b)) },
  ],
  [
    3,
    { name: 'i16', sizeBytes: 2, read: (b, o) => b.readInt16LE(o), list: (b) => new Int16Array(copyOf(b)) },
  ],
  [
    4,
    { name: 'u32', sizeBytes: 4, read: (b, o) => b.readUInt32LE(o), list: (b) => new Uint32Array(copyOf(b)) },
  ],
  [
    5,
    { name: 'i32', sizeBytes: 4, read: (b, o) => b.readInt32LE(o), list: (b) => new Int32Array(copyOf(b)) },
  ],
  [
    6,
    { name: 'f32', sizeBytes: 4, read: (b, o) => b.readFloatLE(o), list: (b) => new Float32Array(copyOf(b)) },
  ],
  [7, { name: 'bool', sizeBytes: 1, read: (b, o) => b.readUInt8(o) }],
  [10, { name: 'u64', sizeBytes: 8, read: (b, o) => narrow(b.readBigUInt64LE(o)) }],
  [11, { name: 'i64', sizeBytes: 8, read: (b, o) => narrow(b.readBigInt64LE(o)) }],
  [
    12,
    {
      name: 'f64',
      sizeBytes: 8,
      read: (b, o) => b.readDoubleLE(o),
      list: (b) => new Float64Array(copyOf(b)),
    },
  ],
]);

/** Counts down the list entries that become JavaScript values, over all keys of a file. */
export type EntryBudget = { left: number };

export type ReadValue = { typeName: string; value: GgufValue };

/** Reads a value with its type in front. Throws ModelFormatError. */
export function readValue(cursor: FileCursor, key: string, budget: EntryBudget): ReadValue {
  const start = cursor.position;
  const typeNumber = cursor.u32(`type of ${key}`);
  if (typeNumber === STRING) return { typeName: 'string', value: cursor.text(key, MAX_TEXT_BYTES) };
  if (typeNumber === ARRAY) return { typeName: 'array', value: readList(cursor, key, budget) };
  const type = TYPES.get(typeNumber);
  if (type === undefined) throw cursor.error(key, 'a value type from 0 to 12', typeNumber, start);
  return { typeName: type.name, value: readScalar(cursor, key, type) };
}

function readScalar(cursor: FileCursor, key: string, type: ValueType): GgufScalar {
  const value = type.read(cursor.bytes(type.sizeBytes, key), 0);
  return type.name === 'bool' ? asFlag(cursor, key, value) : value;
}

function asFlag(cursor: FileCursor, key: string, value: GgufScalar): boolean {
  if (value !== 0 && value !== 1) throw cursor.error(key, 'a bool of 0 or 1', value);
  return value === 1;
}

function readList(cursor: FileCursor, key: string, budget: EntryBudget): GgufValue {
  const start = cursor.position;
  const typeNumber = cursor.u32(`entry type of ${key}`);
  const count = cursor.u64(`length of ${key}`);
  if (typeNumber === ARRAY) throw cursor.error(key, 'a list of plain values', 'a list of lists', start);
  const type = TYPES.get(typeNumber);
  if (type === undefined && typeNumber !== STRING) {
    throw cursor.error(key, 'an entry type from 0 to 12', typeNumber, start);
  }
  // A string takes at least the 8 bytes of its length.
  const entryBytes = type?.sizeBytes ?? 8;
  if (count > cursor.remainingBytes / entryBytes) {
    throw cursor.error(
      key,
      `a list that fits into the ${cursor.remainingBytes} bytes left`,
      `${count} entries`,
      start,
    );
  }
  if (type?.list !== undefined) return type.list(cursor.bytes(count * type.sizeBytes, key));
  budget.left -= count;
  if (budget.left < 0)
    throw cursor.error(key, 'fewer entries in the lists of the header', `${count} more`, start);
  if (type !== undefined) return Array.from({ length: count }, () => readScalar(cursor, key, type));
  const textStart = cursor.position;
  for (let i = 0; i < count; i++) cursor.skipText(key, MAX_TEXT_BYTES);
  return new TextList(count, cursor.passedBytes(textStart));
}
