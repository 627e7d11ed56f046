/**
 * Qwen3-Next and the text part of Qwen3.5 MoE: three layers in four are gated delta nets, the fourth has gated attention
 * with partly rotated heads; a shared expert behind a sigmoid gate; norm weights stored around zero. Defaults as in
 * transformers 5.18.
 */
import type { ConfigReader } from '../config.js';
import { denseLayers } from '../gguf/dense-layers.js';
import type { GgufFamily, GgufSource, OwnMetadata } from '../gguf/family.js';
import type { AttentionSpec, LayerSpec, ModelSpec, MoeFfnSpec, WeightRole } from '../model-spec.js';
import type { GatedDeltaSpec } from '../recurrent-spec.js';
import {
  type DecoderDefaults,
  plainAttention,
  plainSpec,
  readActivation,
  readDecoderConfig,
  readExpertCounts,
  readIntermediateSize,
  readSparseLayers,
} from './decoder-config.js';
import type { Family, WeightNames } from './family.js';
import { HUB_DECODER, HUB_DENSE_MLP, HUB_MLP_EXPERTS, HUB_SHARED_EXPERT } from './hub-names.js';
import { readLayerTypes } from './layer-types.js';
import { NO_ATTENTION, readGatedDelta } from './recurrent-layers.js';

type Defaults = DecoderDefaults & { numExperts: number; numExpertsPerTok: number };

const NEXT: Defaults = {
  vocabSize: 151936,
  hiddenSize: 2048,
  numLayers: 48,
  numHeads: 16,
  numKvHeads: 2,
  headDim: 256,
  maxPositions: 32768,
  normEps: 1e-6,
  ropeTheta: 10000,
  partialRotaryFactor: 0.25,
  numExperts: 512,
  numExpertsPerTok: 10,
};

const QWEN35: Defaults = {
  ...NEXT,
  vocabSize: 248320,
  numLayers: 40,
  numExperts: 256,
  numExpertsPerTok: 8,
};

function readMoe(config: ConfigReader, defaults: Defaults, normTopkProb: boolean): MoeFfnSpec {
  return {
    kind: 'moe',
    ...readExpertCounts(config, defaults),
    intermediateSize: readIntermediateSize(config, 'moe_intermediate_size', 512),
    activation: readActivation(config),
    router: { scoring: 'softmax', normTopkProb, jitterEps: 0 },
    sharedExpert: {
      intermediateSize: readIntermediateSize(config, 'shared_expert_intermediate_size', 512),
      gate: 'sigmoid',
    },
  };
}

/** The parts that both kinds of layers share with their kin. */
function readMixers(config: ConfigReader, defaults: Defaults) {
  const decoder = readDecoderConfig(config, defaults);
  const bias = config.flag('attention_bias', false);
  if (bias) throw config.unsupported('attention_bias', 'false, as in every published model', bias);
  const attention: AttentionSpec = { ...plainAttention(decoder), qkNorm: 'head', outputGate: true };
  const recurrent: GatedDeltaSpec = readGatedDelta(config);
  const interval = config.integer('full_attention_interval', 4);
  const known = ['linear_attention', 'full_attention'] as const;
  const types = readLayerTypes(config, decoder.numLayers, known, (layer) =>
    (layer + 1) % interval === 0 ? 'full_attention' : 'linear_attention',
  );
  const mixers = types.map(
    (type): Omit<LayerSpec, 'ffn'> =>
      type === 'full_attention' ? { attention } : { attention: NO_ATTENTION, recurrent },
  );
  return { decoder, mixers };
}

function readNext(config: ConfigReader): ModelSpec {
  const { decoder, mixers } = readMixers(config, NEXT);
  const moe = readMoe(config, NEXT, config.flag('norm_topk_prob', true));
  const intermediateSize = readIntermediateSize(config, 'intermediate_size', 5632);
  const dense = { kind: 'dense', intermediateSize, activation: moe.activation } as const;
  const sparse = readSparseLayers(config, decoder.numLayers);
  const layers = mixers.map((mixer, layer): LayerSpec => ({ ...mixer, ffn: sparse[layer] ? moe : dense }));
  return plainSpec('qwen3_next', decoder, layers);
}

