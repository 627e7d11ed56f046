/**
 * Tensor names that the families' Hub checkpoints share, for the families to spread into their own lists: the
 * attention block and what stands outside the layers, and the spellings of expert tensors (one per expert as
 * published, or all experts stacked as transformers 5 keeps them).
 */
import type { WeightNames } from './family.js';

const LAYER = 'model.layers.{layer}';
const ATTENTION = `${LAYER}.self_attn`;

export const HUB_DECODER: WeightNames = {
  embedding: ['model.embed_tokens.weight'],
  finalNorm: ['model.norm.weight'],
  finalNormBias: ['model.norm.bias'],
  lmHead: ['lm_head.weight'],
  lmHeadBias: ['lm_head.bias'],
  attentionNorm: [`${LAYER}.input_layernorm.weight`],
  attentionNormBias: [`${LAYER}.input_layernorm.bias`],
  query: [`${ATTENTION}.q_proj.weight`],
  key: [`${ATTENTION}.k_proj.weight`],
  value: [`${ATTENTION}.v_proj.weight`],
  queryBias: [`${ATTENTION}.q_proj.bias`],
  keyBias: [`${ATTENTION}.k_proj.bias`],
  valueBias: [`${ATTENTION}.v_proj.bias`],
  queryNorm: [`${ATTENTION}.q_norm.weight`],
  keyNorm: [`${ATTENTION}.k_norm.weight`],
  output: [`${ATTENTION}.o_proj.weight`],
  outputBias: [`${ATTENTION}.o_proj.bias`],
  ffnNorm: [`${LAYER}.post_attention_layernorm.weight`],
  ffnNormBias: [`${LAYER}.post_attention_layernorm.bias`],
};

/** Experts stacked as transformers 5 keeps them: [E, 2I, H] with gate before up, and [E, H, I]. */
export function stackedExperts(block: string): WeightNames {
  const gateUp = `${LAYER}.${block}.experts.gate_up_proj`;
  return {
    expertGate: [{ tensor: gateUp, part: 0, parts: 2 }],
    expertUp: [{ tensor: gateUp, part: 1, parts: 2 }],
    expertDown: [`${LAYER}.${block}.experts.down_proj`],
  };
}

/** Several name lists as one; names of earlier lists are preferred. */
export function mergeNames(...lists: readonly WeightNames[]): WeightNames {
  const merged: WeightNames = {};
  for (const list of lists) {
    for (const role of Object.keys(list) as (keyof WeightNames)[]) {
      merged[role] = [...(merged[role] ?? []), ...(list[role] ?? [])];
    }
  }
  return merged;
}

/** One tensor per expert and matrix, under the given last names. */
export function singleExperts(block: string, gate: string, up: string, down: string): WeightNames {
  const expert = `${LAYER}.${block}.experts.{expert}`;
  return {
    expertGate: [`${expert}.${gate}.weight`],
    expertUp: [`${expert}.${up}.weight`],
    expertDown: [`${expert}.${down}.weight`],
  };
}

/** `mlp.experts.N.gate_proj` and so on, router `mlp.gate`: Qwen and OLMoE checkpoints. */
export const HUB_MLP_EXPERTS: WeightNames = mergeNames(
  { router: [`${LAYER}.mlp.gate.weight`] },
  singleExperts('mlp', 'gate_proj', 'up_proj', 'down_proj'),
  stackedExperts('mlp'),
);

/** One shared expert behind a gate, `mlp.shared_expert`: Qwen checkpoints. */
export const HUB_SHARED_EXPERT: WeightNames = {
  sharedGate: [`${LAYER}.mlp.shared_expert.gate_proj.weight`],
  sharedUp: [`${LAYER}.mlp.shared_expert.up_proj.weight`],
  sharedDown: [`${LAYER}.mlp.shared_expert.down_proj.weight`],
  sharedExpertGate: [`${LAYER}.mlp.shared_expert_gate.weight`],
};

/** Shared experts as one block, `mlp.shared_experts`: DeepSeek's naming, which GLM and ERNIE took over. */
export const HUB_SHARED_EXPERTS: WeightNames = {
  sharedGate: [`${LAYER}.mlp.shared_experts.gate_proj.weight`],
  sharedUp: [`${LAYER}.mlp.shared_experts.up_proj.weight`],
  sharedDown: [`${LAYER}.mlp.shared_experts.down_proj.weight`],
};

/** `block_sparse_moe.experts.N.w1` (gate), `w3` (up), `w2` (down): Mixtral and Phi checkpoints. */
export const HUB_BLOCK_SPARSE_EXPERTS: WeightNames = mergeNames(
  { router: [`${LAYER}.block_sparse_moe.gate.weight`] },
  singleExperts('block_sparse_moe', 'w1', 'w3', 'w2'),
  stackedExperts('mlp'),
);

/** A dense feed-forward part in the place of experts. */
export const HUB_DENSE_MLP: WeightNames = {
  gate: [`${LAYER}.mlp.gate_proj.weight`],
  up: [`${LAYER}.mlp.up_proj.weight`],
  down: [`${LAYER}.mlp.down_proj.weight`],
};
