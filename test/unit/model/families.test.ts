/**
 * Configs of the families: defaults, spellings of transformers 4 and 5, contradictions, and the step from names
 * to tensors with missing, surplus and misshapen ones.
 */
import { describe, expect, it } from 'vitest';
import { ModelFormatError } from '../../../src/errors.js';
import { ConfigReader } from '../../../src/model/config.js';
import { NO_ATTENTION } from '../../../src/model/families/recurrent-layers.js';
import { familyOf } from '../../../src/model/families/registry.js';
import { stateValuesPerSequence } from '../../../src/model/kv-shape.js';
import type { ModelSpec } from '../../../src/model/model-spec.js';
import { openModel } from '../../../src/model/open-model.js';
import {
  type Json,
  modelFolder,
  neededTensors,
  type TestTensor,
  TINY_CONFIGS,
  thrownBy,
} from './tiny-checkpoint.js';

function specOf(config: Json): ModelSpec {
  const reader = new ConfigReader(config, 'config.json');
  return familyOf(reader).readSpec(reader);
}

function tiny(name: string, changes: Json = {}): Json {
  return { ...TINY_CONFIGS[name], ...changes };
}

const moeOf = (spec: ModelSpec, layer = 0) => {
  const ffn = spec.layers[layer]?.ffn;
  if (ffn?.kind !== 'moe') throw new Error(`layer ${layer} is not sparse`);
  return ffn;
};

