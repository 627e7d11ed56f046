/**
 * The weights of an opened model as tensors of a GGUF file: names, shapes, formats, and the values in pieces, read from
 * the checkpoint when they are written. Called by convert.ts.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { binding } from '../../binding.js';
import { ModelFormatError } from '../../errors.js';
import { QUANTIZE_FORMATS } from '../../options/quantize-formats.js';
import { type DTypeName, dtypeNumber, dtypeTraits, storedBytes } from '../dtypes.js';
import type { ModelSpec, WeightSource } from '../model-spec.js';
import type { OpenedModel } from '../opened-model.js';
import { isMatrix, matrixFormat } from '../quantize-weights.js';
import type { TensorIndex } from '../tensor-index.js';
import type { GgufFamily } from './family.js';
import { GGUF_NAMES } from './names.js';
import type { OutputTensor } from './writer.js';

/** Values that are decoded and encoded in one piece. */
const PIECE_VALUES = 1 << 21;

/** Formats of the matrices in a converted file; 'keep' leaves each as it is. */
export const CONVERT_FORMATS = ['keep', 'f32', 'f16', 'bf16', ...QUANTIZE_FORMATS] as const;
export type ConvertFormat = (typeof CONVERT_FORMATS)[number];

/** Reads rows of a checkpoint's tensors, in their own format or another. */
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

  /** Rows of a weight in the order of `rowOrder` (by default their own), as `dtype`, piece by piece. */
  *pieces(source: WeightSource, dtype: DTypeName, rowOrder?: (row: number) => number): Iterable<Uint8Array> {
    const { rows, cols } = source;
    const step = rowOrder === undefined ? Math.max(1, Math.floor(PIECE_VALUES / cols)) : 1;
    for (let row = 0; row < rows; row += step) {
      const count = Math.min(step, rows - row);
      yield this.#rows(source, rowOrder?.(row) ?? row, count, dtype);
    }
  }

  close(): void {
    for (const handle of this.#handles.values()) closeSync(handle);
    this.#handles.clear();
  }

  #rows(source: WeightSource, row: number, count: number, dtype: DTypeName): Uint8Array {
    const tensor = this.#tensor(source);
    const rowBytes = storedBytes(tensor.dtype, 1, source.cols) ?? 0;
    const bytes = Buffer.alloc(count * rowBytes);
    const offset = tensor.offsetBytes + (source.firstRow + row) * rowBytes;
    const path = this.#tensors.pathOf(tensor);
    const read = readSync(this.#handle(path), bytes, 0, bytes.length, offset);
    if (read !== bytes.length) {
      throw new ModelFormatError({
        file: path,
        field: tensor.name,
        expected: `${bytes.length} bytes`,
        got: `${read}`,
        offset,
      });
    }
    if (tensor.dtype === dtype) return bytes;
    try {
      const [from, to] = [dtypeNumber(tensor.dtype), dtypeNumber(dtype)];
      return binding().convertRows(from, bytes, to, count, source.cols, this.#threads);
    } catch (cause) {
      if ((cause as { code?: unknown }).code !== 'ERR_WEIGHT_VALUE') throw cause;
      throw new ModelFormatError({
        code: 'ERR_WEIGHT_VALUE',
        file: path,
        field: tensor.name,
        expected: `values that ${dtype} can hold`,
        got: (cause as Error).message,
        offset,
        cause,
      });
    }
  }

  #tensor({ tensor: name }: WeightSource) {
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

/** One tensor for each weight of the model, all experts of a layer's matrix in one. */
export function weightTensors(
  { spec, weights }: OpenedModel,
  values: ValueReader,
  { ropeStyle, names }: Pick<GgufFamily, 'ropeStyle' | 'names'>,
  dtype: ConvertFormat,
): OutputTensor[] {
  const groups = new Map<string, WeightSource[]>();
  for (const weight of weights) {
    const key = `${weight.role} ${weight.layer}`;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [weight]);
    else group.push(weight);
  }
  const reorders = ropeStyle !== spec.ropes[0]?.style;
  const allNames = { ...GGUF_NAMES, ...names };
  return [...groups.values()].map((group) => {
    const output = weightTensor(spec, group, values, reorders, dtype);
    const [{ role, layer }] = group as [WeightSource];
    return { ...output, name: String(allNames[role]?.[0] ?? role).replace('{layer}', `${layer}`) };
  });
}

function weightTensor(
  spec: ModelSpec,
  group: readonly WeightSource[],
  values: ValueReader,
  interleaved: boolean,
  wanted: ConvertFormat,
): Omit<OutputTensor, 'name'> {
  const [first] = group;
  if (first === undefined) throw new RangeError('an empty group of weights');
  const { role, rows, cols } = first;
  const dtype = outputDtype(spec, first, wanted, values.dtypeOf(first));
  const isVector = rows === 1 && role !== 'router';
  const matrix = isVector ? [cols] : [rows, cols];
  const order = interleaved ? rowOrder(spec, first) : undefined;
  return {
    dtype,
    shape: first.expert >= 0 ? [group.length, ...matrix] : matrix,
    *pieces() {
      if (order !== undefined && isVector) yield reorderedVector(values, first, dtype, order);
      else for (const source of group) yield* values.pieces(source, dtype, order);
    },
  };
}

/** Vectors and routers stay exact; matrices whose rows are no whole blocks of any format become f16. */
function outputDtype(
  spec: ModelSpec,
  weight: WeightSource,
  wanted: ConvertFormat,
  stored: DTypeName,
): DTypeName {
  if (!isMatrix(weight)) return 'f32';
  return wanted === 'keep' ? stored : (matrixFormat(weight, spec, wanted, 'file') ?? 'f16');
}

/** Row of the checkpoint that comes at each place where the two halves of a head are to alternate. */
function rowOrder(spec: ModelSpec, { role, layer }: WeightSource): ((row: number) => number) | undefined {
  if (!['query', 'key', 'queryBias', 'keyBias'].includes(role)) return undefined;
  const headDim = spec.layers[layer]?.attention.headDim ?? 0;
  const half = headDim / 2;
  return (row) => {
    const [head, place] = [Math.floor(row / headDim), row % headDim];
    return head * headDim + (place % 2) * half + Math.floor(place / 2);
  };
}

function reorderedVector(
  values: ValueReader,
  source: WeightSource,
  dtype: DTypeName,
  order: (row: number) => number,
): Uint8Array {
  const bytes = Buffer.concat([...values.pieces(source, dtype)]);
  const size = dtypeTraits(dtype).blockBytes;
  const out = new Uint8Array(bytes.length);
  for (let i = 0; i < source.cols; i++)
    out.set(bytes.subarray(order(i) * size, (order(i) + 1) * size), i * size);
  return out;
}
