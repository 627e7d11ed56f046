/**
 * DeepSeek-V2 and -V3 with the families that took their design over (Moonlight and Kimi-K2 call themselves deepseek_v3,
 * GLM-4.7-Flash is glm4_moe_lite): latent attention, shared experts, dense layers first, group-limited routing.
 * Defaults as in transformers 5.18.
 */
import type { ConfigReader } from '../config.js';
import type { GgufFamily } from '../gguf/family.js';
import type { LayerSpec, ModelSpec, MoeFfnSpec, RouterSpec } from '../model-spec.js';
import {
  type DecoderDefaults,
  plainSpec,
  readActivation,
  readDecoderConfig,
  readExpertCounts,
  readIntermediateSize,
} from './decoder-config.js';
import { readExpertGroups } from './expert-groups.js';
import type { Family } from './family.js';
import { HUB_DENSE_MLP, HUB_MLP_EXPERTS, HUB_SHARED_EXPERTS } from './hub-names.js';
import { HUB_LATENT_DECODER, type LatentDefaults, readLatentAttention } from './latent-attention.js';

type Defaults = DecoderDefaults &
  LatentDefaults & {
    intermediateSize: number;
    moeIntermediateSize: number;
    numExperts: number;
    /** Undefined where the class asks for the key. */
    numExpertsPerTok: number | undefined;
    numSharedExperts: number;
    numDenseLayers: number;
    numGroups: number;
    chosenGroups: number;
    normTopkProb: boolean;
    routedScalingFactor: number;
    scoring: 'softmax' | 'sigmoid';
  };

const V2: Defaults = {
  vocabSize: 102400,
  hiddenSize: 4096,
  numLayers: 32,
  numHeads: 32,
  numKvHeads: 'numHeads',
  maxPositions: 2048,
  normEps: 1e-6,
  ropeTheta: 10000,
  queryRank: 1536,
  keyValueRank: 512,
  nopeHeadDim: 128,
  ropeHeadDim: 64,
  valueHeadDim: 128,
  intermediateSize: 11008,
  moeIntermediateSize: 1407,
  numExperts: 64,
  numExpertsPerTok: undefined,
  numSharedExperts: 2,
  numDenseLayers: 0,
  numGroups: 1,
  chosenGroups: 1,
  normTopkProb: false,
  routedScalingFactor: 1,
  scoring: 'softmax',
};

const V3: Defaults = {
  ...V2,
  vocabSize: 129280,
  hiddenSize: 7168,
  numLayers: 61,
  numHeads: 128,
  maxPositions: 4096,
  intermediateSize: 18432,
  moeIntermediateSize: 2048,
  numExperts: 256,
  numExpertsPerTok: 8,
  numSharedExperts: 1,
  numDenseLayers: 3,
  numGroups: 8,
  chosenGroups: 4,
  normTopkProb: true,
  routedScalingFactor: 2.5,
  scoring: 'sigmoid',
};

const GLM_LITE: Defaults = {
  ...V3,
  vocabSize: 154880,
  hiddenSize: 2048,
  numLayers: 47,
  numHeads: 20,
  maxPositions: 202752,
  normEps: 1e-5,
  queryRank: 768,
  nopeHeadDim: 192,
  valueHeadDim: 256,
  intermediateSize: 10240,
  moeIntermediateSize: 1536,
  numExperts: 64,
  numExpertsPerTok: 4,
  numDenseLayers: 1,
  numGroups: 1,
  chosenGroups: 1,
  routedScalingFactor: 1.8,
};

const EXPERT_KEYS = {
  numExperts: ['n_routed_experts', 'num_local_experts', 'num_experts'],
  numExpertsPerTok: ['num_experts_per_tok'],
};

function readRouter(
  config: ConfigReader,
  counts: { numExperts: number; numExpertsPerTok: number },
  defaults: Defaults,
): RouterSpec {
  const scoring = config.text('scoring_func', defaults.scoring);
  if (scoring !== 'softmax' && scoring !== 'sigmoid') {
    throw config.unsupported('scoring_func', 'softmax or sigmoid', scoring);
  }
  const isV3 = scoring === 'sigmoid';
  const { numGroups, chosenGroups } = defaults;
  const score = isV3 ? 'top-two-sum' : 'max';
  const groups = readExpertGroups(config, counts, { numGroups, chosenGroups, score });
  const normTopkProb = config.flag('norm_topk_prob', defaults.normTopkProb);
  // The published V2 code can divide by the sum, transformers' cannot; no V2 checkpoint asks for it.
  if (!isV3 && normTopkProb) {
    throw config.unsupported('norm_topk_prob', 'false with softmax scoring', normTopkProb);
  }
  const greedy = config.text('topk_method', 'greedy') === 'greedy';
  return {
    scoring,
    normTopkProb,
    jitterEps: 0,
    selectionBias: isV3,
    groups: !isV3 && greedy ? undefined : groups,
    weightMultiplier: config.number('routed_scaling_factor', defaults.routedScalingFactor),
  };
}

function readMoe(config: ConfigReader, defaults: Defaults): MoeFfnSpec {
  const { numExperts, numExpertsPerTok, numSharedExperts, moeIntermediateSize } = defaults;
  if (numExpertsPerTok === undefined) config.integer('num_experts_per_tok', undefined);
  const counts = readExpertCounts(
    config,
    { numExperts, numExpertsPerTok: numExpertsPerTok ?? 1 },
    EXPERT_KEYS,
  );
  const intermediateSize = readIntermediateSize(config, 'moe_intermediate_size', moeIntermediateSize);
  const numShared = config.integer('n_shared_experts', numSharedExperts, { max: 1024 });
  return {
    kind: 'moe',
    ...counts,
    intermediateSize,
    activation: readActivation(config),
    router: readRouter(config, counts, defaults),
    sharedExpert: { intermediateSize: intermediateSize * numShared, gate: 'none' },
  };
}

