/**
 * Configs of Llama 4 and Gemma 4: the published ones, their spellings, text models inside models of more kinds, and
 * what is refused.
 */
import { describe, expect, it } from 'vitest';
import { ModelFormatError } from '../../../src/errors.js';
import { ConfigReader } from '../../../src/model/config.js';
import { familyOf } from '../../../src/model/families/registry.js';
import type { ModelSpec } from '../../../src/model/model-spec.js';
import { openModel } from '../../../src/model/open-model.js';
import { type Json, modelFolder, neededTensors, TINY_CONFIGS, thrownBy } from './tiny-checkpoint.js';

function specOf(config: Json): ModelSpec {
  const reader = new ConfigReader(config, 'config.json');
  return familyOf(reader).readSpec(reader);
}

const tiny = (name: string, changes: Json = {}): Json => ({ ...TINY_CONFIGS[name], ...changes });
const without = (name: string, key: string): Json =>
  Object.fromEntries(Object.entries(tiny(name)).filter(([own]) => own !== key));
const nested = (name: string, changes: Json = {}, outer: Json = {}): Json => ({
  model_type: name.replace('_text', ''),
  text_config: tiny(name, changes),
  ...outer,
});

const SCOUT = {
  attention_bias: false,
  attention_chunk_size: 8192,
  attn_scale: 0.1,
  attn_temperature_tuning: 4,
  floor_scale: 8192,
  head_dim: 128,
  hidden_act: 'silu',
  hidden_size: 5120,
  interleave_moe_layer_step: 1,
  intermediate_size: 8192,
  intermediate_size_mlp: 16384,
  max_position_embeddings: 10485760,
  model_type: 'llama4_text',
  no_rope_layers: [],
  num_attention_heads: 40,
  num_experts_per_tok: 1,
  num_hidden_layers: 48,
  num_key_value_heads: 8,
  num_local_experts: 16,
  rms_norm_eps: 1e-5,
  rope_scaling: {
    factor: 16,
    high_freq_factor: 1,
    low_freq_factor: 1,
    original_max_position_embeddings: 8192,
    rope_type: 'llama3',
  },
  rope_theta: 500000,
  use_qk_norm: true,
  vocab_size: 202048,
};

const GEMMA = {
  attention_bias: false,
  attention_k_eq_v: true,
  enable_moe_block: true,
  final_logit_softcapping: 30,
  global_head_dim: 512,
  head_dim: 256,
  hidden_activation: 'gelu_pytorch_tanh',
  hidden_size: 2816,
  hidden_size_per_layer_input: 0,
  intermediate_size: 2112,
  max_position_embeddings: 262144,
  model_type: 'gemma4_text',
  moe_intermediate_size: 704,
  num_attention_heads: 16,
  num_experts: 128,
  num_global_key_value_heads: 2,
  num_hidden_layers: 30,
  num_key_value_heads: 8,
  num_kv_shared_layers: 0,
  rms_norm_eps: 1e-6,
  rope_parameters: {
    full_attention: { partial_rotary_factor: 0.25, rope_theta: 1000000, rope_type: 'proportional' },
    sliding_attention: { rope_theta: 10000, rope_type: 'default' },
  },
  sliding_window: 1024,
  tie_word_embeddings: true,
  top_k_experts: 8,
  use_bidirectional_attention: 'vision',
  use_double_wide_mlp: false,
  vocab_size: 262144,
};

