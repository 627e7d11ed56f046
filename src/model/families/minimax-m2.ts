/**
 * MiniMax M2: norm on q and k over the full projection, partly rotated heads, sigmoid routing with a bias that
 * balances the choice, every layer sparse. Defaults as in transformers 5.18.
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
import { HUB_BLOCK_SPARSE_EXPERTS, HUB_DECODER, mergeNames } from './hub-names.js';

const DEFAULTS = {
  vocabSize: 200064,
  hiddenSize: 3072,
  numLayers: 62,
  numHeads: 48,
  numKvHeads: 8,
  headDim: 128,
  maxPositions: 196608,
  normEps: 1e-6,
  ropeTheta: 5e6,
  partialRotaryFactor: 1,
};

function readSpec(config: ConfigReader): ModelSpec {
  const decoder = readDecoderConfig(config, DEFAULTS);
  // Published configs say so; transformers has no other form.
  const qkNorm = config.text('qk_norm_type', 'per_layer');
  if (qkNorm !== 'per_layer') throw config.unsupported('qk_norm_type', 'per_layer', qkNorm);
  const layer: LayerSpec = {
    attention: { ...plainAttention(decoder), qkNorm: 'full' },
    ffn: {
      kind: 'moe',
      ...readExpertCounts(config, { numExperts: 256, numExpertsPerTok: 8 }),
      intermediateSize: readIntermediateSize(config, 'intermediate_size', 1536),
      activation: readActivation(config),
      router: { scoring: 'sigmoid', normTopkProb: true, jitterEps: 0, selectionBias: true },
    },
  };
  return plainSpec('minimax_m2', decoder, new Array<LayerSpec>(decoder.numLayers).fill(layer));
}

const BLOCK = 'model.layers.{layer}';

export const minimaxM2: Family = {
  modelType: 'minimax_m2',
  className: 'MiniMaxM2ForCausalLM',
  otherModelTypes: ['minimax'],
  readSpec,
  hubNames: mergeNames(HUB_DECODER, HUB_BLOCK_SPARSE_EXPERTS, {
    router: [`${BLOCK}.mlp.gate.weight`],
    routerSelectionBias: [
      `${BLOCK}.block_sparse_moe.e_score_correction_bias`,
      `${BLOCK}.mlp.e_score_correction_bias`,
    ],
  }),
  gguf: { architecture: 'minimax-m2', ropeStyle: 'neox', gating: 'sigmoid' },
};
