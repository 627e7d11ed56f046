/**
 * The weight formats that the kernels know: number at the JS/native wall, block sizes in files, and their names in
 * safetensors and GGUF. Mirrors kernels/dtypes.h (a test compares the order with the addon's list).
 * Does not convert values; that is native work.
 */

export type DTypeTraits = {
  /** Lower-case name as in options and reports. */
  name: string;
  /** Columns of one block as stored in files (1 for float formats). */
  blockCols: number;
  /** Bytes of one block as stored in files. */
  blockBytes: number;
  /** Number of the type in GGUF (ggml_type). */
  ggmlType: number;
  /** Name in safetensors headers, where the format exists there. */
  safetensorsName?: string;
};

/** Order = number at the JS/native wall. */
export const DTYPES = [
  { name: 'f32', blockCols: 1, blockBytes: 4, ggmlType: 0, safetensorsName: 'F32' },
  { name: 'f16', blockCols: 1, blockBytes: 2, ggmlType: 1, safetensorsName: 'F16' },
  { name: 'bf16', blockCols: 1, blockBytes: 2, ggmlType: 30, safetensorsName: 'BF16' },
  { name: 'q8_0', blockCols: 32, blockBytes: 34, ggmlType: 8 },
  { name: 'q4_0', blockCols: 32, blockBytes: 18, ggmlType: 2 },
  { name: 'q4_1', blockCols: 32, blockBytes: 20, ggmlType: 3 },
  { name: 'q5_0', blockCols: 32, blockBytes: 22, ggmlType: 6 },
  { name: 'q5_1', blockCols: 32, blockBytes: 24, ggmlType: 7 },
  { name: 'q2_k', blockCols: 256, blockBytes: 84, ggmlType: 10 },
  { name: 'q3_k', blockCols: 256, blockBytes: 110, ggmlType: 11 },
  { name: 'q4_k', blockCols: 256, blockBytes: 144, ggmlType: 12 },
  { name: 'q5_k', blockCols: 256, blockBytes: 176, ggmlType: 13 },
  { name: 'q6_k', blockCols: 256, blockBytes: 210, ggmlType: 14 },
  { name: 'iq4_nl', blockCols: 32, blockBytes: 18, ggmlType: 20 },
  { name: 'iq4_xs', blockCols: 256, blockBytes: 136, ggmlType: 23 },
  { name: 'mxfp4', blockCols: 32, blockBytes: 17, ggmlType: 39 },
] as const satisfies readonly DTypeTraits[];

export type DTypeName = (typeof DTYPES)[number]['name'];

const BY_NAME = new Map<string, number>(DTYPES.map((traits, number) => [traits.name, number]));

/** Number of a dtype at the JS/native wall. */
export function dtypeNumber(name: DTypeName): number {
  const number = BY_NAME.get(name);
  if (number === undefined) throw new RangeError(`no dtype named ${name}`);
  return number;
}

export function dtypeTraits(name: DTypeName): DTypeTraits {
  return DTYPES[dtypeNumber(name)] as DTypeTraits;
}

/** Bytes that `rows` x `cols` values take in a file; undefined where `cols` is not a whole number of blocks. */
export function storedBytes(name: DTypeName, rows: number, cols: number): number | undefined {
  const { blockCols, blockBytes } = dtypeTraits(name);
  if (cols % blockCols !== 0) return undefined;
  return rows * (cols / blockCols) * blockBytes;
}
