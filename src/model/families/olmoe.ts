/**
 * OLMoE (OLMoE-1B-7B): norm on q and k over the full projection, optional clipping of q, k, v. Every layer is sparse.
 * Defaults as in transformers 5.18.
 */
import type { ConfigReader } from '../config.js';
import type { LayerSpec, ModelSpec } from '../model-spec.js';
import {
  plainAttention,
  plainSpec,
  readActivation,
  readDecoderConfig,
  readExpertCounts,
  readIntermediateSize,
} from './decoder-config.js';
import type { Family } from './family.js';
import { HUB_DECODER, HUB_MLP_EXPERTS } from './hub-names.js';

const DEFAULTS = {
  vocabSize: 50304,
  hiddenSize: 2048,
  numLayers: 16,
  numHeads: 16,
  numKvHeads: 'numHeads',
  maxPositions: 4096,
  normEps: 1e-5,
  ropeTheta: 10000,
} as const;

function readSpec(config: ConfigReader): ModelSpec {
  const decoder = readDecoderConfig(config, DEFAULTS);
  const bias = config.flag('attention_bias', false);
  const layer: LayerSpec = {
    attention: {
      ...plainAttention(decoder),
      qkNorm: 'full',
      qkvBias: bias,
      outputBias: bias,
      clipQkv: config.has('clip_qkv') ? config.number('clip_qkv', undefined, { min: Number.MIN_VALUE }) : 0,
    },
    ffn: {
      kind: 'moe',
      ...readExpertCounts(config, { numExperts: 64, numExpertsPerTok: 8 }),
      intermediateSize: readIntermediateSize(config, 'intermediate_size', 2048),
      activation: readActivation(config),
      router: { scoring: 'softmax', normTopkProb: config.flag('norm_topk_prob', false), jitterEps: 0 },
    },
  };
  return plainSpec('olmoe', decoder, new Array<LayerSpec>(decoder.numLayers).fill(layer));
}

export const olmoe: Family = {
  modelType: 'olmoe',
  className: 'OlmoeForCausalLM',
  readSpec,
  hubNames: { ...HUB_DECODER, ...HUB_MLP_EXPERTS },
  gguf: {
    architecture: 'olmoe',
    ropeStyle: 'neox',
    keys: { clip_qkv: 'attention.clamp_kqv', norm_topk_prob: 'expert_weights_norm' },
    defaults: ({ tensors }) => ({ attention_bias: tensors.has('blk.0.attn_q.bias') }),
  },
};
