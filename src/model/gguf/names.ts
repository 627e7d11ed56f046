/**
 * Names of weights in GGUF files; one list serves all families, since converters rename to it. Experts are stacked in
 * one tensor per matrix; files from before 2024 have one tensor per expert.
 */
import type { WeightNames } from '../families/family.js';

const BLOCK = 'blk.{layer}';
/** Gate and up of all experts in one tensor. */
const gateUp = (part: number) => ({ tensor: `${BLOCK}.ffn_gate_up_exps.weight`, part, parts: 2 });

export const GGUF_NAMES: WeightNames = {
  embedding: ['token_embd.weight'],
  finalNorm: ['output_norm.weight'],
  finalNormBias: ['output_norm.bias'],
  lmHead: ['output.weight'],
  lmHeadBias: ['output.bias'],
  attentionNorm: [`${BLOCK}.attn_norm.weight`],
  attentionNormBias: [`${BLOCK}.attn_norm.bias`],
  query: [`${BLOCK}.attn_q.weight`, `${BLOCK}.attn_q_b.weight`],
  key: [`${BLOCK}.attn_k.weight`],
  value: [`${BLOCK}.attn_v.weight`],
  queryBias: [`${BLOCK}.attn_q.bias`],
  keyBias: [`${BLOCK}.attn_k.bias`],
  valueBias: [`${BLOCK}.attn_v.bias`],
  queryNorm: [`${BLOCK}.attn_q_norm.weight`, `${BLOCK}.attn_q_a_norm.weight`],
  keyNorm: [`${BLOCK}.attn_k_norm.weight`, `${BLOCK}.attn_kv_a_norm.weight`],
  output: [`${BLOCK}.attn_output.weight`, `${BLOCK}.ssm_out.weight`, `${BLOCK}.shortconv.out_proj.weight`],
  outputBias: [`${BLOCK}.attn_output.bias`],
  // GLM's converter names it after its place, not its use.
  ffnNorm: [`${BLOCK}.ffn_norm.weight`, `${BLOCK}.post_attention_norm.weight`],
  ffnNormBias: [`${BLOCK}.ffn_norm.bias`],
  gate: [`${BLOCK}.ffn_gate.weight`],
  up: [`${BLOCK}.ffn_up.weight`],
  down: [`${BLOCK}.ffn_down.weight`],
  router: [`${BLOCK}.ffn_gate_inp.weight`],
  routerBias: [`${BLOCK}.ffn_gate_inp.bias`],
  // Older converters left out the ending.
  routerSelectionBias: [`${BLOCK}.exp_probs_b.bias`, `${BLOCK}.exp_probs_b`],
  expertGate: [`${BLOCK}.ffn_gate_exps.weight`, `${BLOCK}.ffn_gate.{expert}.weight`, gateUp(0)],
  expertUp: [`${BLOCK}.ffn_up_exps.weight`, `${BLOCK}.ffn_up.{expert}.weight`, gateUp(1)],
  expertDown: [`${BLOCK}.ffn_down_exps.weight`, `${BLOCK}.ffn_down.{expert}.weight`],
  queryDown: [`${BLOCK}.attn_q_a.weight`],
  latentDown: [`${BLOCK}.attn_kv_a_mqa.weight`],
  keyUp: [`${BLOCK}.attn_k_b.weight`, `${BLOCK}.attn_kv_b.weight`],
  valueUp: [`${BLOCK}.attn_v_b.weight`, `${BLOCK}.attn_kv_b.weight`],
  convKernel: [`${BLOCK}.ssm_conv1d.weight`, `${BLOCK}.shortconv.conv.weight`],
  deltaDecayRate: [`${BLOCK}.ssm_a`],
  deltaDecayBias: [`${BLOCK}.ssm_dt.bias`],
  deltaNorm: [`${BLOCK}.ssm_norm.weight`],
  attentionSinks: [`${BLOCK}.attn_sinks.weight`],
  expertGateBias: [`${BLOCK}.ffn_gate_exps.bias`],
  expertUpBias: [`${BLOCK}.ffn_up_exps.bias`],
  expertDownBias: [`${BLOCK}.ffn_down_exps.bias`],
  // Gemma's dense branch has the names of dense layers.
  sharedGate: [`${BLOCK}.ffn_gate_shexp.weight`, `${BLOCK}.ffn_gate.weight`],
  sharedUp: [`${BLOCK}.ffn_up_shexp.weight`, `${BLOCK}.ffn_up.weight`],
  sharedDown: [`${BLOCK}.ffn_down_shexp.weight`, `${BLOCK}.ffn_down.weight`],
  sharedExpertGate: [`${BLOCK}.ffn_gate_inp_shexp.weight`],
  attentionPostNorm: [`${BLOCK}.post_attention_norm.weight`],
  ffnPostNorm: [`${BLOCK}.post_ffw_norm.weight`],
  sharedPostNorm: [`${BLOCK}.post_ffw_norm_1.weight`],
  expertNorm: [`${BLOCK}.pre_ffw_norm_2.weight`],
  expertPostNorm: [`${BLOCK}.post_ffw_norm_2.weight`],
  routerNorm: [`${BLOCK}.ffn_gate_inp.scale`],
  routerExpertScale: [`${BLOCK}.ffn_down_exps.scale`],
  layerScale: [`${BLOCK}.layer_output_scale.weight`],
};

/** What converters call weights of latent attention that other models have under other names. */
export const LATENT_NAMES: WeightNames = {
  query: [`${BLOCK}.attn_q_b.weight`],
  queryNorm: [`${BLOCK}.attn_q_a_norm.weight`],
  keyNorm: [`${BLOCK}.attn_kv_a_norm.weight`],
};

/** Factors of the rotary frequencies, kept as tensors; they become part of the ModelSpec (rope.ts). */
export const ROPE_FREQS = 'rope_freqs.weight';
export const ROPE_FACTORS_LONG = 'rope_factors_long.weight';
export const ROPE_FACTORS_SHORT = 'rope_factors_short.weight';
