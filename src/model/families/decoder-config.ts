/**
 * The part of config.json that all decoder families share: sizes, heads, activation, rotary embedding. Families call
 * it with the defaults of their own transformers class (5.18) and add what is theirs.
 */
import type { ConfigReader } from '../config.js';
import type { JsonObject } from '../json-file.js';
import type { AttentionSpec, DenseFfnSpec, LayerSpec, ModelSpec, RopeSpec } from '../model-spec.js';
import { readRope } from '../rope-config.js';

/** Defaults of a transformers configuration class. */
export type DecoderDefaults = {
  vocabSize: number;
  hiddenSize: number;
  numLayers: number;
  numHeads: number;
  /** 'numHeads': as many as query heads. */
  numKvHeads: number | 'numHeads';
  maxPositions: number;
  normEps: number;
  ropeTheta: number;
  /** Width of a head where the class does not derive it from hidden_size. */
  headDim?: number;
  /** Share of a head that is rotated, for families in which it may differ from 1. */
  partialRotaryFactor?: number;
  tiedEmbeddings?: boolean;
  /** Rotary parameters that hold where the config has none. */
  ropeScaling?: JsonObject;
};

export type DecoderConfig = {
  vocabSize: number;
  hiddenSize: number;
  numLayers: number;
  numHeads: number;
  numKvHeads: number;
  headDim: number;
  maxPositions: number;
  normEps: number;
  tiedEmbeddings: boolean;
  rope: RopeSpec;
};

// Beyond every published model by a factor of ten; keeps a lying file from asking for endless loops.
const MAX_SIZE = 2 ** 20;
const MAX_LAYERS = 1024;
const MAX_HEADS = 4096;
export const MAX_EXPERTS = 8192;

/** Throws ModelFormatError. */
export function readDecoderConfig(config: ConfigReader, defaults: DecoderDefaults): DecoderConfig {
  refuseQuantised(config);
  const hiddenSize = config.integer('hidden_size', defaults.hiddenSize, { max: MAX_SIZE });
  const heads = readHeads(config, hiddenSize, defaults);
  const maxPositions = config.integer('max_position_embeddings', defaults.maxPositions);
  return {
    vocabSize: config.integer('vocab_size', defaults.vocabSize, { max: 2 ** 24 }),
    hiddenSize,
    numLayers: config.integer('num_hidden_layers', defaults.numLayers, { max: MAX_LAYERS }),
    ...heads,
    maxPositions,
    normEps: config.number(['rms_norm_eps', 'norm_eps'], defaults.normEps, { min: 0, max: 1 }),
    tiedEmbeddings: config.flag(['tie_word_embeddings', 'tie_embedding'], defaults.tiedEmbeddings ?? false),
    rope: readRope(config, {
      theta: defaults.ropeTheta,
      headDim: heads.headDim,
      maxPositions,
      partialRotaryFactor: defaults.partialRotaryFactor,
      ropeScaling: defaults.ropeScaling,
    }),
  };
}

/** Rows and columns of a float8 matrix that share a factor. */
const FP8_BLOCK = 128;

function refuseQuantised(config: ConfigReader): void {
  const quantisation = config.object('quantization_config');
  if (quantisation === undefined) return;
  const method = quantisation.text('quant_method', 'an unnamed method');
  if (method === 'mxfp4') return;
  if (method === 'fp8') {
    const block = quantisation.integers('weight_block_size', []);
    if (block.length === 2 && block.every((size) => size === FP8_BLOCK)) return;
    throw quantisation.unsupported('weight_block_size', `[${FP8_BLOCK}, ${FP8_BLOCK}]`, block);
  }
  throw config.unsupported(
    'quantization_config',
    'mxfp4, fp8 in blocks, or a checkpoint in bfloat16, float16 or float32',
    method,
    'Use the original checkpoint or a GGUF file of the model.',
  );
}

function readHeads(config: ConfigReader, hiddenSize: number, defaults: DecoderDefaults) {
  const numHeads = config.integer('num_attention_heads', defaults.numHeads, { max: MAX_HEADS });
  const kvDefault = defaults.numKvHeads === 'numHeads' ? numHeads : defaults.numKvHeads;
  const numKvHeads = config.integer('num_key_value_heads', kvDefault, { max: MAX_HEADS });
  if (numHeads % numKvHeads !== 0) {
    throw config.contradiction('num_attention_heads', numHeads, 'num_key_value_heads', numKvHeads);
  }
  const derived = !config.has('head_dim') && defaults.headDim === undefined;
  if (derived && hiddenSize % numHeads !== 0) {
    throw config.contradiction('hidden_size', hiddenSize, 'num_attention_heads', numHeads);
  }
  const headDim = config.integer('head_dim', defaults.headDim ?? hiddenSize / numHeads, { max: MAX_SIZE });
  return { numHeads, numKvHeads, headDim };
}

