/**
 * Which format each matrix gets when a model is quantised, at load (`quantize`) or into a file (`convert`): vectors and
 * routers stay as they are, the output matrix stays finer than the rest, and what does not fit takes the next format
 * that does. Called by open-model.ts and gguf/convert-weights.ts. Converts no values.
 */
import { OptionError } from '../errors.js';
import type { QuantizeFormat } from '../options/quantize-formats.js';
import { type DTypeName, dtypeTraits } from './dtypes.js';
import type { ModelSpec, WeightRole, WeightSource } from './model-spec.js';
import type { OpenedModel } from './opened-model.js';
import type { TensorIndex } from './tensor-index.js';

/** Packed matrices may end at any of these columns, also inside a superblock; files hold whole blocks only. */
const PACKED_COLS = 32;
/** Formats of 4 and 5 bits: the output matrix, which every token's choice hangs on, is kept in 6 or 8. */
const NARROW: ReadonlySet<DTypeName> = new Set([
  'q4_0',
  'q4_1',
  'q5_0',
  'q5_1',
  'q4_k',
  'q5_k',
  'iq4_nl',
  'mxfp4',
]);

const FINE_ROLES: ReadonlySet<WeightRole> = new Set(['value', 'expertDown', 'down', 'sharedDown']);

/** Vectors, routers and convolutions are small, and what they say is multiplied through: they are never quantised. */
export function isMatrix({ role, rows }: Pick<WeightSource, 'role' | 'rows'>): boolean {
  return rows > 1 && role !== 'router' && role !== 'convKernel' && !role.endsWith('Bias');
}

/** Format of a matrix where `wanted` was asked for; undefined where its rows fill blocks of none. */
export function matrixFormat(
  weight: Pick<WeightSource, 'role' | 'cols' | 'layer'>,
  { tiedEmbeddings, layers }: Pick<ModelSpec, 'tiedEmbeddings' | 'layers'>,
  wanted: DTypeName | 'q4_k_m',
  place: 'packed' | 'file',
): DTypeName | undefined {
  const { role, cols, layer } = weight;
  const base = wanted === 'q4_k_m' ? mixedFormat(role, layer, layers.length) : wanted;
  const isOutput = role === 'lmHead' || (role === 'embedding' && tiedEmbeddings);
  const first = isOutput && NARROW.has(base) ? 'q6_k' : base;
  const fits = (dtype: DTypeName) => {
    const { blockCols } = dtypeTraits(dtype);
    return cols % (place === 'packed' ? Math.min(blockCols, PACKED_COLS) : blockCols) === 0;
  };
  return [first, 'q8_0' as const].find(fits);
}

/**
 * The mixture called q4_k_m: values and down projections have 6 bits in the first and last eighth of the layers and in
 * every third between, all else 4.
 */
export function mixedFormat(role: WeightRole, layer: number, layers: number): 'q4_k' | 'q6_k' {
  const eighth = Math.floor(layers / 8);
  const isFineLayer = layer < eighth || layer >= Math.floor((7 * layers) / 8) || (layer - eighth) % 3 === 2;
  return isFineLayer && FINE_ROLES.has(role) ? 'q6_k' : 'q4_k';
}

/** Format in which memory holds a weight. */
export function heldDtype(weight: WeightSource, tensors: TensorIndex): DTypeName {
  if (weight.quantised !== undefined) return weight.quantised;
  const tensor = tensors.get(weight.tensor);
  if (tensor === undefined) throw new RangeError(`no tensor ${weight.tensor}`);
  return tensor.dtype;
}

/** The model with its matrices quantised on their way into memory. Throws OptionError where one is already. */
export function quantizeWeights(model: OpenedModel, wanted: QuantizeFormat): OpenedModel {
  const { spec, tensors } = model;
  const weights = model.weights.map((weight): WeightSource => {
    const dtype = heldDtype(weight, tensors);
    if (dtypeTraits(dtype).blockCols > 1) {
      throw new OptionError('quantize', 'absent where the weights are quantised already', wanted, {
        hint: `${weight.tensor} is stored as ${dtype}. Load the float checkpoint, or leave out \`quantize\`.`,
      });
    }
    const quantised = isMatrix(weight) ? matrixFormat(weight, spec, wanted, 'packed') : undefined;
    return quantised === undefined ? weight : { ...weight, quantised };
  });
  return { ...model, weights };
}
