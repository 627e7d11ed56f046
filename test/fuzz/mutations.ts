/**
 * Ways to damage a file, for the fuzz tests of this folder: as fast-check arbitraries, so that a failure shrinks to the
 * smallest damage that shows it. No test lives here.
 */
import fc from 'fast-check';

type Damage = (bytes: Buffer) => Buffer;

const place = fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true });
const at = (fraction: number, bytes: Buffer, room: number) =>
  Math.floor(fraction * Math.max(1, bytes.length - room));

/** Numbers at which lengths, counts and offsets go wrong. */
const edgeNumbers = fc.oneof(
  fc.constantFrom(
    0n,
    1n,
    2n,
    31n,
    33n,
    255n,
    2n ** 16n,
    2n ** 31n - 1n,
    2n ** 31n,
    2n ** 32n - 1n,
    2n ** 32n,
  ),
  fc.constantFrom(2n ** 40n, 2n ** 53n, 2n ** 61n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n),
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  fc.bigInt({ min: 0n, max: 4096n }),
);

const flipByte = fc.tuple(place, fc.integer({ min: 1, max: 255 })).map(
  ([where, mask]): Damage =>
    (bytes) => {
      const offset = at(where, bytes, 1);
      if (bytes.length > 0) bytes.writeUInt8(bytes.readUInt8(offset) ^ mask, offset);
      return bytes;
    },
);

const writeNumber = fc.tuple(place, edgeNumbers, fc.constantFrom(4, 8)).map(
  ([where, value, size]): Damage =>
    (bytes) => {
      if (bytes.length < size) return bytes;
      const offset = at(where, bytes, size);
      if (size === 8) bytes.writeBigUInt64LE(value, offset);
      else bytes.writeUInt32LE(Number(value & 0xffffffffn), offset);
      return bytes;
    },
);

const cut = place.map(
  (where): Damage =>
    (bytes) =>
      bytes.subarray(0, at(where, bytes, 0)),
);

const insert = fc.tuple(place, fc.uint8Array({ minLength: 1, maxLength: 16 })).map(
  ([where, extra]): Damage =>
    (bytes) => {
      const offset = at(where, bytes, 0);
      return Buffer.concat([bytes.subarray(0, offset), extra, bytes.subarray(offset)]);
    },
);

const remove = fc.tuple(place, fc.integer({ min: 1, max: 16 })).map(
  ([where, count]): Damage =>
    (bytes) => {
      const offset = at(where, bytes, 0);
      return Buffer.concat([bytes.subarray(0, offset), bytes.subarray(offset + count)]);
    },
);

const copy = fc.tuple(place, place, fc.integer({ min: 1, max: 64 })).map(
  ([from, to, count]): Damage =>
    (bytes) => {
      bytes.copy(bytes, at(to, bytes, 0), at(from, bytes, 0), at(from, bytes, 0) + count);
      return bytes;
    },
);

/** One to four kinds of damage to a copy of the first `limit` bytes (the rest stays as it is). */
export function damaged(original: Buffer, limit: number): fc.Arbitrary<Buffer> {
  const one = fc.oneof(flipByte, writeNumber, writeNumber, cut, insert, remove, copy);
  return fc.array(one, { minLength: 1, maxLength: 4 }).map((damages) => {
    let head = Buffer.from(original.subarray(0, limit));
    for (const damage of damages) head = Buffer.from(damage(head));
    return Buffer.concat([head, original.subarray(limit)]);
  });
}

/** A JSON value with one of its parts, at any depth, replaced, removed or doubled. */
export function damagedJson(original: unknown): fc.Arbitrary<unknown> {
  const value = fc.oneof(
    fc.jsonValue({ maxDepth: 2 }),
    fc.constantFrom(-1, 0, 0.5, 1e300, 2 ** 31, 2 ** 53, '', 'x', null, [], {}, [[]], true),
  );
  return fc
    .tuple(fc.array(fc.nat({ max: 1000 }), { minLength: 1, maxLength: 6 }), value, fc.nat({ max: 3 }))
    .map(([path, replacement, kind]) => {
      const copy = structuredClone(original);
      changeAt(copy, path, replacement, kind);
      return copy;
    });
}

function changeAt(node: unknown, path: number[], replacement: unknown, kind: number): void {
  if (typeof node !== 'object' || node === null) return;
  const container = node as Record<string, unknown>;
  const keys = Object.keys(container);
  const key = keys[(path[0] ?? 0) % Math.max(1, keys.length)];
  if (key === undefined) return;
  const child = container[key];
  const isLeaf = typeof child !== 'object' || child === null || path.length === 1;
  if (!isLeaf) changeAt(child, path.slice(1), replacement, kind);
  else if (kind === 0) delete container[key];
  else if (kind === 1) container[`${key}_2`] = child;
  else container[key] = replacement;
}
