/**
 * Models without a file: a published shape with made-up weights, named `synthetic:SHAPE:FORMAT`
 * ("synthetic:olmoe-1b-7b:q4_0"). For benchmarks: bytes and arithmetic are those of the real model, its text is noise.
 * Called by open-model.ts. The values themselves are made by the device while it loads.
 */
import { OptionError } from '../errors.js';
import { ChatTemplate } from './chat-template.js';
import { ConfigReader } from './config.js';
import { type DTypeName, dtypeTraits, storedBytes } from './dtypes.js';
import { familyOf } from './families/registry.js';
import type { ModelSpec, WeightSource } from './model-spec.js';
import type { OpenedModel } from './opened-model.js';
import { mixedFormat } from './quantize-weights.js';
import { SYNTHETIC_SHAPES } from './synthetic-shapes.js';
import { TensorIndex, type TensorInfo } from './tensor-index.js';
import { Tokenizer } from './tokenizer.js';
import { neededWeights } from './weights.js';

const PREFIX = 'synthetic:';

/** Formats a synthetic model can be asked for; q4_k_m mixes formats as the usual quantiser does. */
export const SYNTHETIC_FORMATS = ['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'q4_k_m', 'mxfp4'] as const;
export type SyntheticFormat = (typeof SYNTHETIC_FORMATS)[number];

export function isSynthetic(path: string): boolean {
  return path.startsWith(PREFIX);
}

/** Throws OptionError for an unknown shape or format. */
export function openSynthetic(path: string): OpenedModel {
  const [shape = '', format = 'q4_0'] = path.slice(PREFIX.length).toLowerCase().split(':');
  const config = Object.entries(SYNTHETIC_SHAPES).find(([name]) => name === shape)?.[1];
  if (config === undefined) {
    throw new OptionError('synthetic', `one of ${Object.keys(SYNTHETIC_SHAPES).join(', ')}`, shape);
  }
  const known = SYNTHETIC_FORMATS.find((name) => name === format);
  if (known === undefined) throw new OptionError('quant', `one of ${SYNTHETIC_FORMATS.join(', ')}`, format);
  const reader = new ConfigReader(config, path);
  const spec = familyOf(reader).readSpec(reader);
  const weights = listWeights(spec);
  const { tensors, sizeBytes } = layOut(weights, spec, known);
  const tokenizer = numberTokenizer(spec.vocabSize);
  return {
    path,
    source: 'synthetic',
    spec,
    weights,
    tensors: new TensorIndex([`${PREFIX}${sizeBytes}`], tensors),
    tokenizer,
    chatTemplate: new ChatTemplate({}, {}),
    generation: { eosTokenIds: [], sampling: { temperature: 0 } },
  };
}

/** Every weight the spec needs, each its own tensor. */
function listWeights(spec: ModelSpec): WeightSource[] {
  return Array.from(neededWeights(spec), (weight) => {
    const { role, layer, expert, head = -1 } = weight;
    const tensor = `${role}.${layer}.${Math.max(expert, head)}`;
    // A rate that is not negative would let states grow without end.
    return {
      ...weight,
      tensor,
      firstRow: 0,
      ...(role === 'deltaDecayRate' && { transform: 'negative-exp' }),
    };
  });
}

function layOut(weights: readonly WeightSource[], spec: ModelSpec, format: SyntheticFormat) {
  let sizeBytes = 0;
  const tensors = weights.map((weight): TensorInfo => {
    const dtype = dtypeOf(weight, spec, format);
    const bytes = storedBytes(dtype, weight.rows, weight.cols);
    if (bytes === undefined) {
      throw new OptionError('quant', `a format whose blocks fit ${weight.cols} columns`, format);
    }
    const offsetBytes = sizeBytes;
    sizeBytes += Math.ceil(bytes / 64) * 64;
    const shape = [weight.rows, weight.cols];
    return { name: weight.tensor, dtype, shape, file: 0, offsetBytes, sizeBytes: bytes };
  });
  return { tensors, sizeBytes };
}

/** As the usual GGUF quantiser chooses; rows that fill no whole blocks of the format are kept in q8_0. */
function dtypeOf(weight: WeightSource, spec: ModelSpec, format: SyntheticFormat): DTypeName {
  const wanted = wantedDtype(weight, spec, format);
  return weight.cols % dtypeTraits(wanted).blockCols === 0 ? wanted : 'q8_0';
}

/** Vectors and routers stay float, the head is kept finer. */
function wantedDtype(weight: WeightSource, spec: ModelSpec, format: SyntheticFormat): DTypeName {
  const { role, rows } = weight;
  if (format === 'f32' || format === 'f16' || format === 'bf16') return rows === 1 ? 'f32' : format;
  if (rows === 1 || role === 'router' || role === 'convKernel') return 'f32';
  if (format === 'q8_0') return 'q8_0';
  if (role === 'lmHead') return 'q6_k';
  if (format === 'q4_0') return 'q4_0';
  const isExpert = role === 'expertGate' || role === 'expertUp' || role === 'expertDown';
  if (format === 'mxfp4') return isExpert ? 'mxfp4' : 'q8_0';
  return mixedFormat(role, weight.layer, spec.layers.length);
}

/** Token n is the text "n ". */
function numberTokenizer(vocabSize: number): Tokenizer {
  const vocab: Record<string, number> = {};
  for (let id = 0; id < vocabSize; id++) vocab[`${id} `] = id;
  return new Tokenizer({ model: { type: 'BPE', vocab, merges: [] } }, {}, 'synthetic');
}
