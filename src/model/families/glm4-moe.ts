/**
 * GLM-4.5, 4.6 and 4.7 (Air and full): partly rotated heads, optional norm on q and k, sigmoid routing with a bias
 * that balances the choice, a shared expert, dense layers first. Defaults as in transformers 5.18.
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
} from './decoder-config.js';
import { readExpertGroups } from './expert-groups.js';
import type { Family } from './family.js';
import { HUB_DECODER, HUB_DENSE_MLP, HUB_MLP_EXPERTS, HUB_SHARED_EXPERTS } from './hub-names.js';

const DEFAULTS = {
  vocabSize: 151552,
  hiddenSize: 4096,
  numLayers: 46,
  numHeads: 96,
  numKvHeads: 8,
  maxPositions: 131072,
  normEps: 1e-5,
  ropeTheta: 10000,
  partialRotaryFactor: 0.5,
};

const EXPERT_KEYS = {
  numExperts: ['n_routed_experts', 'num_local_experts'],
  numExpertsPerTok: ['num_experts_per_tok'],
};

function readSpec(config: ConfigReader): ModelSpec {
  const decoder = readDecoderConfig(config, DEFAULTS);
  const attention = {
    ...plainAttention(decoder),
    qkNorm: config.flag('use_qk_norm', false) ? 'head' : 'none',
    qkvBias: config.flag('attention_bias', false),
  } as const;
  const activation = readActivation(config);
  const counts = readExpertCounts(config, { numExperts: 128, numExpertsPerTok: 8 }, EXPERT_KEYS);
  const intermediateSize = readIntermediateSize(config, 'moe_intermediate_size', 1408);
  const moe: MoeFfnSpec = {
    kind: 'moe',
    ...counts,
    intermediateSize,
    activation,
    router: {
      scoring: 'sigmoid',
      normTopkProb: config.flag('norm_topk_prob', true),
      jitterEps: 0,
      selectionBias: true,
      groups: readExpertGroups(config, counts, { numGroups: 1, chosenGroups: 1, score: 'top-two-sum' }),
      weightMultiplier: config.number('routed_scaling_factor', 1),
    },
    sharedExpert: {
      intermediateSize: intermediateSize * config.integer('n_shared_experts', 1),
      gate: 'none',
    },
  };
  const dense = {
    kind: 'dense',
    intermediateSize: readIntermediateSize(config, 'intermediate_size', 10944),
    activation,
  } as const;
  const numDense = config.integer('first_k_dense_replace', 1, { min: 0 });
  const layers = Array.from(
    { length: decoder.numLayers },
    (_, layer): LayerSpec => ({ attention, ffn: layer < numDense ? dense : moe }),
  );
  return plainSpec('glm4_moe', decoder, layers);
}

export const glm4Moe: Family = {
  modelType: 'glm4_moe',
  className: 'Glm4MoeForCausalLM',
  readSpec,
  hubNames: {
    ...HUB_DECODER,
    ...HUB_DENSE_MLP,
    ...HUB_MLP_EXPERTS,
    ...HUB_SHARED_EXPERTS,
    routerSelectionBias: ['model.layers.{layer}.mlp.gate.e_score_correction_bias'],
  },
  gguf: {
    architecture: 'glm4moe',
    ropeStyle: 'neox',
    keys: {
      moe_intermediate_size: 'expert_feed_forward_length',
      n_shared_experts: 'expert_shared_count',
      first_k_dense_replace: 'leading_dense_block_count',
      norm_topk_prob: 'expert_weights_norm',
      routed_scaling_factor: 'expert_weights_scale',
      n_group: 'expert_group_count',
      topk_group: 'expert_group_used_count',
      num_nextn_predict_layers: 'nextn_predict_layers',
    },
    gating: 'sigmoid',
    names: { ffnNorm: ['blk.{layer}.post_attention_norm.weight'] },
    defaults: ({ tensors }) => ({
      attention_bias: tensors.has('blk.0.attn_q.bias'),
      use_qk_norm: tensors.has('blk.0.attn_q_norm.weight'),
    }),
  },
};
