/**
 * Granite MoE (granite-3.x-1b-a400m and -3b-a800m, PowerMoE): softmax over the chosen logits, multipliers on
 * embeddings, attention, residuals and logits, gate and up fused in one tensor for all experts.
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
import { HUB_DECODER, mergeNames, stackedExperts } from './hub-names.js';

const DEFAULTS = {
  vocabSize: 32000,
  hiddenSize: 4096,
  numLayers: 32,
  numHeads: 32,
  numKvHeads: 'numHeads',
  maxPositions: 2048,
  normEps: 1e-6,
  ropeTheta: 10000,
} as const;

function readSpec(config: ConfigReader): ModelSpec {
  const decoder = readDecoderConfig(config, DEFAULTS);
  const bias = config.flag('attention_bias', false);
  const layer: LayerSpec = {
    attention: {
      ...plainAttention(decoder),
      qkvBias: bias,
      outputBias: bias,
      scale: config.number('attention_multiplier', 1),
    },
    ffn: {
      kind: 'moe',
      ...readExpertCounts(config, { numExperts: 8, numExpertsPerTok: 2 }),
      intermediateSize: readIntermediateSize(config, 'intermediate_size', 11008),
      activation: readActivation(config),
      router: { scoring: 'topk-softmax', normTopkProb: false, jitterEps: 0 },
    },
  };
  return {
    ...plainSpec('granitemoe', decoder, new Array<LayerSpec>(decoder.numLayers).fill(layer)),
    embeddingMultiplier: config.number('embedding_multiplier', 1),
    residualMultiplier: config.number('residual_multiplier', 1),
    logitsMultiplier: 1 / config.number('logits_scaling', 1, { min: Number.MIN_VALUE }),
  };
}

const BLOCK = 'model.layers.{layer}.block_sparse_moe';
const INPUT = `${BLOCK}.input_linear.weight`;

export const granitemoe: Family = {
  modelType: 'granitemoe',
  className: 'GraniteMoeForCausalLM',
  readSpec,
  hubNames: mergeNames(
    HUB_DECODER,
    {
      router: [`${BLOCK}.router.layer.weight`, `${BLOCK}.router.weight`],
      expertGate: [{ tensor: INPUT, part: 0, parts: 2 }],
      expertUp: [{ tensor: INPUT, part: 1, parts: 2 }],
      expertDown: [`${BLOCK}.output_linear.weight`],
    },
    stackedExperts('block_sparse_moe'),
  ),
  gguf: {
    architecture: 'granitemoe',
    ropeStyle: 'interleaved',
    keys: {
      attention_multiplier: 'attention.scale',
      embedding_multiplier: 'embedding_scale',
      residual_multiplier: 'residual_scale',
      logits_scaling: 'logit_scale',
    },
    defaults: ({ tensors, integer }) => ({
      attention_bias: tensors.has('blk.0.attn_q.bias'),
      attention_multiplier:
        ((integer('embedding_length') ?? 0) / (integer('attention.head_count') ?? 1)) ** -0.5,
    }),
  },
};
