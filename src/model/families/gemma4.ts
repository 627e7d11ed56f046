/**
 * Gemma 4 text with experts (26B-A4B): a dense branch beside the experts, norms before and behind every part, windows on
 * five of six layers, full layers with heads of their own whose values are their keys, capped logits.
 * Defaults as in transformers 5.18.
 */
import { ConfigReader } from '../config.js';
import { gemma4GgufDefaults, gemma4Metadata } from '../gguf/gemma4.js';
import type { AttentionSpec, LayerSpec, ModelSpec, MoeFfnSpec, RopeSpec } from '../model-spec.js';
import { readRopeFrom } from '../rope-config.js';
import {
  type DecoderConfig,
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
  vocabSize: 262144,
  hiddenSize: 2304,
  numLayers: 30,
  numHeads: 8,
  numKvHeads: 4,
  headDim: 256,
  maxPositions: 131072,
  normEps: 1e-6,
  ropeTheta: 10000,
  tiedEmbeddings: true,
};
const GLOBAL_HEAD_DIM = 512;
const LAYER_TYPES = ['sliding_attention', 'full_attention'] as const;
type LayerType = (typeof LAYER_TYPES)[number];

const EXPERT_KEYS = {
  numExperts: ['num_experts', 'num_local_experts'],
  numExpertsPerTok: ['top_k_experts', 'num_experts_per_tok'],
};

/** Parts that other sizes of Gemma 4 have; each key with the value that says the part is not there. */
const ABSENT_PARTS: Record<string, number | boolean> = {
  hidden_size_per_layer_input: 0,
  num_kv_shared_layers: 0,
  attention_bias: false,
};

function refuseOtherParts(config: ConfigReader): void {
  if (!config.flag('enable_moe_block', false))
    throw config.unsupported('enable_moe_block', 'true: only mixtures of experts run here', false);
  for (const [key, absent] of Object.entries(ABSENT_PARTS)) {
    // The class has inputs for each layer unless the config says 0.
    const fallback = key === 'hidden_size_per_layer_input' ? 256 : absent;
    const value = config.find(key)?.value ?? (config.keys().includes(key) ? absent : fallback);
    if (value !== absent) throw config.unsupported(key, `${absent}, as in the models with experts`, value);
  }
  const key = 'use_bidirectional_attention';
  if (config.text(key, 'vision') === 'all') throw config.unsupported(key, 'vision or none', 'all');
}

/** The last layer is full whatever the list says, as in transformers. */
function readTypes(config: ConfigReader, numLayers: number): LayerType[] {
  const types = readLayerTypes(config, numLayers, LAYER_TYPES, (layer) =>
    (layer + 1) % 6 === 0 ? 'full_attention' : 'sliding_attention',
  );
  types[numLayers - 1] = 'full_attention';
  return types;
}

type Heads = { headDim: number; numKvHeads: number };

/**
 * Heads of both kinds of layers: those of full ones have keys of their own in published configs, and entries of
 * `per_layer_config` in those that transformers 5.18 writes.
 */
function readHeads(
  config: ConfigReader,
  decoder: DecoderConfig,
  types: LayerType[],
): Record<LayerType, Heads> {
  const { headDim, numKvHeads } = decoder;
  const global = {
    headDim: config.integer('global_head_dim', GLOBAL_HEAD_DIM, { max: 2 ** 20 }),
    numKvHeads: config.integer('num_global_key_value_heads', numKvHeads, { max: 4096 }),
  };
  // The number of their heads counts only where values are keys.
  if (!config.flag('attention_k_eq_v', false)) global.numKvHeads = numKvHeads;
  const listed = config.object('per_layer_config');
  if (listed === undefined) return { sliding_attention: { headDim, numKvHeads }, full_attention: global };
  const entry = (layer: number): Heads => {
    const own = listed.object(`${layer}`);
    return {
      headDim: own?.integer('head_dim', headDim, { max: 2 ** 20 }) ?? headDim,
      numKvHeads: own?.integer('num_key_value_heads', numKvHeads, { max: 4096 }) ?? numKvHeads,
    };
  };
  const firstOf = (type: LayerType) => entry(types.indexOf(type));
  const heads = {
    sliding_attention: firstOf('sliding_attention'),
    full_attention: firstOf('full_attention'),
  };
  for (const [layer, type] of types.entries()) {
    const [own, first] = [entry(layer), heads[type]];
    if (own.headDim === first.headDim && own.numKvHeads === first.numKvHeads) continue;
    throw config.contradiction(
      `per_layer_config.${types.indexOf(type)}`,
      JSON.stringify(first),
      `per_layer_config.${layer}`,
      JSON.stringify(own),
    );
  }
  if (config.has('global_head_dim') && global.headDim !== heads.full_attention.headDim) {
    const key = `per_layer_config.${types.indexOf('full_attention')}.head_dim`;
    throw config.contradiction('global_head_dim', global.headDim, key, heads.full_attention.headDim);
  }
  return heads;
}

const ROPE_DEFAULTS = {
  sliding_attention: { rope_type: 'default', rope_theta: 10000 },
  full_attention: { rope_type: 'proportional', partial_rotary_factor: 0.25, rope_theta: 1e6 },
};