describe('the published configs', () => {
  it('Qwen3-30B-A3B', () => {
    const spec = specOf({
      architectures: ['Qwen3MoeForCausalLM'],
      attention_bias: false,
      decoder_sparse_step: 1,
      head_dim: 128,
      hidden_act: 'silu',
      hidden_size: 2048,
      intermediate_size: 6144,
      max_position_embeddings: 40960,
      max_window_layers: 48,
      mlp_only_layers: [],
      model_type: 'qwen3_moe',
      moe_intermediate_size: 768,
      norm_topk_prob: true,
      num_attention_heads: 32,
      num_experts: 128,
      num_experts_per_tok: 8,
      num_hidden_layers: 48,
      num_key_value_heads: 4,
      rms_norm_eps: 1e-6,
      rope_scaling: null,
      rope_theta: 1000000.0,
      sliding_window: null,
      tie_word_embeddings: false,
      torch_dtype: 'bfloat16',
      use_sliding_window: false,
      vocab_size: 151936,
    });
    expect(spec.layers.length).toBe(48);
    expect(spec.layers[47]).toEqual({
      attention: {
        kind: 'gqa',
        numHeads: 32,
        numKvHeads: 4,
        headDim: 128,
        qkNorm: 'head',
        qkvBias: false,
        outputBias: false,
        clipQkv: 0,
        scale: 128 ** -0.5,
        slidingWindow: 0,
        rope: 0,
      },
      ffn: {
        kind: 'moe',
        numExperts: 128,
        numExpertsPerTok: 8,
        intermediateSize: 768,
        activation: 'silu',
        router: { scoring: 'softmax', normTopkProb: true, jitterEps: 0 },
      },
    });
    expect(spec.ropes).toEqual([{ style: 'neox', rotaryDim: 128, theta: 1e6, scaling: { type: 'default' } }]);
  });

  it('granite-3.1-1b-a400m', () => {
    const spec = specOf({
      model_type: 'granitemoe',
      attention_multiplier: 0.015625,
      embedding_multiplier: 12.0,
      logits_scaling: 6.0,
      residual_multiplier: 0.22,
      hidden_size: 1024,
      intermediate_size: 512,
      num_attention_heads: 16,
      num_key_value_heads: 8,
      num_local_experts: 32,
      num_experts_per_tok: 8,
      tie_word_embeddings: true,
      vocab_size: 49155,
    });
    expect(spec).toMatchObject({
      embeddingMultiplier: 12,
      residualMultiplier: 0.22,
      logitsMultiplier: 1 / 6,
    });
    expect(spec.layers[0]?.attention).toMatchObject({ scale: 0.015625, headDim: 64 });
    expect(moeOf(spec).router.scoring).toBe('topk-softmax');
  });

  it('GLM-4.5-Air', () => {
    const spec = specOf({
      architectures: ['Glm4MoeForCausalLM'],
      model_type: 'glm4_moe',
      attention_bias: true,
      first_k_dense_replace: 1,
      head_dim: 128,
      hidden_size: 4096,
      intermediate_size: 10944,
      max_position_embeddings: 131072,
      moe_intermediate_size: 1408,
      n_group: 1,
      n_routed_experts: 128,
      n_shared_experts: 1,
      norm_topk_prob: true,
      num_attention_heads: 96,
      num_experts_per_tok: 8,
      num_hidden_layers: 46,
      num_key_value_heads: 8,
      num_nextn_predict_layers: 1,
      partial_rotary_factor: 0.5,
      rope_scaling: null,
      rope_theta: 1000000,
      routed_scaling_factor: 1.0,
      topk_group: 1,
      use_qk_norm: false,
      vocab_size: 151552,
    });
    expect(spec.layers.map(({ ffn }) => ffn.kind)).toEqual(['dense', ...new Array(45).fill('moe')]);
    expect(spec.layers[1]?.attention).toMatchObject({ qkvBias: true, outputBias: false, qkNorm: 'none' });
    expect(spec.ropes[0]).toMatchObject({ rotaryDim: 64, theta: 1e6 });
    expect(moeOf(spec, 1)).toMatchObject({
      sharedExpert: { intermediateSize: 1408, gate: 'none' },
      router: { scoring: 'sigmoid', selectionBias: true, normTopkProb: true },
    });
    expect(moeOf(spec, 1).router.groups).toBeUndefined();
  });

  it('DeepSeek-V2-Lite', () => {
    const spec = specOf({
      architectures: ['DeepseekV2ForCausalLM'],
      model_type: 'deepseek_v2',
      first_k_dense_replace: 1,
      hidden_size: 2048,
      intermediate_size: 10944,
      kv_lora_rank: 512,
      moe_intermediate_size: 1408,
      moe_layer_freq: 1,
      n_group: 1,
      n_routed_experts: 64,
      n_shared_experts: 2,
      norm_topk_prob: false,
      num_attention_heads: 16,
      num_experts_per_tok: 6,
      num_hidden_layers: 27,
      num_key_value_heads: 16,
      q_lora_rank: null,
      qk_nope_head_dim: 128,
      qk_rope_head_dim: 64,
      rope_scaling: {
        beta_fast: 32,
        beta_slow: 1,
        factor: 40,
        mscale: 707e-3,
        mscale_all_dim: 707e-3,
        original_max_position_embeddings: 4096,
        type: 'yarn',
      },
      routed_scaling_factor: 1.0,
      scoring_func: 'softmax',
      topk_group: 1,
      topk_method: 'greedy',
      v_head_dim: 128,
      vocab_size: 102400,
    });
    expect(spec.layers[0]?.attention).toMatchObject({
      kind: 'mla',
      headDim: 192,
      latent: { queryRank: 0, keyValueRank: 512, nopeHeadDim: 128, ropeHeadDim: 64, valueHeadDim: 128 },
    });
    expect(spec.layers[0]?.attention.scale).toBeCloseTo(192 ** -0.5 * (0.0707 * Math.log(40) + 1) ** 2, 12);
    expect(spec.ropes[0]).toMatchObject({ style: 'interleaved', rotaryDim: 64 });
    expect(moeOf(spec, 1)).toMatchObject({ sharedExpert: { intermediateSize: 2816 } });
  });

  it('Moonlight-16B-A3B and Kimi-K2, which are DeepSeek-V3 in shape', () => {
    const shared = {
      model_type: 'deepseek_v3',
      kv_lora_rank: 512,
      n_group: 1,
      topk_group: 1,
      norm_topk_prob: true,
      scoring_func: 'sigmoid',
      topk_method: 'noaux_tc',
      num_nextn_predict_layers: 0,
      seq_aux: true,
    };
    const moonlight = specOf({
      ...shared,
      q_lora_rank: null,
      hidden_size: 2048,
      num_attention_heads: 16,
      num_key_value_heads: 16,
      n_routed_experts: 64,
      num_experts_per_tok: 6,
      routed_scaling_factor: 2.446,
    });
    expect(moonlight.layers[0]?.attention.latent?.queryRank).toBe(0);
    expect(moeOf(moonlight, 3).router).toMatchObject({ weightMultiplier: 2.446, selectionBias: true });
    const kimi = specOf({
      ...shared,
      hidden_size: 7168,
      num_attention_heads: 64,
      num_key_value_heads: 64,
      n_routed_experts: 384,
      num_experts_per_tok: 8,
      rope_scaling: {
        type: 'yarn',
        factor: 32,
        mscale: 1,
        mscale_all_dim: 1,
        original_max_position_embeddings: 4096,
      },
    });
    expect(kimi.layers[0]?.attention.latent?.queryRank).toBe(1536);
    expect(moeOf(kimi, 3)).toMatchObject({ numExperts: 384, router: { normTopkProb: true } });
  });

  it('ERNIE-4.5-21B-A3B', () => {
    const spec = specOf({
      architectures: ['Ernie4_5_MoeForCausalLM'],
      model_type: 'ernie4_5_moe',
      hidden_size: 2560,
      intermediate_size: 12288,
      moe_intermediate_size: 1536,
      moe_k: 6,
      moe_layer_end_index: 29,
      moe_layer_interval: 1,
      moe_layer_start_index: 1,
      moe_num_experts: 64,
      moe_num_shared_experts: 2,
      num_attention_heads: 20,
      num_hidden_layers: 28,
      num_key_value_heads: 4,
      rope_theta: 500000.0,
      tie_word_embeddings: true,
      use_bias: false,
      vocab_size: 103424,
    });
    expect(spec.layers.map(({ ffn }) => ffn.kind)).toEqual(['dense', ...new Array(27).fill('moe')]);
    expect(moeOf(spec, 1)).toMatchObject({ numExpertsPerTok: 6, sharedExpert: { intermediateSize: 3072 } });
    expect(spec.ropes[0]?.style).toBe('interleaved');
  });

  it('Qwen3-Next-80B-A3B-Instruct', () => {
    const spec = specOf({
      architectures: ['Qwen3NextForCausalLM'],
      attention_bias: false,
      attention_dropout: 0.0,
      bos_token_id: 151643,
      decoder_sparse_step: 1,
      eos_token_id: 151645,
      full_attention_interval: 4,
      head_dim: 256,
      hidden_act: 'silu',
      hidden_size: 2048,
      intermediate_size: 5120,
      linear_conv_kernel_dim: 4,
      linear_key_head_dim: 128,
      linear_num_key_heads: 16,
      linear_num_value_heads: 32,
      linear_value_head_dim: 128,
      max_position_embeddings: 262144,
      mlp_only_layers: [],
      model_type: 'qwen3_next',
      moe_intermediate_size: 512,
      norm_topk_prob: true,
      num_attention_heads: 16,
      num_experts: 512,
      num_experts_per_tok: 10,
      num_hidden_layers: 48,
      num_key_value_heads: 2,
      partial_rotary_factor: 0.25,
      rms_norm_eps: 1e-6,
      rope_scaling: null,
      rope_theta: 10000000,
      shared_expert_intermediate_size: 512,
      tie_word_embeddings: false,
      torch_dtype: 'bfloat16',
      use_sliding_window: false,
      vocab_size: 151936,
    });
    expect(spec.layers.map(({ recurrent }) => recurrent === undefined)).toEqual(
      Array.from({ length: 48 }, (_, layer) => layer % 4 === 3),
    );
    expect(spec.layers[0]).toMatchObject({
      attention: NO_ATTENTION,
      recurrent: { numKeyHeads: 16, numValueHeads: 32, keyHeadDim: 128, valueHeadDim: 128, convWidth: 4 },
    });
    expect(spec.layers[3]?.attention).toMatchObject({ outputGate: true, qkNorm: 'head', headDim: 256 });
    expect(spec.ropes[0]).toMatchObject({ rotaryDim: 64, theta: 1e7 });
    // 36 layers of 3 rows of 8,192 inputs and 32 matrices of 128 x 128.
    expect(spec.layers.reduce((sum, layer) => sum + stateValuesPerSequence(layer), 0)).toBe(
      36 * (3 * 8192 + 32 * 128 * 128),
    );
  });

  it('Qwen3.5-35B-A3B, the text of a model that sees', () => {
    const text = {
      attention_bias: false,
      attn_output_gate: true,
      dtype: 'bfloat16',
      eos_token_id: 248044,
      full_attention_interval: 4,
      head_dim: 256,
      hidden_act: 'silu',
      hidden_size: 2048,
      linear_conv_kernel_dim: 4,
      linear_key_head_dim: 128,
      linear_num_key_heads: 16,
      linear_num_value_heads: 32,
      linear_value_head_dim: 128,
      max_position_embeddings: 262144,
      model_type: 'qwen3_5_moe_text',
      moe_intermediate_size: 512,
      mtp_num_hidden_layers: 1,
      num_attention_heads: 16,
      num_experts: 256,
      num_experts_per_tok: 8,
      num_hidden_layers: 40,
      num_key_value_heads: 2,
      rms_norm_eps: 1e-6,
      rope_parameters: {
        mrope_interleaved: true,
        mrope_section: [11, 11, 10],
        partial_rotary_factor: 0.25,
        rope_theta: 10000000,
        rope_type: 'default',
      },
      shared_expert_intermediate_size: 512,
      vocab_size: 248320,
    };
    const spec = specOf({
      architectures: ['Qwen3_5MoeForConditionalGeneration'],
      image_token_id: 248056,
      model_type: 'qwen3_5_moe',
      text_config: text,
      tie_word_embeddings: false,
      vision_config: { depth: 27, model_type: 'qwen3_5_moe' },
    });
    expect(spec).toEqual(specOf(text));
    expect(spec.layers.filter(({ recurrent }) => recurrent?.kind === 'gated-delta')).toHaveLength(30);
    expect(spec.ropes[0]).toMatchObject({ rotaryDim: 64, theta: 1e7 });
    expect(moeOf(spec, 39)).toMatchObject({ numExperts: 256, numExpertsPerTok: 8 });
  });

  it('LFM2-8B-A1B', () => {
    const types = Array.from({ length: 24 }, (_, layer) =>
      [2, 6, 10, 14, 18, 21].includes(layer) ? 'full_attention' : 'conv',
    );
    const spec = specOf({
      architectures: ['Lfm2MoeForCausalLM'],
      bos_token_id: 1,
      conv_L_cache: 3,
      conv_bias: false,
      dtype: 'bfloat16',
      eos_token_id: 7,
      hidden_size: 2048,
      intermediate_size: 7168,
      layer_types: types,
      max_position_embeddings: 128000,
      model_type: 'lfm2_moe',
      moe_intermediate_size: 1792,
      norm_eps: 1e-5,
      norm_topk_prob: true,
      num_attention_heads: 32,
      num_dense_layers: 2,
      num_experts: 32,
      num_experts_per_tok: 4,
      num_hidden_layers: 24,
      num_key_value_heads: 8,
      pad_token_id: 0,
      rope_theta: 1000000.0,
      routed_scaling_factor: 1.0,
      tie_embedding: true,
      use_cache: true,
      use_expert_bias: true,
      vocab_size: 65536,
    });
    expect(spec).toMatchObject({ tiedEmbeddings: true, norm: { eps: 1e-5 } });
    expect(spec.layers.map(({ recurrent }) => (recurrent ? 'conv' : 'full_attention'))).toEqual(types);
    expect(spec.layers.map(({ ffn }) => ffn.kind)).toEqual([
      'dense',
      'dense',
      ...new Array<string>(22).fill('moe'),
    ]);
    expect(spec.layers[0]?.recurrent).toEqual({ kind: 'short-conv', convWidth: 3, channels: 2048 });
    expect(moeOf(spec, 2).router).toMatchObject({ scoring: 'sigmoid', selectionBias: true });
  });

  it('MiniMax-M2, but for its 8-bit floats', () => {
    const spec = specOf({
      architectures: ['MiniMaxM2ForCausalLM'],
      model_type: 'minimax_m2',
      head_dim: 128,
      hidden_size: 3072,
      intermediate_size: 1536,
      num_attention_heads: 48,
      num_experts_per_tok: 8,
      num_hidden_layers: 62,
      num_key_value_heads: 8,
      num_local_experts: 256,
      qk_norm_type: 'per_layer',
      rotary_dim: 64,
      rope_theta: 5000000,
      scoring_func: 'sigmoid',
      shared_intermediate_size: 0,
      use_qk_norm: true,
      use_routing_bias: true,
      vocab_size: 200064,
    });
    expect(spec.ropes[0]).toMatchObject({ rotaryDim: 64, theta: 5e6 });
    expect(spec.layers[61]?.attention).toMatchObject({ qkNorm: 'full', headDim: 128 });
  });

  it('Phi-3.5-MoE-instruct', () => {
    const factors = Array.from({ length: 64 }, (_, i) => 1 + i);
    const mscale = 1.243163121016122;
    const spec = specOf({
      model_type: 'phimoe',
      attention_bias: true,
      lm_head_bias: true,
      hidden_size: 4096,
      num_attention_heads: 32,
      rope_theta: 10000.0,
      original_max_position_embeddings: 4096,
      rope_scaling: {
        type: 'longrope',
        short_factor: factors,
        long_factor: factors,
        short_mscale: mscale,
        long_mscale: mscale,
        original_max_position_embeddings: 4096,
      },
      sliding_window: 131072,
      router_jitter_noise: 0.01,
    });
    expect(spec).toMatchObject({ norm: { kind: 'layer', eps: 1e-5 }, lmHeadBias: true });
    expect(spec.layers[31]?.attention).toMatchObject({
      qkvBias: true,
      outputBias: true,
      slidingWindow: 131072,
    });
    expect(moeOf(spec).router).toEqual({ scoring: 'sparsemixer', normTopkProb: false, jitterEps: 0.01 });
    expect(spec.ropes[0]?.scaling).toMatchObject({
      type: 'longrope',
      originalMaxPositions: 4096,
      longMscale: mscale,
    });
  });
});

