/**
 * gpt-oss (20b, 120b): attention sinks, a sliding window on every other layer, biases everywhere, clamped SwiGLU
 * experts in MXFP4. Defaults as in transformers 5.18.
 */
import type { ConfigReader } from '../config.js';
import type { LayerSpec, ModelSpec, MoeFfnSpec } from '../model-spec.js';
import {
  plainAttention,
  plainSpec,
  readActivation,
  readDecoderConfig,
  readExpertCounts,
  readIntermediateSize,
  readSlidingWindow,
} from './decoder-config.js';
import type { Family } from './family.js';
import { HUB_DECODER } from './hub-names.js';
import { readLayerTypes } from './layer-types.js';

const DEFAULTS = {
  vocabSize: 201088,
  hiddenSize: 2880,
  numLayers: 36,
  numHeads: 64,
  numKvHeads: 8,
  headDim: 64,
  maxPositions: 131072,
  normEps: 1e-5,
  ropeTheta: 150000,
  ropeScaling: {
    rope_type: 'yarn',
    factor: 32,
    beta_fast: 32,
    beta_slow: 1,
    truncate: false,
    original_max_position_embeddings: 4096,
  },
};

const EXPERT_KEYS = {
  numExperts: ['num_local_experts', 'num_experts'],
  numExpertsPerTok: ['num_experts_per_tok', 'experts_per_token'],
};

/** The bounds of the clamped activation; fixed in the reference code, though configs name them. */
const SWIGLU_LIMIT = 7;

function readMoe(config: ConfigReader): MoeFfnSpec {
  if (readActivation(config) !== 'silu') {
    throw config.unsupported('hidden_act', 'silu', config.text('hidden_act', undefined));
  }
  const limit = config.number('swiglu_limit', SWIGLU_LIMIT);
  if (limit !== SWIGLU_LIMIT) throw config.unsupported('swiglu_limit', `${SWIGLU_LIMIT}`, limit);
  return {
    kind: 'moe',
    ...readExpertCounts(config, { numExperts: 128, numExpertsPerTok: 4 }, EXPERT_KEYS),
    intermediateSize: readIntermediateSize(config, 'intermediate_size', 2880),
    activation: 'swiglu_clamped',
    expertBias: true,
    router: { scoring: 'topk-softmax', normTopkProb: false, jitterEps: 0, logitBias: true },
  };
}

function readSpec(config: ConfigReader): ModelSpec {
  const decoder = readDecoderConfig(config, DEFAULTS);
  const bias = config.flag('attention_bias', true);
  const attention = { ...plainAttention(decoder), qkvBias: bias, outputBias: bias, sinks: true };
  const window = readSlidingWindow(config, 128);
  const ffn = readMoe(config);
  const known = ['sliding_attention', 'full_attention'] as const;
  const types = readLayerTypes(config, decoder.numLayers, known, (layer) =>
    layer % 2 === 0 ? 'sliding_attention' : 'full_attention',
  );
  const layers = types.map(
    (type): LayerSpec => ({
      attention: { ...attention, slidingWindow: type === 'sliding_attention' ? window : 0 },
      ffn,
    }),
  );
  return plainSpec('gpt_oss', decoder, layers);
}

const LAYER = 'model.layers.{layer}';
const EXPERTS = `${LAYER}.mlp.experts`;
/** Rows of gate and up alternate. */
const gateUp = (part: number, ending = '') => ({
  tensor: `${EXPERTS}.gate_up_proj${ending}`,
  part,
  parts: 2,
  interleaved: true,
});

export const gptOss: Family = {
  modelType: 'gpt_oss',
  className: 'GptOssForCausalLM',
  readSpec,
  hubNames: {
    ...HUB_DECODER,
    attentionSinks: [`${LAYER}.self_attn.sinks`],
    router: [`${LAYER}.mlp.router.weight`],
    routerBias: [`${LAYER}.mlp.router.bias`],
    expertGate: [gateUp(0)],
    expertUp: [gateUp(1)],
    expertDown: [`${EXPERTS}.down_proj`],
    expertGateBias: [gateUp(0, '_bias')],
    expertUpBias: [gateUp(1, '_bias')],
    expertDownBias: [`${EXPERTS}.down_proj_bias`],
  },
  gguf: {
    architecture: 'gpt-oss',
    ropeStyle: 'neox',
    names: { ffnNorm: ['blk.{layer}.post_attention_norm.weight'] },
    windowPattern: 2,
    keys: { sliding_window: 'attention.sliding_window' },
    // llama.cpp truncates YaRN's bounds for every model; this one was trained without.
    rope: { truncate: false },
    defaults: ({ integer }) => ({ intermediate_size: integer('expert_feed_forward_length') }),
  },
};