/** One set of frequencies for each kind of layers, in the order of LAYER_TYPES. */
function readRopes(
  config: ConfigReader,
  decoder: DecoderConfig,
  heads: Record<LayerType, Heads>,
): RopeSpec[] {
  const sets = config.object('rope_parameters') ?? new ConfigReader({ ...ROPE_DEFAULTS }, config.file);
  return LAYER_TYPES.map((type) => {
    const parameters = sets.object(type);
    if (parameters === undefined)
      throw config.error(`rope_parameters.${type}`, 'rotary parameters of these layers', undefined);
    return readRopeFrom(config, parameters, {
      theta: ROPE_DEFAULTS[type].rope_theta,
      headDim: heads[type].headDim,
      maxPositions: decoder.maxPositions,
    });
  });
}

function readMoe(config: ConfigReader, decoder: DecoderConfig): MoeFfnSpec {
  return {
    kind: 'moe',
    ...readExpertCounts(config, { numExperts: undefined, numExpertsPerTok: undefined }, EXPERT_KEYS),
    intermediateSize: readIntermediateSize(config, 'moe_intermediate_size', undefined),
    activation: readActivation(config, 'hidden_activation', 'gelu_pytorch_tanh'),
    router: {
      scoring: 'softmax',
      normTopkProb: true,
      jitterEps: 0,
      logitMultiplier: decoder.hiddenSize ** -0.5,
      expertScale: true,
    },
    sharedExpert: { intermediateSize: readIntermediateSize(config, 'intermediate_size', 9216), gate: 'none' },
    branchNorms: true,
  };
}

function readSpec(config: ConfigReader): ModelSpec {
  refuseOtherParts(config);
  const decoder = readDecoderConfig(config, DEFAULTS);
  const types = readTypes(config, decoder.numLayers);
  const heads = readHeads(config, decoder, types);
  const base = { ...plainAttention(decoder), qkNorm: 'head', valueNorm: true, scale: 1 } as const;
  const slidingWindow = readSlidingWindow(config, 512);
  const keysAsValues = config.flag('attention_k_eq_v', false);
  const attention: Record<LayerType, AttentionSpec> = {
    sliding_attention: { ...base, ...heads.sliding_attention, slidingWindow, rope: 0 },
    full_attention: { ...base, ...heads.full_attention, rope: 1, ...(keysAsValues && { keysAsValues }) },
  };
  const ffn = readMoe(config, decoder);
  const layers = types.map(
    (type): LayerSpec => ({ attention: attention[type], ffn, postNorms: true, outputScale: true }),
  );
  const cap = 'final_logit_softcapping';
  return {
    ...plainSpec('gemma4_text', decoder, layers),
    ropes: readRopes(config, decoder, heads),
    embeddingMultiplier: decoder.hiddenSize ** 0.5,
    ...(config.has(cap) && { logitsSoftcap: config.number(cap, undefined, { min: Number.MIN_VALUE }) }),
  };
}

const LAYER = 'model.layers.{layer}';

export const gemma4: Family = {
  modelType: 'gemma4_text',
  className: 'Gemma4ForCausalLM',
  readSpec,
  hubNames: {
    ...HUB_DECODER,
    attentionPostNorm: [`${LAYER}.post_attention_layernorm.weight`],
    ffnNorm: [`${LAYER}.pre_feedforward_layernorm.weight`],
    ffnPostNorm: [`${LAYER}.post_feedforward_layernorm.weight`],
    sharedPostNorm: [`${LAYER}.post_feedforward_layernorm_1.weight`],
    expertNorm: [`${LAYER}.pre_feedforward_layernorm_2.weight`],
    expertPostNorm: [`${LAYER}.post_feedforward_layernorm_2.weight`],
    routerNorm: [`${LAYER}.router.scale`],
    router: [`${LAYER}.router.proj.weight`],
    routerExpertScale: [`${LAYER}.router.per_expert_scale`],
    layerScale: [`${LAYER}.layer_scalar`],
    sharedGate: [`${LAYER}.mlp.gate_proj.weight`],
    sharedUp: [`${LAYER}.mlp.up_proj.weight`],
    sharedDown: [`${LAYER}.mlp.down_proj.weight`],
    expertGate: [{ tensor: `${LAYER}.experts.gate_up_proj`, part: 0, parts: 2 }],
    expertUp: [{ tensor: `${LAYER}.experts.gate_up_proj`, part: 1, parts: 2 }],
    expertDown: [`${LAYER}.experts.down_proj`],
  },
  wrapper: {
    modelType: 'gemma4',
    className: 'Gemma4ForConditionalGeneration',
    rename: ['model.', 'model.language_model.'],
    unusedPrefixes: [
      'model.vision_tower.',
      'model.embed_vision.',
      'model.audio_tower.',
      'model.embed_audio.',
    ],
  },
  gguf: {
    architecture: 'gemma4',
    ropeStyle: 'neox',
    hasOwnHeads: true,
    // The dense branch has the names of dense layers; gate and up of all experts are in one tensor.
    layerNames: () => ({
      sharedGate: ['blk.{layer}.ffn_gate.weight'],
      sharedUp: ['blk.{layer}.ffn_up.weight'],
      sharedDown: ['blk.{layer}.ffn_down.weight'],
      expertGate: [{ tensor: 'blk.{layer}.ffn_gate_up_exps.weight', part: 0, parts: 2 }],
      expertUp: [{ tensor: 'blk.{layer}.ffn_gate_up_exps.weight', part: 1, parts: 2 }],
    }),
    written: gemma4Metadata,
    keys: {
      moe_intermediate_size: 'expert_feed_forward_length',
      sliding_window: 'attention.sliding_window',
      final_logit_softcapping: 'final_logit_softcapping',
      num_kv_shared_layers: 'attention.shared_kv_layers',
    },
    defaults: gemma4GgufDefaults,
  },
};