describe('defaults of transformers 5.18', () => {
  it.each([
    ['qwen3_moe', { normTopkProb: false }, 10000],
    ['qwen2_moe', { normTopkProb: false }, 10000],
    ['mixtral', { normTopkProb: true }, 1e6],
    ['olmoe', { normTopkProb: false }, 10000],
    ['granitemoe', { normTopkProb: false }, 10000],
    ['phimoe', { jitterEps: 0.01 }, 1e6],
    ['minimax_m2', { scoring: 'sigmoid', selectionBias: true }, 5e6],
  ])('%s', (name, router, theta) => {
    const spec = specOf({ model_type: name });
    expect(moeOf(spec).router).toMatchObject(router);
    expect(spec.ropes[0]?.theta).toBe(theta);
  });
});

describe('sparse and dense layers', () => {
  const kinds = (changes: Json) =>
    specOf(tiny('qwen3_moe', { num_hidden_layers: 4, mlp_only_layers: [], ...changes })).layers.map(
      (l) => l.ffn.kind,
    );

  it('follow mlp_only_layers and decoder_sparse_step', () => {
    expect(kinds({})).toEqual(['moe', 'moe', 'moe', 'moe']);
    expect(kinds({ decoder_sparse_step: 2 })).toEqual(['dense', 'moe', 'dense', 'moe']);
    expect(kinds({ decoder_sparse_step: 2, mlp_only_layers: [3] })).toEqual([
      'dense',
      'moe',
      'dense',
      'dense',
    ]);
  });
});

