/**
 * Reads rows of a Hub checkpoint's weights in their own format or another, in whichever of the ways they are stored:
 * plain rows, every n-th row, transposed, or codes with scales. Called by convert-weights.ts. Arithmetic is native.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { binding, type NativeScales } from '../../binding.js';
import { ModelFormatError } from '../../errors.js';
import { type DTypeName, dtypeNumber, storedBytes } from '../dtypes.js';
import type { WeightSource } from '../model-spec.js';
import { ENCODINGS, type TensorIndex, type TensorInfo } from '../tensor-index.js';

/** Values that are decoded and encoded in one piece. */
const PIECE_VALUES = 1 << 21;
/** Values that share a scale. */
const MXFP4_BLOCK = 32;
const FP8_BLOCK = 128;

/** Consecutive rows of a tensor, or every `stride`-th. */
type Rows = { first: number; count: number; stride: number; cols: number };

/** Which row or column of the checkpoint comes at each place; their own without it. */
export type ValueOrder = { row?: (row: number) => number; col?: (col: number) => number };

export class ValueReader {
  readonly #tensors: TensorIndex;
  readonly #threads: number;
  readonly #handles = new Map<string, number>();

  /** `threads` share the rows of a piece that is converted. */
  constructor(tensors: TensorIndex, threads: number) {
    this.#tensors = tensors;
    this.#threads = threads;
  }

  dtypeOf(source: WeightSource): DTypeName {
    return this.#tensor(source).dtype;
  }

  /**
   * Rows [begin, end) of a weight in the given order (by default their own), as `dtype`, piece by piece. Throws
   * ModelFormatError, with ERR_WEIGHT_VALUE for values that `dtype` cannot hold.
   */
  *pieces(
    source: WeightSource,
    dtype: DTypeName,
    order: ValueOrder = {},
    begin = 0,
    end = source.rows,
  ): Iterable<Uint8Array> {
    const { cols, rowStride = 1, rowBlock } = source;
    const tensor = this.#tensor(source);
    if (source.transposed) {
      yield this.#transposed(tensor, source, dtype);
      return;
    }
    const at = (row: number) => placeOf(source, order.row?.(row) ?? row);
    const stride = rowBlock === undefined ? rowStride : 1;
    const most = Math.max(1, Math.floor(PIECE_VALUES / cols));
    for (let row = begin, count = 0; row < end; row += count) {
      const first = at(row);
      for (count = 1; row + count < end && count < most; count++)
        if (at(row + count) !== first + count * stride) break;
      const rows = { first, count, stride, cols };
      if (order.col === undefined) yield this.#rows(tensor, rows, dtype);
      else yield this.#reordered(tensor, rows, dtype, order.col);
    }
  }