function readQwen35(config: ConfigReader): ModelSpec {
  const { decoder, mixers } = readMixers(config, QWEN35);
  const moe = readMoe(config, QWEN35, true);
  const layers = mixers.map((mixer): LayerSpec => ({ ...mixer, ffn: moe }));
  return plainSpec('qwen3_5_moe_text', decoder, layers);
}

const LAYER = 'model.layers.{layer}';
const MIXER = `${LAYER}.linear_attn`;

/** Norms whose weights are stored less one. */
const aroundZero = (tensor: string) => [{ tensor, transform: 'plus-one' }] as const;
const held = (tensor: string, ...holds: WeightRole[]) => ({ tensor, holds });
const heldByHead = (tensor: string, ...holds: WeightRole[]) => ({ tensor, holds, byHead: true });

const GATED_QUERY = heldByHead(`${LAYER}.self_attn.q_proj.weight`, 'query', 'outputGate');
/** Qwen3-Next has each key head's rows together, Qwen3.5 one matrix behind the other. */
const QKVZ = heldByHead(`${MIXER}.in_proj_qkvz.weight`, 'query', 'key', 'value', 'outputGate');
const QKV = held(`${MIXER}.in_proj_qkv.weight`, 'query', 'key', 'value');
const BETA_DECAY = heldByHead(`${MIXER}.in_proj_ba.weight`, 'deltaBeta', 'deltaDecay');

const HUB_NAMES: WeightNames = {
  ...HUB_DECODER,
  ...HUB_DENSE_MLP,
  ...HUB_MLP_EXPERTS,
  ...HUB_SHARED_EXPERT,
  finalNorm: aroundZero('model.norm.weight'),
  attentionNorm: aroundZero(`${LAYER}.input_layernorm.weight`),
  ffnNorm: aroundZero(`${LAYER}.post_attention_layernorm.weight`),
  queryNorm: aroundZero(`${LAYER}.self_attn.q_norm.weight`),
  keyNorm: aroundZero(`${LAYER}.self_attn.k_norm.weight`),
  query: [GATED_QUERY, QKVZ, QKV],
  key: [`${LAYER}.self_attn.k_proj.weight`, QKVZ, QKV],
  value: [`${LAYER}.self_attn.v_proj.weight`, QKVZ, QKV],
  outputGate: [GATED_QUERY, QKVZ, `${MIXER}.in_proj_z.weight`],
  deltaBeta: [BETA_DECAY, `${MIXER}.in_proj_b.weight`],
  deltaDecay: [BETA_DECAY, `${MIXER}.in_proj_a.weight`],
  convKernel: [`${MIXER}.conv1d.weight`],
  deltaDecayRate: [{ tensor: `${MIXER}.A_log`, transform: 'negative-exp' }],
  deltaDecayBias: [`${MIXER}.dt_bias`],
  deltaNorm: [`${MIXER}.norm.weight`],
  output: [`${LAYER}.self_attn.o_proj.weight`, `${MIXER}.out_proj.weight`],
};

const GGUF_QKV = held('blk.{layer}.attn_qkv.weight', 'query', 'key', 'value');
const GGUF_GATED_QUERY = heldByHead('blk.{layer}.attn_q.weight', 'query', 'outputGate');
const GGUF_BETA_DECAY = heldByHead('blk.{layer}.ssm_ba.weight', 'deltaBeta', 'deltaDecay');

/** Metadata tells an interval; the tensors tell what there is. */
function layerTypes({ integer, tensors }: GgufSource): string[] {
  const length = Math.min(
    (integer('block_count') ?? 0) - (integer('nextn_predict_layers') ?? 0),
    tensors.count,
  );
  return Array.from({ length }, (_, layer) =>
    tensors.has(`blk.${layer}.attn_k.weight`) ? 'full_attention' : 'linear_attention',
  );
}

