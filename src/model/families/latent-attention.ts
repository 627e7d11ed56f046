/**
 * Reads the keys of multi-head latent attention (DeepSeek-V2, arXiv 2405.04434), and lists its tensor names. Called by
 * the families that have it.
 */
import type { ConfigReader } from '../config.js';
import type { AttentionSpec, RopeSpec } from '../model-spec.js';
import type { WeightNames } from './family.js';
import { HUB_DECODER } from './hub-names.js';

export type LatentDefaults = {
  /** Undefined where the class asks for the key. */
  queryRank: number;
  keyValueRank: number;
  nopeHeadDim: number;
  ropeHeadDim: number;
  valueHeadDim: number;
};

const MAX_WIDTH = { max: 2 ** 20 };

/** Throws ModelFormatError. */
export function readLatentAttention(
  config: ConfigReader,
  numHeads: number,
  rope: RopeSpec,
  defaults: LatentDefaults,
): AttentionSpec {
  // A null key says that queries are not compressed; only a missing one stands for the default.
  const hasQueryRank = config.has('q_lora_rank') || !config.keys().includes('q_lora_rank');
  const latent = {
    queryRank: hasQueryRank ? config.integer('q_lora_rank', defaults.queryRank, MAX_WIDTH) : 0,
    keyValueRank: config.integer('kv_lora_rank', defaults.keyValueRank, MAX_WIDTH),
    nopeHeadDim: config.integer('qk_nope_head_dim', defaults.nopeHeadDim, MAX_WIDTH),
    ropeHeadDim: rope.rotaryDim,
    valueHeadDim: config.integer('v_head_dim', defaults.valueHeadDim, MAX_WIDTH),
  };
  const bias = config.flag('attention_bias', false);
  if (bias) throw config.unsupported('attention_bias', 'false, as in every published model', bias);
  const headDim = latent.nopeHeadDim + latent.ropeHeadDim;
  const told = config.integer('qk_head_dim', headDim);
  if (told !== headDim)
    throw config.contradiction('qk_nope_head_dim', latent.nopeHeadDim, 'qk_head_dim', told);
  return {
    kind: 'mla',
    latent,
    numHeads,
    numKvHeads: 1,
    headDim,
    qkNorm: 'none',
    qkvBias: false,
    outputBias: false,
    clipQkv: 0,
    scale: headDim ** -0.5 * yarnScale(rope) ** 2,
    slidingWindow: 0,
    rope: 0,
  };
}

/** YaRN's temperature on the logits, which DeepSeek applies to the part that is not rotated as well. */
function yarnScale({ scaling }: RopeSpec): number {
  if (scaling.type !== 'yarn' || !scaling.mscaleAllDim || scaling.factor <= 1) return 1;
  return 0.1 * scaling.mscaleAllDim * Math.log(scaling.factor) + 1;
}

const ATTENTION = 'model.layers.{layer}.self_attn';

export const HUB_LATENT_DECODER: WeightNames = {
  ...HUB_DECODER,
  query: [`${ATTENTION}.q_proj.weight`, `${ATTENTION}.q_b_proj.weight`],
  queryDown: [`${ATTENTION}.q_a_proj.weight`],
  queryNorm: [`${ATTENTION}.q_a_layernorm.weight`],
  latentDown: [`${ATTENTION}.kv_a_proj_with_mqa.weight`],
  keyNorm: [`${ATTENTION}.kv_a_layernorm.weight`],
  keyUp: [`${ATTENTION}.kv_b_proj.weight`],
  valueUp: [`${ATTENTION}.kv_b_proj.weight`],
};