describe('sliding windows', () => {
  const windows = (spec: ModelSpec) => spec.layers.map((layer) => layer.attention.slidingWindow);

  it('of qwen2_moe alternate below max_window_layers', () => {
    const changes = {
      num_hidden_layers: 6,
      use_sliding_window: true,
      sliding_window: 9,
      max_window_layers: 4,
    };
    expect(windows(specOf(tiny('qwen2_moe', changes)))).toEqual([9, 0, 9, 0, 0, 0]);
    const types = ['full_attention', 'sliding_attention'];
    const listed = { use_sliding_window: true, sliding_window: 9, layer_types: types };
    expect(windows(specOf(tiny('qwen2_moe', listed)))).toEqual([0, 9]);
  });

  it('of the others cover all layers or none', () => {
    expect(windows(specOf(tiny('mixtral', { sliding_window: 5 })))).toEqual([5, 5]);
    expect(windows(specOf(tiny('mixtral', { sliding_window: null })))).toEqual([0, 0]);
    expect(windows(specOf(tiny('qwen3_moe', { sliding_window: 5 })))).toEqual([0, 0]);
    expect(windows(specOf(tiny('qwen3_moe', { sliding_window: 5, use_sliding_window: true })))).toEqual([
      5, 5,
    ]);
  });
});