function ggufEntries({ layers, ropes }: ModelSpec): OwnMetadata['entries'] {
  const delta = layers.find(({ recurrent }) => recurrent !== undefined)?.recurrent;
  if (delta?.kind !== 'gated-delta') return {};
  const { convWidth, keyHeadDim, valueHeadDim, numKeyHeads, numValueHeads } = delta;
  const u32 = (value: number) => ({ type: 'u32', value }) as const;
  // Of text all sections rotate by the same position; a third of the pairs each is what published models have.
  const pairs = (ropes[0]?.rotaryDim ?? 0) / 2;
  const sections = [0, 1, 2].map((section) => Math.floor((pairs + 2 - section) / 3));
  return {
    'ssm.conv_kernel': u32(convWidth),
    'ssm.state_size': u32(keyHeadDim),
    'ssm.group_count': u32(numKeyHeads),
    'ssm.time_step_rank': u32(numValueHeads),
    'ssm.inner_size': u32(valueHeadDim * numValueHeads),
    // Here the tensors tell which layers attend; llama.cpp goes by the interval.
    full_attention_interval: u32(1 + layers.findIndex(({ recurrent }) => recurrent === undefined)),
    'rope.dimension_sections': { type: 'i32s', value: [...sections, 0] },
  };
}

/** Converters add the one to norms and take decay rates for what they are. */
const GGUF: Omit<GgufFamily, 'architecture'> = {
  ropeStyle: 'neox',
  names: {
    query: [GGUF_GATED_QUERY, GGUF_QKV],
    key: ['blk.{layer}.attn_k.weight', GGUF_QKV],
    value: ['blk.{layer}.attn_v.weight', GGUF_QKV],
    outputGate: [GGUF_GATED_QUERY, 'blk.{layer}.attn_gate.weight'],
    deltaBeta: [GGUF_BETA_DECAY, 'blk.{layer}.ssm_beta.weight'],
    deltaDecay: [GGUF_BETA_DECAY, 'blk.{layer}.ssm_alpha.weight'],
  },
  layerNames: ({ recurrent }) => ({
    ffnNorm: ['blk.{layer}.post_attention_norm.weight'],
    ...(recurrent !== undefined && {
      query: [GGUF_QKV],
      key: [GGUF_QKV],
      value: [GGUF_QKV],
      outputGate: ['blk.{layer}.attn_gate.weight'],
      output: ['blk.{layer}.ssm_out.weight'],
    }),
  }),
  written: (spec) => ({ entries: ggufEntries(spec) }),
  keys: {
    moe_intermediate_size: 'expert_feed_forward_length',
    shared_expert_intermediate_size: 'expert_shared_feed_forward_length',
    norm_topk_prob: 'expert_weights_norm',
    linear_conv_kernel_dim: 'ssm.conv_kernel',
    linear_key_head_dim: 'ssm.state_size',
    linear_num_key_heads: 'ssm.group_count',
    linear_num_value_heads: 'ssm.time_step_rank',
  },
  defaults: (source) => ({
    // Files of models without dense layers do not say how wide those would be.
    intermediate_size: source.integer('expert_feed_forward_length'),
    mlp_only_layers: denseLayers(source),
    layer_types: layerTypes(source),
    linear_value_head_dim:
      (source.integer('ssm.inner_size') ?? 0) / (source.integer('ssm.time_step_rank') ?? 1),
  }),
};

/** Layers for multi-token prediction. */
const UNUSED = ['mtp.'];

export const qwen3Next: Family = {
  modelType: 'qwen3_next',
  className: 'Qwen3NextForCausalLM',
  readSpec: readNext,
  hubNames: HUB_NAMES,
  unusedPrefixes: UNUSED,
  gguf: { ...GGUF, architecture: 'qwen3next' },
};

export const qwen35Moe: Family = {
  modelType: 'qwen3_5_moe_text',
  className: 'Qwen3_5MoeForCausalLM',
  readSpec: readQwen35,
  hubNames: HUB_NAMES,
  unusedPrefixes: UNUSED,
  wrapper: {
    modelType: 'qwen3_5_moe',
    className: 'Qwen3_5MoeForConditionalGeneration',
    rename: ['model.', 'model.language_model.'],
    unusedPrefixes: ['model.visual.', ...UNUSED],
  },
  gguf: {
    ...GGUF,
    architecture: 'qwen35moe',
    valueHeadOrder: 'tiled',
    layerNames: (layer) => ({
      ...GGUF.layerNames?.(layer),
      deltaBeta: ['blk.{layer}.ssm_beta.weight'],
      deltaDecay: ['blk.{layer}.ssm_alpha.weight'],
    }),
  },
};
