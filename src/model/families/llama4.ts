/**
 * Llama 4 text (Scout, Maverick): attention in chunks with rotary embedding, full attention without it on every fourth
 * layer, norms without weights on q and k, one expert per token whose input the router scales, a shared expert, dense
 * layers between. Defaults as in transformers 5.18.
 */

import { ModelFormatError } from '../../errors.js';
import type { ConfigReader } from '../config.js';
import type { GgufSource, OwnMetadata } from '../gguf/family.js';
import type { JsonObject } from '../json-file.js';
import type { AttentionSpec, DenseFfnSpec, LayerSpec, ModelSpec, MoeFfnSpec } from '../model-spec.js';
import {
  type DecoderConfig,
  plainAttention,
  plainSpec,
  readActivation,
  readDecoderConfig,
  readExpertCounts,
  readIntermediateSize,
} from './decoder-config.js';
import type { Family } from './family.js';
import { HUB_DECODER } from './hub-names.js';
import { readLayerTypes } from './layer-types.js';

const DEFAULTS = {
  vocabSize: 202048,
  hiddenSize: 5120,
  numLayers: 48,
  numHeads: 40,
  numKvHeads: 8,
  headDim: 128,
  maxPositions: 131072,
  normEps: 1e-5,
  ropeTheta: 500000,
};
const CHUNK_SIZE = 8192;
const TEMPERATURE = { scale: 0.1, floorScale: 8192 };

/** Whether each layer rotates queries and keys: 0 and 1 by layer, or all but every n-th. */
function readRotated(config: ConfigReader, numLayers: number): boolean[] {
  const key = 'no_rope_layers';
  const listed = config.integers(key, []);
  const interval = config.integer('no_rope_layer_interval', 4);
  if (listed.length === 0)
    return Array.from({ length: numLayers }, (_, layer) => (layer + 1) % interval !== 0);
  if (listed.length !== numLayers)
    throw config.contradiction('num_hidden_layers', numLayers, key, `${listed.length} layers`);
  return listed.map((rotated) => rotated !== 0);
}

/** Older configs have a number where newer ones have a flag. */
function readTemperature(config: ConfigReader): AttentionSpec['temperature'] {
  const key = 'attn_temperature_tuning';
  const found = config.find(key);
  const enabled =
    typeof found?.value === 'number' ? config.number(key, undefined) !== 0 : config.flag(key, true);
  if (!enabled) return undefined;
  return {
    scale: config.number('attn_scale', TEMPERATURE.scale),
    floorScale: config.number('floor_scale', TEMPERATURE.floorScale, { min: 1 }),
  };
}

function readAttention(config: ConfigReader, decoder: DecoderConfig): AttentionSpec[] {
  const bias = config.flag('attention_bias', false);
  const base = { ...plainAttention(decoder), qkvBias: bias, outputBias: bias };
  const isNormed = config.flag('use_qk_norm', true);
  const temperature = readTemperature(config);
  const rotated = readRotated(config, decoder.numLayers);
  const known = ['chunked_attention', 'full_attention'] as const;
  const types = readLayerTypes(config, decoder.numLayers, known, (layer) =>
    rotated[layer] ? 'chunked_attention' : 'full_attention',
  );
  const hasChunks = types.includes('chunked_attention');
  const chunkSize = hasChunks ? config.integer('attention_chunk_size', CHUNK_SIZE) : 0;
  return types.map((type, layer) => ({
    ...base,
    ...(rotated[layer] ? isNormed && { qkNorm: 'head-unit' as const } : { rope: -1 }),
    ...(!rotated[layer] && temperature !== undefined && { temperature }),
    ...(type === 'chunked_attention' && { chunkSize }),
  }));
}

function readMoe(config: ConfigReader, activation: DenseFfnSpec['activation']): MoeFfnSpec {
  const intermediateSize = readIntermediateSize(config, 'intermediate_size', 8192);
  return {
    kind: 'moe',
    ...readExpertCounts(config, { numExperts: 16, numExpertsPerTok: 1 }),
    intermediateSize,
    activation,
    router: { scoring: 'topk-sigmoid', normTopkProb: false, jitterEps: 0, scalesInput: true },
    sharedExpert: { intermediateSize, gate: 'none' },
  };
}

function readSpec(config: ConfigReader): ModelSpec {
  const decoder = readDecoderConfig(config, DEFAULTS);
  const activation = readActivation(config);
  const moe = readMoe(config, activation);
  const dense: DenseFfnSpec = {
    kind: 'dense',
    intermediateSize: readIntermediateSize(config, 'intermediate_size_mlp', 16384),
    activation,
  };
  const step = config.integer('interleave_moe_layer_step', 1);
  const every = Array.from({ length: decoder.numLayers }, (_, layer) => layer).filter(
    (layer) => (layer + 1) % step === 0,
  );
  const sparse = new Set(config.integers('moe_layers', every));
  const layers = readAttention(config, decoder).map(
    (attention, layer): LayerSpec => ({ attention, ffn: sparse.has(layer) ? moe : dense }),
  );
  return {
    ...plainSpec('llama4_text', decoder, layers),
    ropes: [{ ...decoder.rope, style: 'interleaved' }],
  };
}