describe('configs of transformers 4 and 5', () => {
  // Gemma 4 came with transformers 5 and has a set of rope parameters for each kind of layers.
  it.each(Object.keys(TINY_CONFIGS).filter((name) => name !== 'gemma4_text'))('%s gives one spec', (name) => {
    const {
      rope_theta: theta,
      torch_dtype: _,
      num_experts: experts,
      num_local_experts: local,
      ...rest
    } = tiny(name);
    const modern = {
      ...rest,
      dtype: 'float32',
      num_local_experts: experts ?? local,
      rope_parameters: { rope_type: 'default', ...(theta === undefined ? {} : { rope_theta: theta }) },
    };
    expect(specOf(modern)).toEqual(specOf(tiny(name)));
  });
});

describe('a config that is wrong', () => {
  it.each<[string, Json, RegExp]>([
    [
      'no model type',
      { model_type: undefined, architectures: undefined },
      /model_type: expected one of qwen3_moe, /,
    ],
    ['an unknown model type', { model_type: 'llama' }, /expected one of .*granitemoe, .*got "llama"/],
    [
      'a model type of another class',
      { architectures: ['MixtralForCausalLM'] },
      /`model_type` = "qwen3_moe", got "Mixtral/,
    ],
    ['no layers', { num_hidden_layers: 0 }, /num_hidden_layers: expected an integer from 1 to 1024, got 0/],
    ['a billion layers', { num_hidden_layers: 1e9 }, /got 1000000000/],
    ['a text for a number', { hidden_size: '8' }, /hidden_size: expected an integer .*, got "8"/],
    ['a number for a flag', { norm_topk_prob: 1 }, /norm_topk_prob: expected true or false, got 1/],
    ['heads that do not divide', { num_key_value_heads: 3 }, /`num_attention_heads` = 2, got 3/],
    [
      'a hidden size that heads do not divide',
      { head_dim: null, num_attention_heads: 3, num_key_value_heads: 1 },
      /`hidden_size` = 8, got 3/,
    ],
    ['odd heads', { head_dim: 5 }, /head_dim: expected an even number .*, got 5/],
    ['more experts per token than experts', { num_experts_per_tok: 4 }, /`num_experts` = 3, got 4/],
    ['two numbers of experts', { num_local_experts: 4 }, /num_experts: .*`num_local_experts` = 4, got 3/],
    ['an unknown activation', { hidden_act: 'relu2' }, /hidden_act: expected one of silu, .*got "relu2"/],
    [
      'quantised weights',
      { quantization_config: { quant_method: 'gptq' } },
      /bfloat16, float16 or float32, got "gptq"/,
    ],
    [
      'a list of texts for layers',
      { mlp_only_layers: ['1'] },
      /mlp_only_layers: expected a list of integers/,
    ],
    ['a negative eps', { rms_norm_eps: -1 }, /rms_norm_eps: expected a number from 0 to 1, got -1/],
  ])('%s is refused', (_why, changes, message) => {
    const error = thrownBy(() => specOf(tiny('qwen3_moe', changes)));
    expect(error).toBeInstanceOf(ModelFormatError);
    expect(error.message).toMatch(message);
  });

  it.each<[string, string, Json, RegExp]>([
    ['three experts per token', 'phimoe', { num_experts_per_tok: 3 }, /expected 2 with SparseMixer, got 3/],
    [
      'linear scaling',
      'phimoe',
      { rope_scaling: { type: 'linear', factor: 2 } },
      /expected longrope or none/,
    ],
    [
      'no mscale',
      'phimoe',
      { rope_scaling: { type: 'longrope', short_factor: [1, 1], long_factor: [1, 1] } },
      /short_mscale: expected a number, got nothing/,
    ],
    [
      'types for another number of layers',
      'qwen2_moe',
      { layer_types: ['full_attention'] },
      /`num_hidden_layers` = 2/,
    ],
    ['an unknown layer type', 'qwen2_moe', { layer_types: ['full_attention', 'chunked'] }, /got "chunked"/],
    [
      'windows that are switched off',
      'qwen2_moe',
      { layer_types: ['full_attention', 'sliding_attention'] },
      /`use_sliding_window` = false, got "sliding_attention"/,
    ],
    [
      'value heads that key heads do not divide',
      'qwen3_next',
      { linear_num_value_heads: 3 },
      /linear_num_value_heads: .*`linear_num_key_heads` = 2, got 3/,
    ],
    ['another activation of a delta net', 'qwen3_next', { hidden_act: 'gelu' }, /expected silu .*got "gelu"/],
    ['biases beside a gate', 'qwen3_5_moe_text', { attention_bias: true }, /attention_bias: expected false/],
    ['a long convolution', 'qwen3_next', { linear_conv_kernel_dim: 17 }, /from 1 to 16, got 17/],
    ['biases of a convolution', 'lfm2_moe', { conv_bias: true }, /conv_bias: expected false/],
    ['no list of layers', 'lfm2_moe', { layer_types: null }, /layer_types: expected a list of strings/],
    [
      'two answers about the embeddings',
      'lfm2_moe',
      { tie_embedding: true, tie_word_embeddings: false },
      /tie_embedding: .*`tie_word_embeddings` = false, got true/,
    ],
    ['biases on latents', 'deepseek_v3', { attention_bias: true }, /attention_bias: expected false/],
    ['another rotated part', 'deepseek_v3', { head_dim: 4 }, /`qk_rope_head_dim` = 2, got 4/],
    ['an unknown scoring', 'deepseek_v3', { scoring_func: 'tanh' }, /softmax or sigmoid, got "tanh"/],
    ['a list of other length', 'deepseek_v3', { mlp_layer_types: ['dense'] }, /`num_hidden_layers` = 2/],
    [
      'no number of experts per token',
      'deepseek_v2',
      { num_experts_per_tok: undefined },
      /num_experts_per_tok: expected an integer/,
    ],
    ['groups that do not divide', 'glm4_moe', { n_group: 2 }, /`n_group` = 2, got 3/],
    ['more groups chosen than there are', 'glm4_moe', { n_group: 3, topk_group: 4 }, /`n_group` = 3, got 4/],
    ['groups with too few experts', 'glm4_moe', { n_group: 3, topk_group: 1 }, /`topk_group` = 1, got 2/],
    [
      'two shares of a head',
      'glm4_moe',
      { partial_rotary_factor: 0.5, rope_parameters: { partial_rotary_factor: 1 } },
      /`rope_parameters.partial_rotary_factor` = 1, got 0.5/,
    ],
    [
      'an odd rotary dimension',
      'minimax_m2',
      { rotary_dim: 3 },
      /rotary_dim: expected an even number .*got 3/,
    ],
    ['another norm on q and k', 'minimax_m2', { qk_norm_type: 'per_head' }, /per_layer, got "per_head"/],
    ['biases everywhere', 'ernie4_5_moe', { use_bias: true }, /use_bias: expected false/],
    ['a part of a head', 'qwen3_moe', { partial_rotary_factor: 0.5 }, /whole heads are rotated/],
    ['a clip of 0', 'olmoe', { clip_qkv: 0 }, /clip_qkv: expected a number/],
    ['logits divided by 0', 'granitemoe', { logits_scaling: 0 }, /logits_scaling: expected a number/],
  ])('%s (%s) is refused', (_why, name, changes, message) => {
    const error = thrownBy(() => specOf(tiny(name, changes)));
    expect(error).toBeInstanceOf(ModelFormatError);
    expect(error.message).toMatch(message);
  });

  it('ignores keys that it does not know', () => {
    expect(specOf(tiny('olmoe', { brand_new: { nested: true } }))).toEqual(specOf(tiny('olmoe')));
  });
});

