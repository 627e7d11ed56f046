/**
 * Phi MoE (Phi-3.5-MoE, Phi-mini-MoE): LayerNorm with biases, SparseMixer routing of two experts (Liu et al. 2024,
 * arXiv 2409.12136), biases on attention and lm_head where the config says so, LongRoPE with its own mscales.
 * Defaults as in transformers 5.18.
 */
import type { ConfigReader } from '../config.js';
import type { LayerSpec, ModelSpec, RopeSpec } from '../model-spec.js';
import {
  plainAttention,
  plainSpec,
  readActivation,
  readDecoderConfig,
  readExpertCounts,
  readIntermediateSize,
  readSlidingWindow,
} from './decoder-config.js';
import type { Family } from './family.js';
import { HUB_BLOCK_SPARSE_EXPERTS, HUB_DECODER, mergeNames } from './hub-names.js';

const DEFAULTS = {
  vocabSize: 32064,
  hiddenSize: 4096,
  numLayers: 32,
  numHeads: 32,
  numKvHeads: 8,
  maxPositions: 131072,
  normEps: 1e-5,
  ropeTheta: 1e6,
};

/** SparseMixer is defined for a first and a second expert. */
const NUM_EXPERTS_PER_TOK = 2;

function checkRope(config: ConfigReader, { scaling }: RopeSpec): void {
  if (scaling.type === 'default') return;
  if (scaling.type !== 'longrope') throw config.unsupported('rope_scaling', 'longrope or none', scaling.type);
  for (const [key, value] of [
    ['short_mscale', scaling.shortMscale],
    ['long_mscale', scaling.longMscale],
  ] as const) {
    if (value === undefined) throw config.error(`rope_scaling.${key}`, 'a number', undefined);
  }
}

function readSpec(config: ConfigReader): ModelSpec {
  const decoder = readDecoderConfig(config, DEFAULTS);
  checkRope(config, decoder.rope);
  const bias = config.flag('attention_bias', false);
  const counts = readExpertCounts(config, { numExperts: 16, numExpertsPerTok: NUM_EXPERTS_PER_TOK });
  if (counts.numExpertsPerTok !== NUM_EXPERTS_PER_TOK) {
    throw config.unsupported(
      'num_experts_per_tok',
      `${NUM_EXPERTS_PER_TOK} with SparseMixer`,
      counts.numExpertsPerTok,
    );
  }
  const layer: LayerSpec = {
    attention: {
      ...plainAttention(decoder),
      qkvBias: bias,
      outputBias: bias,
      slidingWindow: readSlidingWindow(config, 0),
    },
    ffn: {
      kind: 'moe',
      ...counts,
      intermediateSize: readIntermediateSize(config, 'intermediate_size', 6400),
      activation: readActivation(config),
      router: {
        scoring: 'sparsemixer',
        normTopkProb: false,
        jitterEps: config.number('router_jitter_noise', 0.01, { min: 0 }),
      },
    },
  };
  return {
    ...plainSpec('phimoe', decoder, new Array<LayerSpec>(decoder.numLayers).fill(layer)),
    norm: { kind: 'layer', eps: decoder.normEps },
    lmHeadBias: config.flag('lm_head_bias', false),
  };
}

export const phimoe: Family = {
  modelType: 'phimoe',
  className: 'PhimoeForCausalLM',
  readSpec,
  hubNames: mergeNames(HUB_DECODER, HUB_BLOCK_SPARSE_EXPERTS, {
    router: ['model.layers.{layer}.mlp.router.weight'],
  }),
  gguf: {
    architecture: 'phimoe',
    ropeStyle: 'neox',
    // Only our own converter records it.
    keys: { router_jitter_noise: 'router_jitter_noise' },
    defaults: ({ tensors, integer }) => ({
      attention_bias: tensors.has('blk.0.attn_q.bias'),
      lm_head_bias: tensors.has('output.bias'),
      // Written as 0 for no window.
      sliding_window: integer('attention.sliding_window') || null,
    }),
  },
};
