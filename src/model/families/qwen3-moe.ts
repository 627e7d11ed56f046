/**
 * Qwen3 MoE (Qwen3-30B-A3B and its kin): per-head norm on q and k, softmax routing, dense layers in between where
 * `mlp_only_layers` or `decoder_sparse_step` ask for them. Defaults as in transformers 5.18.
 */
import type { ConfigReader } from '../config.js';
import { denseLayers } from '../gguf/dense-layers.js';
import type { LayerSpec, ModelSpec, MoeFfnSpec } from '../model-spec.js';
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
import { HUB_DECODER, HUB_DENSE_MLP, HUB_MLP_EXPERTS } from './hub-names.js';

const DEFAULTS = {
  vocabSize: 151936,
  hiddenSize: 2048,
  numLayers: 24,
  numHeads: 32,
  numKvHeads: 4,
  maxPositions: 32768,
  normEps: 1e-6,
  ropeTheta: 10000,
};

function readSpec(config: ConfigReader): ModelSpec {
  const decoder = readDecoderConfig(config, DEFAULTS);
  const bias = config.flag('attention_bias', false);
  const slidingWindow = config.flag('use_sliding_window', false) ? readSlidingWindow(config, 4096) : 0;
  const attention = {
    ...plainAttention(decoder),
    qkNorm: 'head',
    qkvBias: bias,
    outputBias: bias,
    slidingWindow,
  } as const;
  const activation = readActivation(config);
  const moe: MoeFfnSpec = {
    kind: 'moe',
    ...readExpertCounts(config, { numExperts: 128, numExpertsPerTok: 8 }),
    intermediateSize: readIntermediateSize(config, 'moe_intermediate_size', 768),
    activation,
    router: { scoring: 'softmax', normTopkProb: config.flag('norm_topk_prob', false), jitterEps: 0 },
  };
  const intermediateSize = readIntermediateSize(config, 'intermediate_size', 6144);
  const dense = { kind: 'dense', intermediateSize, activation } as const;
  const layers = readSparseLayers(config, decoder.numLayers).map(
    (sparse): LayerSpec => ({ attention, ffn: sparse ? moe : dense }),
  );
  return plainSpec('qwen3_moe', decoder, layers);
}

export const qwen3Moe: Family = {
  modelType: 'qwen3_moe',
  className: 'Qwen3MoeForCausalLM',
  readSpec,
  hubNames: { ...HUB_DECODER, ...HUB_DENSE_MLP, ...HUB_MLP_EXPERTS },
  gguf: {
    architecture: 'qwen3moe',
    ropeStyle: 'neox',
    keys: { moe_intermediate_size: 'expert_feed_forward_length', norm_topk_prob: 'expert_weights_norm' },
    // Converters leave norm_topk_prob out; every published model has it on.
    defaults: (source) => ({
      norm_topk_prob: true,
      attention_bias: source.tensors.has('blk.0.attn_q.bias'),
      mlp_only_layers: denseLayers(source),
    }),
  },
};
