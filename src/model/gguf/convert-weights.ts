/**
 * The weights of an opened model as tensors of a GGUF file: names, shapes, formats, and the values in pieces, read from
 * the checkpoint when they are written. Called by convert.ts.
 */
import { ModelFormatError } from '../../errors.js';
import { QUANTIZE_FORMATS } from '../../options/quantize-formats.js';
import type { DTypeName } from '../dtypes.js';
import type { ModelSpec, WeightSource } from '../model-spec.js';
import type { OpenedModel } from '../opened-model.js';
import { isMatrix, matrixFormat } from '../quantize-weights.js';
import { headsOf } from '../recurrent-weights.js';
import type { WeightName, WeightNames } from '../weight-names.js';
import type { GgufFamily } from './family.js';
import { GGUF_NAMES, LATENT_NAMES } from './names.js';
import type { ValueReader } from './value-reader.js';
import { WeightOrders } from './weight-orders.js';
import type { OutputTensor } from './writer.js';

/** Formats of the matrices in a converted file; 'keep' leaves each as it is. */
export const CONVERT_FORMATS = ['keep', 'f32', 'f16', 'bf16', ...QUANTIZE_FORMATS] as const;
export type ConvertFormat = (typeof CONVERT_FORMATS)[number];

/** What a tensor is made of: all experts of a layer's matrix, or all heads of one, or the weight alone. */
type Member = { name: WeightName; group: readonly WeightSource[] };

/** The tensors of the file: of one weight each, or of the weights that its family's files keep in one. */
export function weightTensors(
  { path, spec, weights }: OpenedModel,
  values: ValueReader,
  family: Pick<GgufFamily, 'ropeStyle' | 'names' | 'layerNames' | 'valueHeadOrder'>,
  dtype: ConvertFormat,
): OutputTensor[] {
  const reorders = family.ropeStyle !== spec.ropes[0]?.style;
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
  const orders = new WeightOrders(spec, reorders, family.valueHeadOrder);
  return [...membersByName(spec, weights, family)].map(([name, members]) => {
    const [first, ...others] = members as [Member];
    const isAlone = others.length === 0 && typeof first.name === 'string';
    const output = isAlone
      ? weightTensor(spec, first.group, values, orders, dtype)
      : joinedTensor(spec, members, values, orders, dtype);
    return { ...output, name };
  });
}

function membersByName(
  spec: ModelSpec,
  weights: readonly WeightSource[],
  { names, layerNames }: Pick<GgufFamily, 'names' | 'layerNames'>,
): Map<string, Member[]> {
  const groups = new Map<string, WeightSource[]>();
  for (const weight of weights) {
    const key = `${weight.role} ${weight.layer}`;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [weight]);
    else group.push(weight);
  }
  const allNames = writtenNames(spec, names);
  const tensors = new Map<string, Member[]>();
  for (const group of groups.values()) {
    const [{ role, layer }] = group as [WeightSource];
    const layerSpec = spec.layers[layer];
    const own = layerSpec && layerNames?.(layerSpec)[role];
    const name = (own ?? allNames[role])?.[0] ?? role;
    const template = typeof name === 'string' ? name : name.tensor;
    const tensorName = template.replace('{layer}', `${layer}`);
    tensors.set(tensorName, [...(tensors.get(tensorName) ?? []), { name, group }]);
  }
  return tensors;
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
  orders: WeightOrders,
  wanted: ConvertFormat,
): Omit<OutputTensor, 'name'> {
  const [first] = group;
  if (first === undefined) throw new RangeError('an empty group of weights');
  const { role, rows, cols } = first;
  const dtype = outputDtype(spec, first, wanted, values.dtypeOf(first));
  // At a stride, a vector's values are rows of one column.
  const isVector = (rows === 1 && role !== 'router') || cols === 1;
  const matrix = isVector ? [rows * cols] : [rows, cols];
  const order = orders.of(first);
  const isChanged = isVector && (order.row !== undefined || first.transform !== undefined);
  return {
    dtype,
    shape: first.expert >= 0 || first.head !== undefined ? [group.length, ...matrix] : matrix,
    *pieces() {
      if (isChanged) yield changedVector(values, first, order.row);
      else for (const source of group) yield* values.pieces(source, dtype, order);
    },
  };
}

/** Weights in one tensor: behind one another for each expert, or each head's rows of all of them together. */
function joinedTensor(
  spec: ModelSpec,
  members: readonly Member[],
  values: ValueReader,
  orders: WeightOrders,
  wanted: ConvertFormat,
): Omit<OutputTensor, 'name'> {
  const placed = [...members].sort((one, other) => placeIn(one) - placeIn(other));
  const sources = placed.map(({ group }) => group);
  const [first] = sources[0] ?? [];
  if (first === undefined) throw new RangeError('a tensor of no weights');
  const dtype = outputDtype(spec, first, wanted, values.dtypeOf(first));
  const { name } = placed[0] as Member;
  const heads =
    typeof name !== 'string' && 'byHead' in name && name.byHead ? headsOf(spec.layers[first.layer]) : 1;
  const rows = sources.reduce((sum, [source]) => sum + (source?.rows ?? 0), 0);
  const count = sources[0]?.length ?? 0;
  return {
    dtype,
    shape: first.expert >= 0 ? [count, rows, first.cols] : [rows, first.cols],
    *pieces() {
      for (let block = 0; block < count; block++)
        for (let head = 0; head < heads; head++)
          for (const group of sources) {
            const source = group[block] as WeightSource;
            const own = source.rows / heads;
            yield* values.pieces(source, dtype, orders.of(source), head * own, (head + 1) * own);
          }
    },
  };
}

/** Where a weight lies among those of its tensor. */
function placeIn({ name, group }: Member): number {
  if (typeof name === 'string') return 0;
  if ('parts' in name) return name.part;
  return 'holds' in name ? name.holds.indexOf((group[0] as WeightSource).role) : 0;
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

/** A vector in float32, its values in their places and as files have them. */
function changedVector(
  values: ValueReader,
  source: WeightSource,
  order: (place: number) => number = (place) => place,
): Uint8Array {
  const bytes = Buffer.concat([...values.pieces(source, 'f32')]);
  const stored = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  const changed = stored.map((_, place) => {
    const value = stored[order(place)] ?? Number.NaN;
    if (source.transform === 'plus-one') return value + 1;
    return source.transform === 'negative-exp' ? -Math.exp(value) : value;
  });
  return new Uint8Array(changed.buffer);
}
