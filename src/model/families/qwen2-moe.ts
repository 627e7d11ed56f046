/**
 * Qwen2 MoE (Qwen1.5-MoE-A2.7B, Qwen2-57B-A14B): a shared expert behind a sigmoid gate, biases on q, k, v, and
 * sliding windows on the layers that `layer_types` names. Defaults as in transformers 5.18.
 */
import type { ConfigReader } from '../config.js';
import { denseLayers } from '../gguf/dense-layers.js';
import type { AttentionSpec, LayerSpec, ModelSpec, MoeFfnSpec } from '../model-spec.js';
import {
  plainAttention,
  plainSpec,
  readActivation,
  readDecoderConfig,
  readExpertCounts,
  readIntermediateSize,
  readSlidingWindow,
  readSparseLayers,
} from './decoder-config.js';
import type { Family } from './family.js';
import { HUB_DECODER, HUB_DENSE_MLP, HUB_MLP_EXPERTS, HUB_SHARED_EXPERT } from './hub-names.js';
import { readLayerTypes } from './layer-types.js';

const DEFAULTS = {
  vocabSize: 151936,
  hiddenSize: 2048,
  numLayers: 24,
  numHeads: 16,
  numKvHeads: 16,
  maxPositions: 32768,
  normEps: 1e-6,
  ropeTheta: 10000,
};

/** Each layer's window, 0 where the layer sees everything. */
function readWindows(config: ConfigReader, numLayers: number): number[] {
  const enabled = config.flag('use_sliding_window', false);
  const window = enabled ? readSlidingWindow(config, 4096) : 0;
  const maxWindowLayers = config.integer('max_window_layers', 28, { min: 0 });
  const alternating = (layer: number) => enabled && layer % 2 === 0 && layer < maxWindowLayers;
  const known = ['full_attention', 'sliding_attention'] as const;
  const types = readLayerTypes(config, numLayers, known, (layer) =>
    alternating(layer) ? 'sliding_attention' : 'full_attention',
  );
  return types.map((type) => {
    if (type === 'full_attention') return 0;
    if (!enabled) throw config.contradiction('use_sliding_window', false, 'layer_types', type);
    return window;
  });
}

function readSpec(config: ConfigReader): ModelSpec {
  const decoder = readDecoderConfig(config, DEFAULTS);
  const base: AttentionSpec = { ...plainAttention(decoder), qkvBias: config.flag('qkv_bias', true) };
  const windows = readWindows(config, decoder.numLayers);
  const activation = readActivation(config);
  const moe: MoeFfnSpec = {
    kind: 'moe',
    ...readExpertCounts(config, { numExperts: 60, numExpertsPerTok: 4 }),
    intermediateSize: readIntermediateSize(config, 'moe_intermediate_size', 1408),
    activation,
    router: { scoring: 'softmax', normTopkProb: config.flag('norm_topk_prob', false), jitterEps: 0 },
    sharedExpert: {
      intermediateSize: readIntermediateSize(config, 'shared_expert_intermediate_size', 5632),
      gate: 'sigmoid',
    },
  };
  const dense = {
    kind: 'dense',
    intermediateSize: readIntermediateSize(config, 'intermediate_size', 5632),
    activation,
  } as const;
  const layers = readSparseLayers(config, decoder.numLayers).map(
    (sparse, layer): LayerSpec => ({
      attention: { ...base, slidingWindow: windows[layer] ?? 0 },
      ffn: sparse ? moe : dense,
    }),
  );
  return plainSpec('qwen2_moe', decoder, layers);
}

export const qwen2Moe: Family = {
  modelType: 'qwen2_moe',
  className: 'Qwen2MoeForCausalLM',
  readSpec,
  hubNames: { ...HUB_DECODER, ...HUB_DENSE_MLP, ...HUB_MLP_EXPERTS, ...HUB_SHARED_EXPERT },
  gguf: {
    architecture: 'qwen2moe',
    ropeStyle: 'neox',
    keys: {
      moe_intermediate_size: 'expert_feed_forward_length',
      shared_expert_intermediate_size: 'expert_shared_feed_forward_length',
      norm_topk_prob: 'expert_weights_norm',
    },
    // The first converters wrote only the width of all chosen experts together.
    defaults: (source) => {
      const width = source.integer('feed_forward_length') ?? 0;
      return {
        moe_intermediate_size: width / (source.integer('expert_used_count') ?? 1),
        shared_expert_intermediate_size: width,
        qkv_bias: source.tensors.has('blk.0.attn_q.bias'),
        mlp_only_layers: denseLayers(source),
      };
    },
  },
};