/** llama.cpp has chunks, temperature and the norm on q and k as constants. */
function ggufDefaults({ metadata, integer }: GgufSource): JsonObject {
  const window = integer('attention.sliding_window');
  const number = (suffix: string) => metadata.number(`llama4.attention.${suffix}`);
  return {
    use_qk_norm: integer('expert_count') !== 128,
    attention_chunk_size: window || CHUNK_SIZE,
    attn_scale: number('temperature_scale') ?? TEMPERATURE.scale,
    floor_scale: number('temperature_length') ?? TEMPERATURE.floorScale,
    // A window of 0 stands for models whose layers are all full and rotated.
    ...(window === 0 && {
      no_rope_layer_interval: 2 ** 20,
      layer_types: new Array<string>(integer('block_count') ?? 0).fill('full_attention'),
    }),
  };
}

/** The order of layers and what else is a constant in files must be as it is there. */
function ggufEntries({ layers }: ModelSpec, path: string): OwnMetadata {
  const step = 1 + layers.findIndex(({ ffn }) => ffn.kind === 'moe');
  const first = layers[0]?.attention;
  const full = layers.find(({ attention }) => attention.rope < 0)?.attention;
  const experts = layers.find(({ ffn }) => ffn.kind === 'moe')?.ffn;
  const isNormed = experts?.kind === 'moe' && experts.numExperts !== 128;
  const isUsual = layers.every(
    ({ ffn, attention: { qkNorm, qkvBias, chunkSize, temperature, rope } }, layer) =>
      (ffn.kind === 'moe') === ((layer + 1) % step === 0) &&
      !qkvBias &&
      (full === undefined || rope < 0 === ((layer + 1) % 4 === 0)) &&
      (rope < 0
        ? chunkSize === undefined && qkNorm === 'none' && temperature !== undefined
        : chunkSize === first?.chunkSize && (qkNorm === 'head-unit') === isNormed),
  );
  if (!isUsual || (full !== undefined && first?.chunkSize === undefined)) {
    throw new ModelFormatError({
      code: 'ERR_MODEL_UNSUPPORTED',
      file: path,
      field: 'layer_types',
      expected: 'layers in the order and with the parts that Scout and Maverick have: GGUF tells no others',
      got: 'another order',
    });
  }
  const { chunkSize = 0 } = first ?? {};
  const { scale, floorScale } = full?.temperature ?? TEMPERATURE;
  const isOwn = scale !== TEMPERATURE.scale || floorScale !== TEMPERATURE.floorScale;
  return {
    entries: {
      interleave_moe_layer_step: { type: 'u32', value: step },
      leading_dense_block_count: undefined,
      ...(chunkSize !== CHUNK_SIZE && { 'attention.sliding_window': { type: 'u32', value: chunkSize } }),
      ...(isOwn && {
        'attention.temperature_length': { type: 'u32', value: floorScale },
        'attention.temperature_scale': { type: 'f32', value: scale },
      }),
    },
  };
}

const BLOCK = 'model.layers.{layer}.feed_forward';
const gateUp = (part: number) => ({
  tensor: `${BLOCK}.experts.gate_up_proj`,
  part,
  parts: 2,
  transposed: true,
});

export const llama4: Family = {
  modelType: 'llama4_text',
  className: 'Llama4ForCausalLM',
  readSpec,
  hubNames: {
    ...HUB_DECODER,
    gate: [`${BLOCK}.gate_proj.weight`],
    up: [`${BLOCK}.up_proj.weight`],
    down: [`${BLOCK}.down_proj.weight`],
    router: [`${BLOCK}.router.weight`],
    expertGate: [gateUp(0)],
    expertUp: [gateUp(1)],
    expertDown: [{ tensor: `${BLOCK}.experts.down_proj`, part: 0, parts: 1, transposed: true }],
    sharedGate: [`${BLOCK}.shared_expert.gate_proj.weight`],
    sharedUp: [`${BLOCK}.shared_expert.up_proj.weight`],
    sharedDown: [`${BLOCK}.shared_expert.down_proj.weight`],
  },
  wrapper: {
    modelType: 'llama4',
    className: 'Llama4ForConditionalGeneration',
    rename: ['', 'language_model.'],
    unusedPrefixes: ['vision_model.', 'multi_modal_projector.'],
  },
  gguf: {
    architecture: 'llama4',
    ropeStyle: 'interleaved',
    keys: {
      intermediate_size: 'expert_feed_forward_length',
      intermediate_size_mlp: 'feed_forward_length',
      interleave_moe_layer_step: 'interleave_moe_layer_step',
    },
    gating: 'sigmoid',
    written: ggufEntries,
    defaults: ggufDefaults,
  },
};
