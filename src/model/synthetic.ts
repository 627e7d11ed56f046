/**
 * Models without a file: a published shape with made-up weights, named `synthetic:SHAPE:FORMAT`
 * ("synthetic:olmoe-1b-7b:q4_0"). For benchmarks: bytes and arithmetic are those of the real model, its text is noise.
 * Called by open-model.ts. The values themselves are made by the device while it loads.
 */
import { OptionError } from '../errors.js';
import { ChatTemplate } from './chat-template.js';
import { ConfigReader } from './config.js';
import { type DTypeName, storedBytes } from './dtypes.js';
import { familyOf } from './families/registry.js';
import type { LayerSpec, ModelSpec, WeightRole, WeightSource } from './model-spec.js';
import type { OpenedModel } from './opened-model.js';
import { mixedFormat } from './quantize-weights.js';
import { SYNTHETIC_SHAPES } from './synthetic-shapes.js';
import { TensorIndex, type TensorInfo } from './tensor-index.js';
import { Tokenizer } from './tokenizer.js';

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
  const weights: WeightSource[] = [];
  const { hiddenSize, vocabSize } = spec;
  const add = (role: WeightRole, layer: number, expert: number, rows: number, cols: number) =>
    weights.push({ role, layer, expert, tensor: `${role}.${layer}.${expert}`, firstRow: 0, rows, cols });
  add('embedding', -1, -1, vocabSize, hiddenSize);
  spec.layers.forEach((layer, index) => {
    const addToLayer = (role: WeightRole, rows: number, cols: number, expert = -1) =>
      add(role, index, expert, rows, cols);
    listAttention(layer, hiddenSize, addToLayer);
    listFfn(layer, hiddenSize, addToLayer);
  });
  add('finalNorm', -1, -1, 1, hiddenSize);
  if (!spec.tiedEmbeddings) add('lmHead', -1, -1, vocabSize, hiddenSize);
  return weights;
}

type AddToLayer = (role: WeightRole, rows: number, cols: number, expert?: number) => void;

function listAttention({ attention }: LayerSpec, hiddenSize: number, add: AddToLayer): void {
  const { numHeads, numKvHeads, headDim, qkNorm, qkvBias, outputBias } = attention;
  const queries = numHeads * headDim;
  const keys = numKvHeads * headDim;
  add('attentionNorm', 1, hiddenSize);
  add('query', queries, hiddenSize);
  add('key', keys, hiddenSize);
  add('value', keys, hiddenSize);
  add('output', hiddenSize, queries);
  if (qkNorm !== 'none') {
    add('queryNorm', 1, qkNorm === 'full' ? queries : headDim);
    add('keyNorm', 1, qkNorm === 'full' ? keys : headDim);
  }
  if (qkvBias) {
    add('queryBias', 1, queries);
    add('keyBias', 1, keys);
    add('valueBias', 1, keys);
  }
  if (outputBias) add('outputBias', 1, hiddenSize);
}

function listFfn({ ffn }: LayerSpec, hiddenSize: number, add: AddToLayer): void {
  add('ffnNorm', 1, hiddenSize);
  const addGated = (roles: readonly [WeightRole, WeightRole, WeightRole], size: number, expert?: number) => {
    add(roles[0], size, hiddenSize, expert);
    add(roles[1], size, hiddenSize, expert);
    add(roles[2], hiddenSize, size, expert);
  };
  if (ffn.kind === 'dense') {
    addGated(['gate', 'up', 'down'], ffn.intermediateSize);
    return;
  }
  add('router', ffn.numExperts, hiddenSize);
  for (let expert = 0; expert < ffn.numExperts; expert++) {
    addGated(['expertGate', 'expertUp', 'expertDown'], ffn.intermediateSize, expert);
  }
  if (ffn.sharedExpert === undefined) return;
  addGated(['sharedGate', 'sharedUp', 'sharedDown'], ffn.sharedExpert.intermediateSize);
  if (ffn.sharedExpert.gate === 'sigmoid') add('sharedExpertGate', 1, hiddenSize);
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

/** As the usual GGUF quantiser chooses: vectors and routers stay float, the head is kept finer. */
function dtypeOf(weight: WeightSource, spec: ModelSpec, format: SyntheticFormat): DTypeName {
  const { role, rows } = weight;
  if (format === 'f32' || format === 'f16' || format === 'bf16') return rows === 1 ? 'f32' : format;
  if (rows === 1 || role === 'router') return 'f32';
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
