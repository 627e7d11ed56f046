/**
 * The weights of an opened model as tensors of a GGUF file: names, shapes, formats, and the values in pieces, read from
 * the checkpoint when they are written. Called by convert.ts.
 */
import { ModelFormatError } from '../../errors.js';
import { QUANTIZE_FORMATS } from '../../options/quantize-formats.js';
import { type DTypeName, dtypeTraits } from '../dtypes.js';
import type { ModelSpec, WeightSource } from '../model-spec.js';
import type { OpenedModel } from '../opened-model.js';
import { isMatrix, matrixFormat } from '../quantize-weights.js';
import type { WeightNames } from '../weight-names.js';
import type { GgufFamily } from './family.js';
import { GGUF_NAMES, LATENT_NAMES } from './names.js';
import type { ValueReader } from './value-reader.js';
import type { OutputTensor } from './writer.js';

/** Formats of the matrices in a converted file; 'keep' leaves each as it is. */
export const CONVERT_FORMATS = ['keep', 'f32', 'f16', 'bf16', ...QUANTIZE_FORMATS] as const;
export type ConvertFormat = (typeof CONVERT_FORMATS)[number];

/** One tensor for each weight of the model, all experts of a layer's matrix in one, and all heads of one. */
export function weightTensors(
  { path, spec, weights }: OpenedModel,
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
  const latent = spec.layers[0]?.attention.latent;
  if (reorders && latent !== undefined) {
    throw new ModelFormatError({
      code: 'ERR_MODEL_UNSUPPORTED',
      file: path,
      field: 'rope_interleave',
      expected: 'true with latent attention: GGUF knows no other order',
      got: 'false',
    });
  }
  const allNames = writtenNames(spec, names);
  return [...groups.values()].map((group) => {
    const output = weightTensor(spec, group, values, reorders, dtype);
    const [{ role, layer }] = group as [WeightSource];
    return { ...output, name: String(allNames[role]?.[0] ?? role).replace('{layer}', `${layer}`) };
  });
}

/** The first name of each role is the one that files of the family have today; `names` are the family's own. */
export function writtenNames(spec: ModelSpec, names: WeightNames | undefined): WeightNames {
  const latent = spec.layers[0]?.attention.latent;
  const { query, ...others } = latent === undefined ? {} : LATENT_NAMES;
  return { ...GGUF_NAMES, ...names, ...others, ...(latent?.queryRank && query ? { query } : {}) };
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
  // At a stride, a vector's values are rows of one column.
  const isVector = (rows === 1 && role !== 'router') || cols === 1;
  const matrix = isVector ? [rows * cols] : [rows, cols];
  const order = interleaved ? rowOrder(spec, first) : undefined;
  return {
    dtype,
    shape: first.expert >= 0 || first.head !== undefined ? [group.length, ...matrix] : matrix,
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