/** Whether each layer is sparse. */
function readSparse(config: ConfigReader, numLayers: number, defaults: Defaults): boolean[] {
  const numDense = config.integer('first_k_dense_replace', defaults.numDenseLayers, { min: 0 });
  const listed = config.texts('mlp_layer_types', []);
  if (listed.length > 0 && listed.length !== numLayers) {
    throw config.contradiction('num_hidden_layers', numLayers, 'mlp_layer_types', `${listed.length} types`);
  }
  const frequency = config.integer('moe_layer_freq', 1);
  if (frequency !== 1) throw config.unsupported('moe_layer_freq', '1', frequency);
  if (listed.length === 0) return Array.from({ length: numLayers }, (_, layer) => layer >= numDense);
  const sparse = listed.map((type) => type === 'sparse');
  if (config.has('first_k_dense_replace') && sparse.some((is, layer) => is !== layer >= numDense)) {
    throw config.contradiction('first_k_dense_replace', numDense, 'mlp_layer_types', listed);
  }
  return sparse;
}

function readSpec(config: ConfigReader, architecture: string, defaults: Defaults): ModelSpec {
  const ropeHeadDim = config.integer('qk_rope_head_dim', defaults.ropeHeadDim, { min: 2, max: 2 ** 16 });
  const decoder = readDecoderConfig(config, { ...defaults, headDim: ropeHeadDim });
  if (decoder.headDim !== ropeHeadDim) {
    throw config.contradiction('qk_rope_head_dim', ropeHeadDim, 'head_dim', decoder.headDim);
  }
  const attention = readLatentAttention(config, decoder.numHeads, decoder.rope, defaults);
  const moe = readMoe(config, defaults);
  const dense = {
    kind: 'dense',
    intermediateSize: readIntermediateSize(config, 'intermediate_size', defaults.intermediateSize),
    activation: moe.activation,
  } as const;
  const layers = readSparse(config, decoder.numLayers, defaults).map(
    (sparse): LayerSpec => ({ attention, ffn: sparse ? moe : dense }),
  );
  const style = config.flag('rope_interleave', true) ? 'interleaved' : 'neox';
  return { ...plainSpec(architecture, decoder, layers), ropes: [{ ...decoder.rope, style }] };
}

const HUB_NAMES = {
  ...HUB_LATENT_DECODER,
  ...HUB_DENSE_MLP,
  ...HUB_MLP_EXPERTS,
  ...HUB_SHARED_EXPERTS,
  routerSelectionBias: ['model.layers.{layer}.mlp.gate.e_score_correction_bias'],
};

/** llama.cpp has one architecture for all of them; the scoring function tells V2 from the others. */
const GGUF: GgufFamily = {
  architecture: 'deepseek2',
  ropeStyle: 'interleaved',
  keys: {
    moe_intermediate_size: 'expert_feed_forward_length',
    n_shared_experts: 'expert_shared_count',
    first_k_dense_replace: 'leading_dense_block_count',
    norm_topk_prob: 'expert_weights_norm',
    routed_scaling_factor: 'expert_weights_scale',
    n_group: 'expert_group_count',
    topk_group: 'expert_group_used_count',
    kv_lora_rank: 'attention.kv_lora_rank',
    qk_rope_head_dim: 'rope.dimension_count',
  },
  gating: 'any',
  hasOwnHeads: true,
  defaults: (source) => {
    const { integer, tensors } = source;
    const ropeHeadDim = integer('rope.dimension_count') ?? 0;
    const isSigmoid = integer('expert_gating_func') === 2;
    return {
      scoring_func: isSigmoid ? 'sigmoid' : 'softmax',
      // Only the largest V2 groups its experts, and its files say so.
      topk_method: isSigmoid
        ? 'noaux_tc'
        : (integer('expert_group_count') ?? 1) > 1
          ? 'group_limited_greedy'
          : 'greedy',
      n_group: 1,
      topk_group: 1,
      q_lora_rank: tensors.has('blk.0.attn_q.weight') ? null : (integer('attention.q_lora_rank') ?? null),
      // Files from before absorbed attention have the head's own sizes under the plain keys.
      qk_nope_head_dim:
        (integer('attention.key_length_mla') ?? integer('attention.key_length') ?? 0) - ropeHeadDim,
      v_head_dim: integer('attention.value_length_mla') ?? integer('attention.value_length'),
    };
  },
};

const family = (modelType: string, className: string, defaults: Defaults): Family => ({
  modelType,
  className,
  readSpec: (config) => readSpec(config, modelType, defaults),
  hubNames: HUB_NAMES,
  gguf: GGUF,
});

/** The first of them reads their files: the defaults that differ are in the metadata. */
export const deepseekV2: Family = family('deepseek_v2', 'DeepseekV2ForCausalLM', V2);
export const deepseekV3: Family = {
  ...family('deepseek_v3', 'DeepseekV3ForCausalLM', V3),
  otherModelTypes: ['kimi_k2'],
};
export const glm4MoeLite: Family = family('glm4_moe_lite', 'Glm4MoeLiteForCausalLM', GLM_LITE);