  /** Columns in another order, at the full width of their values. */
  #reordered(tensor: TensorInfo, rows: Rows, dtype: DTypeName, col: (col: number) => number): Uint8Array {
    const stored = this.#rows(tensor, rows, 'f32');
    const values = new Float32Array(stored.buffer, stored.byteOffset, rows.count * rows.cols);
    const placed = new Float32Array(values.length);
    for (let i = 0; i < placed.length; i++) {
      const column = i % rows.cols;
      placed[i] = values[i - column + col(column)] ?? Number.NaN;
    }
    const bytes = new Uint8Array(placed.buffer);
    return dtype === 'f32' ? bytes : this.#convert(tensor, 'f32', bytes, dtype, rows);
  }

  close(): void {
    for (const handle of this.#handles.values()) closeSync(handle);
    this.#handles.clear();
  }

  /** A matrix of which the tensor has the columns as rows. */
  #transposed(tensor: TensorInfo, source: WeightSource, dtype: DTypeName): Uint8Array {
    const { firstRow, rows, cols, firstCol = 0, width = rows } = source;
    const stored = this.#rows(tensor, { first: firstRow, count: cols, stride: 1, cols: width }, 'f32');
    const values = new Float32Array(stored.buffer, stored.byteOffset, width * cols);
    const turned = new Float32Array(rows * cols);
    for (let row = 0; row < rows; row++) {
      for (let col = 0; col < cols; col++)
        turned[row * cols + col] = values[col * width + firstCol + row] ?? Number.NaN;
    }
    const bytes = new Uint8Array(turned.buffer);
    return dtype === 'f32' ? bytes : this.#convert(tensor, 'f32', bytes, dtype, { count: rows, cols });
  }

  #rows(tensor: TensorInfo, rows: Rows, dtype: DTypeName): Uint8Array {
    const { scales, offsetBytes } = tensor;
    const isPlain = scales === undefined;
    const rowBytes = isPlain
      ? (storedBytes(tensor.dtype, 1, rows.cols) ?? 0)
      : scales.encoding === 'mxfp4_split'
        ? rows.cols / 2
        : rows.cols;
    const bytes = this.#read(tensor, this.#tensors.pathOf(tensor), offsetBytes, rowBytes, rows);
    if (isPlain && tensor.dtype === dtype) return bytes;
    return this.#convert(tensor, tensor.dtype, bytes, dtype, rows, this.#scalesOf(tensor, rows));
  }

  #scalesOf(tensor: TensorInfo, rows: Rows): NativeScales | undefined {
    const { scales } = tensor;
    if (scales === undefined) return undefined;
    const path = this.#tensors.files[scales.file] ?? '';
    const encoding = 1 + ENCODINGS.indexOf(scales.encoding);
    if (scales.encoding === 'mxfp4_split') {
      const bytes = this.#read(tensor, path, scales.offsetBytes, rows.cols / MXFP4_BLOCK, rows);
      return { encoding, bytes, firstRow: 0 };
    }
    if (rows.stride !== 1) throw new RangeError(`${tensor.name}: rows of float8 at a stride`);
    const first = Math.floor(rows.first / FP8_BLOCK);
    const count = Math.ceil((rows.first + rows.count) / FP8_BLOCK) - first;
    const blocks = { first, count, stride: 1, cols: Math.ceil(rows.cols / FP8_BLOCK) };
    const bytes = this.#read(tensor, path, scales.offsetBytes, blocks.cols * 4, blocks);
    return { encoding, bytes, firstRow: rows.first % FP8_BLOCK };
  }

  /** The rows' bytes one behind the other; `offset`: where row 0 of the tensor lies. */
  #read(
    { name }: TensorInfo,
    path: string,
    offset: number,
    rowBytes: number,
    { first, count, stride }: Rows,
  ): Uint8Array {
    const bytes = Buffer.alloc(((count - 1) * stride + 1) * rowBytes);
    const at = offset + first * rowBytes;
    const read = readSync(this.#handle(path), bytes, 0, bytes.length, at);
    if (read !== bytes.length) {
      const [expected, got] = [`${bytes.length} bytes`, `${read}`];
      throw new ModelFormatError({ file: path, field: name, expected, got, offset: at });
    }
    for (let row = 1; stride > 1 && row < count; row++) {
      bytes.copyWithin(row * rowBytes, row * stride * rowBytes, (row * stride + 1) * rowBytes);
    }
    return bytes.subarray(0, count * rowBytes);
  }

  #convert(
    tensor: TensorInfo,
    from: DTypeName,
    bytes: Uint8Array,
    dtype: DTypeName,
    { count, cols }: Pick<Rows, 'count' | 'cols'>,
    scales?: NativeScales,
  ): Uint8Array {
    try {
      const [source, target] = [dtypeNumber(from), dtypeNumber(dtype)];
      return binding().convertRows(source, bytes, target, count, cols, this.#threads, scales);
    } catch (cause) {
      if ((cause as { code?: unknown }).code !== 'ERR_WEIGHT_VALUE') throw cause;
      throw new ModelFormatError({
        code: 'ERR_WEIGHT_VALUE',
        file: this.#tensors.pathOf(tensor),
        field: tensor.name,
        expected: `values that ${dtype} can hold`,
        got: (cause as Error).message,
        offset: tensor.offsetBytes,
        cause,
      });
    }
  }

  #tensor({ tensor: name }: WeightSource): TensorInfo {
    const tensor = this.#tensors.get(name);
    if (tensor === undefined) throw new RangeError(`no tensor ${name}`);
    return tensor;
  }

  #handle(path: string): number {
    let handle = this.#handles.get(path);
    if (handle === undefined) {
      handle = openSync(path, 'r');
      this.#handles.set(path, handle);
    }
    return handle;
  }
}

/** Row of the tensor that holds a row of the weight. */
function placeOf({ firstRow, rowStride = 1, rowBlock }: WeightSource, row: number): number {
  if (rowBlock === undefined) return firstRow + row * rowStride;
  return firstRow + Math.floor(row / rowBlock) * rowStride + (row % rowBlock);
}