describe('the published configs', () => {
  it('Llama-4-Scout', () => {
    const spec = specOf({
      architectures: ['Llama4ForConditionalGeneration'],
      model_type: 'llama4',
      text_config: SCOUT,
      vision_config: { hidden_size: 1408 },
    });
    expect(spec.layers.length).toBe(48);
    const [chunked, full] = [spec.layers[2]?.attention, spec.layers[3]?.attention];
    expect(chunked).toMatchObject({ qkNorm: 'head-unit', chunkSize: 8192, rope: 0 });
    expect(chunked?.temperature).toBeUndefined();
    expect(full).toMatchObject({ qkNorm: 'none', rope: -1, temperature: { scale: 0.1, floorScale: 8192 } });
    expect(full?.chunkSize).toBeUndefined();
    expect(spec.ropes[0]).toMatchObject({
      style: 'interleaved',
      scaling: { type: 'llama3', lowFreqFactor: 1, highFreqFactor: 1 },
    });
    expect(spec.layers[0]?.ffn).toMatchObject({
      kind: 'moe',
      numExperts: 16,
      numExpertsPerTok: 1,
      router: { scoring: 'topk-sigmoid', scalesInput: true },
      sharedExpert: { intermediateSize: 8192, gate: 'none' },
    });
  });

  it('Llama-4-Maverick: experts on every other layer, no norm on q and k', () => {
    const changes = { interleave_moe_layer_step: 2, num_local_experts: 128, use_qk_norm: false };
    const spec = specOf({ model_type: 'llama4', text_config: { ...SCOUT, ...changes, rope_scaling: null } });
    expect(spec.layers.slice(0, 4).map(({ ffn }) => ffn.kind)).toEqual(['dense', 'moe', 'dense', 'moe']);
    expect(spec.layers[0]?.ffn.intermediateSize).toBe(16384);
    expect(spec.layers[0]?.attention.qkNorm).toBe('none');
  });

  it('gemma-4-26B-A4B', () => {
    const spec = specOf({
      architectures: ['Gemma4ForConditionalGeneration'],
      model_type: 'gemma4',
      text_config: GEMMA,
      tie_word_embeddings: true,
    });
    expect(spec).toMatchObject({ tiedEmbeddings: true, logitsSoftcap: 30, embeddingMultiplier: 2816 ** 0.5 });
    expect(spec.layers[4]?.attention).toMatchObject({
      numKvHeads: 8,
      headDim: 256,
      slidingWindow: 1024,
      rope: 0,
      scale: 1,
      valueNorm: true,
    });
    const full = spec.layers[5]?.attention;
    expect(full).toMatchObject({
      numKvHeads: 2,
      headDim: 512,
      slidingWindow: 0,
      rope: 1,
      keysAsValues: true,
    });
    expect(spec.ropes[1]).toMatchObject({
      rotaryDim: 512,
      theta: 1e6,
      scaling: { type: 'proportional', rotatedPairs: 64, factor: 1 },
    });
    expect(spec.layers[29]).toMatchObject({
      postNorms: true,
      outputScale: true,
      ffn: {
        branchNorms: true,
        activation: 'gelu_tanh',
        sharedExpert: { intermediateSize: 2112 },
        router: { normTopkProb: true, expertScale: true, logitMultiplier: 2816 ** -0.5 },
      },
    });
  });
});

describe('spellings', () => {
  it('of the full layers of Gemma 4: keys of their own, or entries by layer as transformers 5.18 writes', () => {
    const { global_head_dim, num_global_key_value_heads, ...rest } = tiny('gemma4_text');
    const entry = { head_dim: global_head_dim, num_key_value_heads: num_global_key_value_heads };
    expect(specOf({ ...rest, per_layer_config: { 1: entry } })).toEqual(specOf(tiny('gemma4_text')));
  });

  it('of rotated layers and temperature in Llama 4', () => {
    const listed = { no_rope_layer_interval: 4, no_rope_layers: [1, 0], attn_temperature_tuning: 4 };
    expect(specOf(tiny('llama4_text', listed))).toEqual(specOf(tiny('llama4_text')));
    const cold = specOf(tiny('llama4_text', { attn_temperature_tuning: 0 }));
    expect(cold.layers[1]?.attention.temperature).toBeUndefined();
  });

  it('nested text models have the spec of the text model', () => {
    for (const name of ['llama4_text', 'gemma4_text'])
      expect(specOf(nested(name))).toEqual(specOf(tiny(name)));
  });
});