function open(name: string, change: (tensors: TestTensor[]) => TestTensor[], nameNumber = 0) {
  const config = tiny(name);
  return openModel(modelFolder({ config, tensors: change(neededTensors(config, nameNumber)) }));
}

describe('weights', () => {
  it.each(Object.keys(TINY_CONFIGS))(
    '%s: every weight has its tensor, under old names and new ones',
    (name) => {
      for (const nameNumber of [0, 1]) {
        const { weights, tensors } = open(name, (all) => all, nameNumber);
        const used = new Map<string, number>();
        for (const { tensor, rows, cols } of weights) used.set(tensor, (used.get(tensor) ?? 0) + rows * cols);
        // No value is left over and none is used twice.
        for (const tensor of tensors) expect(used.get(tensor.name), tensor.name).toBe(tensor.sizeBytes / 4);
      }
    },
  );

  it('of stacked experts are row ranges: gate, then up, of each expert in turn', () => {
    const { weights } = open('mixtral', (all) => all, 1);
    const rows = weights.filter(({ layer, role }) => layer === 1 && role.startsWith('expert'));
    expect(rows.map(({ role, expert, firstRow, rows: count }) => [role, expert, firstRow, count])).toEqual([
      ['expertGate', 0, 0, 5],
      ['expertUp', 0, 5, 5],
      ['expertDown', 0, 0, 8],
      ['expertGate', 1, 10, 5],
      ['expertUp', 1, 15, 5],
      ['expertDown', 1, 8, 8],
      ['expertGate', 2, 20, 5],
      ['expertUp', 2, 25, 5],
      ['expertDown', 2, 16, 8],
    ]);
    expect(rows[0]?.tensor).toBe('model.layers.1.mlp.experts.gate_up_proj');
  });

  it('takes the embedding for a tied lm_head, whether it is stored twice or not', () => {
    const tied = open('granitemoe', (all) => [...all, { name: 'lm_head.weight', shape: [300, 8] }]);
    expect(tied.weights.some(({ role }) => role === 'lmHead')).toBe(false);
    expect(tied.spec.tiedEmbeddings).toBe(true);
  });

  it('names missing tensors', () => {
    const error = thrownBy(() =>
      open('qwen3_moe', (all) => all.filter(({ name }) => !name.includes('o_proj'))),
    );
    expect(error).toMatchObject({
      code: 'ERR_WEIGHT_MISSING',
      field: 'model.layers.0.self_attn.o_proj.weight',
    });
    expect(error.message).toMatch(/also missing: model\.layers\.1\.self_attn\.o_proj\.weight/);
  });

  it("passes over ERNIE's tensors for multi-token prediction", () => {
    const extra = { name: 'model.mtp_block.0.mlp.up_proj.weight', shape: [4, 8] };
    const { weights } = open('ernie4_5_moe', (all) => [...all, extra]);
    expect(weights).toEqual(open('ernie4_5_moe', (all) => all).weights);
  });

  it('names surplus tensors', () => {
    const extra = ['model.layers.0.self_attn.q_proj.bias', 'vision.patch'];
    const error = thrownBy(() =>
      open('qwen3_moe', (all) => [...all, ...extra.map((name) => ({ name, shape: [1] }))]),
    );
    expect(error).toMatchObject({ code: 'ERR_WEIGHT_SURPLUS', field: extra[0] });
    expect(error.message).toMatch(/1 more \(vision\.patch\)/);
  });

  it('lets layers for multi-token prediction pass where the config tells of them', () => {
    const extra = { name: 'model.layers.2.eh_proj.weight', shape: [8, 16] };
    const config = tiny('glm4_moe');
    const tensors = [...neededTensors(config), extra];
    expect(() => openModel(modelFolder({ config, tensors }))).toThrow(/model\.layers\.2\.eh_proj/);
    const told = { ...config, num_nextn_predict_layers: 1 };
    expect(openModel(modelFolder({ config: told, tensors })).spec.layers.length).toBe(2);
  });

  it('lets old buffers pass', () => {
    const name = 'model.layers.0.self_attn.rotary_emb.inv_freq';
    expect(open('mixtral', (all) => [...all, { name, shape: [4] }]).weights.length).toBeGreaterThan(0);
  });

  it.each([
    ['model.embed_tokens.weight', [300, 9], '[300,8]'],
    ['model.norm.weight', [9], '[8]'],
    ['model.norm.weight', [8, 1], '[1,8]'],
    ['model.layers.0.self_attn.q_norm.weight', [12], '[6]'],
    ['model.layers.0.mlp.experts.2.down_proj.weight', [5, 8], '[8,5]'],
    ['model.layers.1.mlp.gate_proj.weight', [8, 10], '[10,8]'],
  ])('names %s with the shape %j', (name, shape, expected) => {
    const change = (all: TestTensor[]) =>
      all.map((tensor) => (tensor.name === name ? { name, shape } : tensor));
    const error = thrownBy(() => open('qwen3_moe', change));
    expect(error).toMatchObject({ code: 'ERR_MODEL_FORMAT', field: name });
    expect(error.message).toContain(
      `expected shape ${expected}, as the config says, got shape ${JSON.stringify(shape)}`,
    );
  });
});
