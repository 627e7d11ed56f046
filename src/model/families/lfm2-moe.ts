/**
 * LFM2 MoE (LFM2-8B-A1B): gated short convolutions with attention in between, sigmoid routing with a bias that balances
 * the choice, dense layers first. Defaults as in transformers 5.18.
 */
import type { ConfigReader } from '../config.js';
import type { OwnMetadata } from '../gguf/family.js';
import type { LayerSpec, ModelSpec, MoeFfnSpec } from '../model-spec.js';
import {
  plainAttention,
  plainSpec,
  readDecoderConfig,
  readExpertCounts,
  readIntermediateSize,
} from './decoder-config.js';
import type { Family } from './family.js';
import { HUB_DECODER, mergeNames, singleExperts, stackedExperts } from './hub-names.js';
import { readLayerTypes } from './layer-types.js';
import { NO_ATTENTION, readShortConv } from './recurrent-layers.js';

const DEFAULTS = {
  vocabSize: 65536,
  hiddenSize: 2048,
  numLayers: 32,
  numHeads: 32,
  numKvHeads: 8,
  maxPositions: 128000,
  normEps: 1e-5,
  ropeTheta: 1000000,
  tiedEmbeddings: true,
};

function readMoe(config: ConfigReader): MoeFfnSpec {
  return {
    kind: 'moe',
    ...readExpertCounts(config, { numExperts: 32, numExpertsPerTok: 4 }),
    intermediateSize: readIntermediateSize(config, 'moe_intermediate_size', 1792),
    activation: 'silu',
    router: {
      scoring: 'sigmoid',
      normTopkProb: config.flag('norm_topk_prob', true),
      jitterEps: 0,
      selectionBias: config.flag('use_expert_bias', true),
      weightMultiplier: config.number('routed_scaling_factor', 1),
    },
  };
}

function readSpec(config: ConfigReader): ModelSpec {
  const decoder = readDecoderConfig(config, DEFAULTS);
  const attention = { ...plainAttention(decoder), qkNorm: 'head' } as const;
  const recurrent = readShortConv(config, decoder.hiddenSize);
  const known = ['conv', 'full_attention'] as const;
  if (!config.has('layer_types')) throw config.error('layer_types', 'a list of strings', undefined);
  const types = readLayerTypes(config, decoder.numLayers, known, () => 'conv');
  const moe = readMoe(config);
  const dense = {
    kind: 'dense',
    intermediateSize: readIntermediateSize(config, 'intermediate_size', 7168),
    activation: 'silu',
  } as const;
  const numDense = config.integer('num_dense_layers', 2, { min: 0 });
  const layers = types.map((type, layer): LayerSpec => {
    const ffn = layer < numDense ? dense : moe;
    return type === 'conv' ? { attention: NO_ATTENTION, recurrent, ffn } : { attention, ffn };
  });
  return plainSpec('lfm2_moe', decoder, layers);
}

const LAYER = 'model.layers.{layer}';
const FFN = `${LAYER}.feed_forward`;
/** The three inputs of a short convolution lie behind one another. */
const input = (part: number) => ({ tensor: `${LAYER}.conv.in_proj.weight`, part, parts: 3 });
const ggufInput = (part: number) => ({ tensor: 'blk.{layer}.shortconv.in_proj.weight', part, parts: 3 });

function ggufEntries({ layers }: ModelSpec): OwnMetadata {
  const heads = layers.map(({ attention }) => attention.numKvHeads);
  const width = layers.find(({ recurrent }) => recurrent !== undefined)?.recurrent?.convWidth ?? 0;
  return {
    entries: {
      'attention.head_count_kv': { type: 'i32s', value: heads },
      'shortconv.l_cache': { type: 'u32', value: width },
    },
  };
}

export const lfm2Moe: Family = {
  modelType: 'lfm2_moe',
  className: 'Lfm2MoeForCausalLM',
  readSpec,
  hubNames: {
    ...HUB_DECODER,
    ...mergeNames(singleExperts('feed_forward', 'w1', 'w3', 'w2'), stackedExperts('feed_forward')),
    finalNorm: ['model.embedding_norm.weight'],
    attentionNorm: [`${LAYER}.operator_norm.weight`],
    ffnNorm: [`${LAYER}.ffn_norm.weight`],
    queryNorm: [`${LAYER}.self_attn.q_layernorm.weight`],
    keyNorm: [`${LAYER}.self_attn.k_layernorm.weight`],
    output: [`${LAYER}.self_attn.out_proj.weight`, `${LAYER}.conv.out_proj.weight`],
    convGate: [input(0)],
    outputGate: [input(1)],
    convInput: [input(2)],
    convKernel: [`${LAYER}.conv.conv.weight`],
    gate: [`${FFN}.w1.weight`],
    up: [`${FFN}.w3.weight`],
    down: [`${FFN}.w2.weight`],
    router: [`${FFN}.gate.weight`],
    routerSelectionBias: [`${FFN}.expert_bias`],
  },
  gguf: {
    architecture: 'lfm2moe',
    ropeStyle: 'neox',
    gating: 'sigmoid',
    hasLayersWithoutHeads: true,
    names: {
      finalNorm: ['token_embd_norm.weight'],
      convGate: [ggufInput(0)],
      outputGate: [ggufInput(1)],
      convInput: [ggufInput(2)],
    },
    layerNames: ({ recurrent }) =>
      recurrent === undefined
        ? {}
        : {
            output: ['blk.{layer}.shortconv.out_proj.weight'],
            convKernel: ['blk.{layer}.shortconv.conv.weight'],
          },
    written: ggufEntries,
    keys: {
      moe_intermediate_size: 'expert_feed_forward_length',
      num_dense_layers: 'leading_dense_block_count',
      norm_topk_prob: 'expert_weights_norm',
      routed_scaling_factor: 'expert_weights_scale',
      conv_L_cache: 'shortconv.l_cache',
    },
    // A layer without key and value heads has a convolution.
    defaults: ({ metadata, tensors }) => ({
      layer_types: Array.from(metadata.numbers('lfm2moe.attention.head_count_kv') ?? [], (heads) =>
        heads === 0 ? 'conv' : 'full_attention',
      ),
      use_expert_bias: [...tensors].some(({ name }) => /^blk\.\d+\.exp_probs_b/.test(name)),
    }),
  },
};