/** An attention part with whole-sequence view and no extras; families override what differs. */
export function plainAttention(decoder: DecoderConfig): AttentionSpec {
  return {
    kind: 'gqa',
    numHeads: decoder.numHeads,
    numKvHeads: decoder.numKvHeads,
    headDim: decoder.headDim,
    qkNorm: 'none',
    qkvBias: false,
    outputBias: false,
    clipQkv: 0,
    scale: decoder.headDim ** -0.5,
    slidingWindow: 0,
    rope: 0,
  };
}

/** A spec with RMS norms and no multipliers; families override what differs. */
export function plainSpec(architecture: string, decoder: DecoderConfig, layers: LayerSpec[]): ModelSpec {
  return {
    architecture,
    hiddenSize: decoder.hiddenSize,
    vocabSize: decoder.vocabSize,
    maxPositions: decoder.maxPositions,
    norm: { kind: 'rms', eps: decoder.normEps },
    ropes: [decoder.rope],
    layers,
    tiedEmbeddings: decoder.tiedEmbeddings,
    lmHeadBias: false,
    embeddingMultiplier: 1,
    residualMultiplier: 1,
    logitsMultiplier: 1,
  };
}

const ACTIVATIONS: Record<string, DenseFfnSpec['activation']> = {
  silu: 'silu',
  swish: 'silu',
  gelu: 'gelu',
  gelu_python: 'gelu',
  gelu_new: 'gelu_tanh',
  gelu_fast: 'gelu_tanh',
  gelu_pytorch_tanh: 'gelu_tanh',
  gelu_python_tanh: 'gelu_tanh',
};

export function readActivation(
  config: ConfigReader,
  key = 'hidden_act',
  fallback = 'silu',
): DenseFfnSpec['activation'] {
  const name = config.text(key, fallback);
  const activation = Object.hasOwn(ACTIVATIONS, name) ? ACTIVATIONS[name] : undefined;
  if (activation === undefined) {
    throw config.unsupported(key, `one of ${Object.keys(ACTIVATIONS).join(', ')}`, name);
  }
  return activation;
}

/** Width of a feed-forward part; without a `fallback` the key must be there. */
export function readIntermediateSize(
  config: ConfigReader,
  key: string,
  fallback: number | undefined,
): number {
  return config.integer(key, fallback, { max: MAX_SIZE });
}

const EXPERT_COUNT_KEYS: { numExperts: readonly string[]; numExpertsPerTok: readonly string[] } = {
  numExperts: ['num_local_experts', 'num_experts'],
  numExpertsPerTok: ['num_experts_per_tok'],
};

/** Number of experts and how many of them a token gets. */
export function readExpertCounts(
  config: ConfigReader,
  defaults: { numExperts: number | undefined; numExpertsPerTok: number | undefined },
  keys = EXPERT_COUNT_KEYS,
) {
  const range = { max: MAX_EXPERTS };
  const numExperts = config.integer(keys.numExperts, defaults.numExperts, range);
  const numExpertsPerTok = config.integer(keys.numExpertsPerTok, defaults.numExpertsPerTok, range);
  if (numExpertsPerTok > numExperts) {
    const [all, chosen] = [keys.numExperts, keys.numExpertsPerTok].map(
      (spellings) => config.find(spellings)?.key ?? spellings[0] ?? '',
    );
    throw config.contradiction(all ?? '', numExperts, chosen ?? '', numExpertsPerTok);
  }
  return { numExperts, numExpertsPerTok };
}

/** Window of local attention where the key is set; 0 = full attention. */
export function readSlidingWindow(config: ConfigReader, fallback: number): number {
  return config.integer('sliding_window', fallback, { min: 0 });
}

/** Whether each layer is sparse, by the two keys of the Qwen families. */
export function readSparseLayers(config: ConfigReader, numLayers: number): boolean[] {
  const step = config.integer('decoder_sparse_step', 1);
  const dense = new Set(config.integers('mlp_only_layers', []));
  return Array.from({ length: numLayers }, (_, layer) => !dense.has(layer) && (layer + 1) % step === 0);
}
