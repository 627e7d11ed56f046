/** Builds GGUF files byte by byte for the tests of this folder, right ones and wrong ones. No test lives here. */

const TYPE = {
  u8: 0,
  i8: 1,
  u16: 2,
  i16: 3,
  u32: 4,
  i32: 5,
  f32: 6,
  bool: 7,
  string: 8,
  array: 9,
  u64: 10,
  i64: 11,
  f64: 12,
};
export type GgufType = keyof typeof TYPE;

export class GgufBytes {
  #parts: Buffer[] = [];

  get length(): number {
    return this.#parts.reduce((sum, part) => sum + part.length, 0);
  }

  u8(value: number): this {
    return this.raw(Buffer.of(value));
  }

  u32(value: number): this {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value >>> 0);
    return this.raw(bytes);
  }

  u64(value: bigint | number): this {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(BigInt(value));
    return this.raw(bytes);
  }

  f32(value: number): this {
    const bytes = Buffer.alloc(4);
    bytes.writeFloatLE(value);
    return this.raw(bytes);
  }

  text(value: string | Uint8Array): this {
    const bytes = Buffer.from(value);
    return this.u64(bytes.length).raw(bytes);
  }

  raw(bytes: Uint8Array): this {
    this.#parts.push(Buffer.from(bytes));
    return this;
  }

  pad(alignment: number): this {
    return this.raw(Buffer.alloc((alignment - (this.length % alignment)) % alignment));
  }

  /** Magic, version and counts. */
  head(tensors: bigint | number, keys: bigint | number, version = 3): this {
    return this.raw(Buffer.from('GGUF')).u32(version).u64(tensors).u64(keys);
  }

  type(name: GgufType): this {
    return this.u32(TYPE[name]);
  }

  key(name: string, type: GgufType): this {
    return this.text(name).type(type);
  }

  /** A tensor info; `dims` in the file's order, contiguous first. */
  tensor(name: string, dims: readonly (number | bigint)[], ggmlType: number, offset: number | bigint): this {
    this.text(name).u32(dims.length);
    for (const dim of dims) this.u64(dim);
    return this.u32(ggmlType).u64(offset);
  }

  build(): Buffer {
    return Buffer.concat(this.#parts);
  }
}

export const bytes = () => new GgufBytes();

/** Values by key, as gguf types them: whole numbers u32, others f32. */
export type Metadata = Record<string, number | string | boolean | readonly string[] | readonly number[]>;

/** A whole model file of metadata and tensors without values (zeros). */
export function ggufFile(
  metadata: Metadata,
  tensors: readonly { name: string; shape: readonly number[] }[],
): Buffer {
  const entries = Object.entries(metadata);
  const out = bytes().head(tensors.length, entries.length);
  for (const [key, value] of entries) writeValue(out.text(key), value);
  let offset = 0;
  for (const { name, shape } of tensors) {
    out.tensor(name, [...shape].reverse(), 0, offset);
    offset += Math.ceil((shape.reduce((a, b) => a * b, 1) * 4) / 32) * 32;
  }
  return out.pad(32).raw(Buffer.alloc(offset)).build();
}

function writeValue(out: GgufBytes, value: Metadata[string]): void {
  if (typeof value === 'string') out.type('string').text(value);
  else if (typeof value === 'boolean') out.type('bool').u8(value ? 1 : 0);
  else if (typeof value === 'number') {
    if (Number.isInteger(value)) out.type('u32').u32(value);
    else out.type('f32').f32(value);
  } else if (typeof value[0] === 'string') {
    out.type('array').type('string').u64(value.length);
    for (const text of value as readonly string[]) out.text(text);
  } else {
    out.type('array').type('i32').u64(value.length);
    for (const number of value as readonly number[]) out.u32(number);
  }
}
