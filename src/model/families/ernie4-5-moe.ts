/**
 * ERNIE 4.5 MoE (21B-A3B, 300B-A47B): rotary pairs side by side, softmax routing with a bias that balances the
 * choice, shared experts, dense layers before and after the sparse ones. Defaults as in transformers 5.18.
 */
import type { ConfigReader } from '../config.js';
import { denseLayers } from '../gguf/dense-layers.js';
import type { LayerSpec, ModelSpec, MoeFfnSpec } from '../model-spec.js';
import {
  plainAttention,
  plainSpec,
  readActivation,
  readDecoderConfig,
  readExpertCounts,
  readIntermediateSize,
} from './decoder-config.js';
import type { Family } from './family.js';
import { HUB_DECODER, HUB_DENSE_MLP, HUB_MLP_EXPERTS, HUB_SHARED_EXPERTS } from './hub-names.js';

const DEFAULTS = {
  vocabSize: 103424,
  hiddenSize: 2560,
  numLayers: 28,
  numHeads: 20,
  numKvHeads: 4,
  maxPositions: 131072,
  normEps: 1e-5,
  ropeTheta: 500000,
  tiedEmbeddings: true,
};

const EXPERT_KEYS = {
  numExperts: ['moe_num_experts', 'num_local_experts'],
  numExpertsPerTok: ['moe_k', 'num_experts_per_tok'],
};

/** Whether each layer is sparse: every `moe_layer_interval`-th from the first to the last that the config names. */
function readSparse(config: ConfigReader, numLayers: number): boolean[] {
  const first = config.integer('moe_layer_start_index', 1, { min: 0 });
  const end = config.integer('moe_layer_end_index', -1, { min: -1 });
  const last = end === -1 ? numLayers - 1 : end;
  const interval = config.integer('moe_layer_interval', 1);
  const dense = new Set(config.integers('mlp_only_layers', []));
  return Array.from(
    { length: numLayers },
    (_, layer) => (layer + 1) % interval === 0 && layer >= first && layer <= last && !dense.has(layer),
  );
}

function readMoe(config: ConfigReader): MoeFfnSpec {
  const intermediateSize = readIntermediateSize(config, 'moe_intermediate_size', 1536);
  const numShared = config.integer('moe_num_shared_experts', 2, { min: 0 });
  return {
    kind: 'moe',
    ...readExpertCounts(config, { numExperts: 64, numExpertsPerTok: 6 }, EXPERT_KEYS),
    intermediateSize,
    activation: readActivation(config),
    router: { scoring: 'softmax', normTopkProb: true, jitterEps: 0, selectionBias: true },
    ...(numShared > 0 && {
      sharedExpert: { intermediateSize: intermediateSize * numShared, gate: 'none' },
    }),
  };
}

function readSpec(config: ConfigReader): ModelSpec {
  const decoder = readDecoderConfig(config, DEFAULTS);
  const bias = config.flag('use_bias', false);
  if (bias) throw config.unsupported('use_bias', 'false, as in every published model', bias);
  const moe = readMoe(config);
  const dense = {
    kind: 'dense',
    intermediateSize: readIntermediateSize(config, 'intermediate_size', 12288),
    activation: moe.activation,
  } as const;
  const attention = plainAttention(decoder);
  const layers = readSparse(config, decoder.numLayers).map(
    (sparse): LayerSpec => ({ attention, ffn: sparse ? moe : dense }),
  );
  return {
    ...plainSpec('ernie4_5_moe', decoder, layers),
    ropes: [{ ...decoder.rope, style: 'interleaved' }],
  };
}

export const ernie45Moe: Family = {
  modelType: 'ernie4_5_moe',
  className: 'Ernie4_5_MoeForCausalLM',
  readSpec,
  hubNames: {
    ...HUB_DECODER,
    ...HUB_DENSE_MLP,
    ...HUB_MLP_EXPERTS,
    ...HUB_SHARED_EXPERTS,
    routerSelectionBias: [
      'model.layers.{layer}.mlp.moe_statics.e_score_correction_bias',
      'model.layers.{layer}.mlp.gate.moe_statics.e_score_correction_bias',
    ],
  },
  gguf: {
    architecture: 'ernie4_5-moe',
    ropeStyle: 'interleaved',
    constants: { interleave_moe_layer_step: 1 },
    keys: {
      moe_intermediate_size: 'expert_feed_forward_length',
      moe_num_shared_experts: 'expert_shared_count',
    },
    // The tensors tell which layers are dense; the metadata only says so of the first ones.
    defaults: (source) => ({ mlp_only_layers: denseLayers(source), moe_layer_start_index: 0 }),
  },
};