describe('refused', () => {
  it.each<[string, Json, RegExp]>([
    ['another text model', nested('gemma4_text', { model_type: 'gemma3_text' }), /text_config.model_type/],
    [
      'two answers about tied embeddings',
      nested('llama4_text', { tie_word_embeddings: true }, { tie_word_embeddings: false }),
      /text_config\.tie_word_embeddings: .*`tie_word_embeddings` = false, got true/,
    ],
    [
      'types for another number of layers',
      tiny('llama4_text', { no_rope_layers: [1] }),
      /no_rope_layers: .*`num_hidden_layers` = 2, got "1 layers"/,
    ],
    [
      'chunks of nothing',
      tiny('llama4_text', { attention_chunk_size: 0 }),
      /attention_chunk_size: expected an integer from 1/,
    ],
    ['Gemma 4 without experts', tiny('gemma4_text', { enable_moe_block: false }), /enable_moe_block: .*true/],
    [
      'inputs for each layer, the default',
      without('gemma4_text', 'hidden_size_per_layer_input'),
      /hidden_size_per_layer_input: expected 0, .* got 256/,
    ],
    ['shared keys and values', tiny('gemma4_text', { num_kv_shared_layers: 1 }), /num_kv_shared_layers: .*0/],
    [
      'attention to what follows',
      tiny('gemma4_text', { use_bidirectional_attention: 'all' }),
      /use_bidirectional_attention: .*got "all"/,
    ],
    [
      'full layers of two kinds',
      tiny('gemma4_text', {
        num_hidden_layers: 2,
        layer_types: ['full_attention', 'full_attention'],
        global_head_dim: undefined,
        per_layer_config: { 0: { head_dim: 10 }, 1: { head_dim: 12 } },
      }),
      /per_layer_config\.1: .*`per_layer_config\.0`/,
    ],
    [
      'two widths of full heads',
      tiny('gemma4_text', { per_layer_config: { 1: { head_dim: 12, num_key_value_heads: 2 } } }),
      /per_layer_config\.1\.head_dim: .*`global_head_dim` = 10, got 12/,
    ],
    [
      'no number of experts',
      tiny('gemma4_text', { num_experts: undefined }),
      /num_experts: expected an integer/,
    ],
    [
      'rotary parameters of one kind of layers',
      tiny('gemma4_text', { rope_parameters: { full_attention: {} } }),
      /rope_parameters\.sliding_attention/,
    ],
  ])('%s', (_why, config, message) => {
    const error = thrownBy(() => specOf(config));
    expect(error).toBeInstanceOf(ModelFormatError);
    expect(error.message).toMatch(message);
  });
});

describe('weights of a text model inside a larger one', () => {
  const unused = {
    llama4_text: 'vision_model.patch_embedding.weight',
    gemma4_text: 'model.vision_tower.std',
  };

  it.each(Object.entries(unused))('%s: have their prefix, and images are passed over', (name, image) => {
    const config = nested(name);
    const tensors = [...neededTensors(config), { name: image, shape: [2] }];
    const model = openModel(modelFolder({ config, tensors }));
    expect(model.weights[0]?.tensor).toMatch(/^(language_model\.model|model\.language_model)\.embed_tokens/);
    const plain = () => openModel(modelFolder({ config: tiny(name), tensors: neededTensors(tiny(name)) }));
    expect(model.weights.length).toBe(plain().weights.length);
    expect(() =>
      openModel(modelFolder({ config, tensors: [...tensors, { name: 'other', shape: [2] }] })),
    ).toThrow(/other/);
  });

  it('of stacked experts with inputs before outputs are column ranges', () => {
    const { weights } = openModel(
      modelFolder({ config: tiny('llama4_text'), tensors: neededTensors(tiny('llama4_text')) }),
    );
    const views = weights
      .filter(({ role, expert }) => role.startsWith('expert') && expert === 1)
      .map(({ role, firstRow, firstCol, width, rows, cols }) => [
        role,
        firstRow,
        firstCol,
        width,
        rows,
        cols,
      ]);
    expect(views).toEqual([
      ['expertGate', 8, 0, 10, 5, 8],
      ['expertUp', 8, 5, 10, 5, 8],
      ['expertDown', 5, 0, 8, 8, 5],
    ]);
  });
});
