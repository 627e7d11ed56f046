/**
 * Mixtral (8x7B, 8x22B): every layer sparse, softmax routing with the chosen weights renormalised, an optional
 * sliding window. Defaults as in transformers 5.18.
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
  readSlidingWindow,
} from './decoder-config.js';
import type { Family } from './family.js';
import { HUB_BLOCK_SPARSE_EXPERTS, HUB_DECODER, mergeNames } from './hub-names.js';

const DEFAULTS = {
  vocabSize: 32000,
  hiddenSize: 4096,
  numLayers: 32,
  numHeads: 32,
  numKvHeads: 8,
  maxPositions: 131072,
  normEps: 1e-5,
  ropeTheta: 1e6,
};

function readSpec(config: ConfigReader): ModelSpec {
  const decoder = readDecoderConfig(config, DEFAULTS);
  const layer: LayerSpec = {
    attention: { ...plainAttention(decoder), slidingWindow: readSlidingWindow(config, 0) },
    ffn: {
      kind: 'moe',
      ...readExpertCounts(config, { numExperts: 8, numExpertsPerTok: 2 }),
      intermediateSize: readIntermediateSize(config, 'intermediate_size', 14336),
      activation: readActivation(config),
      router: { scoring: 'softmax', normTopkProb: true, jitterEps: 0 },
    },
  };
  return plainSpec('mixtral', decoder, new Array<LayerSpec>(decoder.numLayers).fill(layer));
}

export const mixtral: Family = {
  modelType: 'mixtral',
  className: 'MixtralForCausalLM',
  readSpec,
  hubNames: mergeNames(HUB_DECODER, HUB_BLOCK_SPARSE_EXPERTS, {
    router: ['model.layers.{layer}.mlp.gate.weight'],
  }),
  // Dense Llama models have the same architecture name; they have no experts and are refused for that.
  gguf: {
    architecture: 'llama',
    ropeStyle: 'interleaved',
    keys: { sliding_window: 'attention.sliding_window' },
  },
};
