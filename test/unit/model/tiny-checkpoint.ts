/**
 * Writes small checkpoints for the tests of this folder: safetensors files of any content (also wrong ones), a
 * byte-level tokenizer, and a config of each family with just the tensors that it needs. Values are zeros.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { ConfigReader } from '../../../src/model/config.js';
import type { WeightName } from '../../../src/model/families/family.js';
import { familyOf } from '../../../src/model/families/registry.js';
import type { ModelSpec, WeightNeed, WeightRole } from '../../../src/model/model-spec.js';
import { CHAR_TO_BYTE } from '../../../src/model/token-pieces.js';
import { neededWeights } from '../../../src/model/weights.js';

const root = mkdtempSync(join(tmpdir(), 'nearmoe-model-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let count = 0;

/** A new empty folder, removed after the tests of the file. */
export function newFolder(): string {
  const folder = join(root, `${count++}`);
  mkdirSync(folder);
  return folder;
}

export function newFile(name: string, content: string | Uint8Array): string {
  const path = join(newFolder(), name);
  writeFileSync(path, content);
  return path;
}

export type TestTensor = { name: string; shape: readonly number[]; dtype?: 'F32' | 'F16' | 'BF16' };

/** A valid safetensors file, as bytes. */
export function safetensorsBytes(tensors: readonly TestTensor[]): Buffer {
  let offset = 0;
  const header: Record<string, object> = { __metadata__: { format: 'pt' } };
  for (const { name, shape, dtype = 'F32' } of tensors) {
    const size = shape.reduce((a, b) => a * b, 1) * (dtype === 'F32' ? 4 : 2);
    header[name] = { dtype, shape, data_offsets: [offset, offset + size] };
    offset += size;
  }
  return rawSafetensors(JSON.stringify(header), offset);
}

/** A file with any header text, its true length in front and `dataBytes` zeros behind. */
export function rawSafetensors(header: string, dataBytes: number): Buffer {
  const text = Buffer.from(header);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, Buffer.alloc(dataBytes)]);
}

export type Json = Record<string, unknown>;

const SIZES = {
  hidden_size: 8,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  vocab_size: 300,
  rms_norm_eps: 1e-6,
};

/** Small configs as transformers 4 wrote them. */
export const TINY_CONFIGS: Record<string, Json> = {
  qwen3_moe: {
    model_type: 'qwen3_moe',
    architectures: ['Qwen3MoeForCausalLM'],
    ...SIZES,
    head_dim: 6,
    num_key_value_heads: 1,
    num_experts: 3,
    num_experts_per_tok: 2,
    moe_intermediate_size: 5,
    intermediate_size: 10,
    mlp_only_layers: [1],
    rope_theta: 1e6,
    torch_dtype: 'float32',
  },
  qwen2_moe: {
    model_type: 'qwen2_moe',
    ...SIZES,
    num_key_value_heads: 2,
    num_experts: 3,
    num_experts_per_tok: 2,
    moe_intermediate_size: 5,
    shared_expert_intermediate_size: 7,
    intermediate_size: 10,
    decoder_sparse_step: 2,
  },
  mixtral: {
    model_type: 'mixtral',
    ...SIZES,
    num_key_value_heads: 1,
    num_local_experts: 3,
    num_experts_per_tok: 2,
    intermediate_size: 5,
  },
  olmoe: {
    model_type: 'olmoe',
    ...SIZES,
    num_experts: 3,
    num_experts_per_tok: 2,
    intermediate_size: 5,
    clip_qkv: 8,
  },
  phimoe: {
    model_type: 'phimoe',
    ...SIZES,
    num_key_value_heads: 1,
    num_local_experts: 3,
    num_experts_per_tok: 2,
    intermediate_size: 5,
    attention_bias: true,
    lm_head_bias: true,
  },
  granitemoe: {
    model_type: 'granitemoe',
    ...SIZES,
    num_local_experts: 3,
    num_experts_per_tok: 2,
    intermediate_size: 5,
    tie_word_embeddings: true,
    attention_multiplier: 0.25,
    logits_scaling: 4,
  },
  glm4_moe: {
    model_type: 'glm4_moe',
    ...SIZES,
    head_dim: 12,
    num_key_value_heads: 1,
    n_routed_experts: 3,
    num_experts_per_tok: 2,
    n_shared_experts: 1,
    moe_intermediate_size: 5,
    intermediate_size: 10,
    first_k_dense_replace: 1,
    attention_bias: true,
    use_qk_norm: true,
  },
  ernie4_5_moe: {
    model_type: 'ernie4_5_moe',
    ...SIZES,
    num_key_value_heads: 1,
    moe_num_experts: 3,
    moe_k: 2,
    moe_num_shared_experts: 1,
    moe_intermediate_size: 5,
    intermediate_size: 10,
    moe_layer_start_index: 1,
    tie_word_embeddings: true,
  },
  deepseek_v2: {
    model_type: 'deepseek_v2',
    ...SIZES,
    q_lora_rank: null,
    kv_lora_rank: 6,
    qk_nope_head_dim: 4,
    qk_rope_head_dim: 2,
    v_head_dim: 3,
    n_routed_experts: 3,
    num_experts_per_tok: 2,
    moe_intermediate_size: 5,
    intermediate_size: 10,
    first_k_dense_replace: 1,
  },
  deepseek_v3: {
    model_type: 'deepseek_v3',
    ...SIZES,
    num_key_value_heads: 2,
    q_lora_rank: 7,
    kv_lora_rank: 6,
    qk_nope_head_dim: 4,
    qk_rope_head_dim: 2,
    v_head_dim: 3,
    n_group: 1,
    topk_group: 1,
    n_routed_experts: 3,
    num_experts_per_tok: 2,
    moe_intermediate_size: 5,
    intermediate_size: 10,
    first_k_dense_replace: 1,
  },
  llama4_text: {
    model_type: 'llama4_text',
    ...SIZES,
    head_dim: 4,
    num_key_value_heads: 1,
    num_local_experts: 3,
    num_experts_per_tok: 1,
    intermediate_size: 5,
    intermediate_size_mlp: 10,
    interleave_moe_layer_step: 2,
    no_rope_layer_interval: 2,
  },
  gemma4_text: {
    model_type: 'gemma4_text',
    ...SIZES,
    head_dim: 6,
    num_key_value_heads: 1,
    global_head_dim: 10,
    num_global_key_value_heads: 2,
    attention_k_eq_v: true,
    enable_moe_block: true,
    hidden_size_per_layer_input: 0,
    num_experts: 3,
    top_k_experts: 2,
    moe_intermediate_size: 5,
    intermediate_size: 10,
    layer_types: ['sliding_attention', 'full_attention'],
  },
  qwen3_next: {
    model_type: 'qwen3_next',
    architectures: ['Qwen3NextForCausalLM'],
    ...SIZES,
    head_dim: 8,
    num_key_value_heads: 1,
    num_experts: 3,
    num_experts_per_tok: 2,
    moe_intermediate_size: 5,
    shared_expert_intermediate_size: 6,
    intermediate_size: 10,
    mlp_only_layers: [1],
    full_attention_interval: 2,
    linear_num_key_heads: 2,
    linear_num_value_heads: 4,
    linear_key_head_dim: 3,
    linear_value_head_dim: 2,
  },
  qwen3_5_moe_text: {
    model_type: 'qwen3_5_moe_text',
    ...SIZES,
    head_dim: 8,
    num_key_value_heads: 1,
    num_experts: 3,
    num_experts_per_tok: 2,
    moe_intermediate_size: 5,
    shared_expert_intermediate_size: 6,
    full_attention_interval: 2,
    linear_num_key_heads: 2,
    linear_num_value_heads: 4,
    linear_key_head_dim: 3,
    linear_value_head_dim: 2,
  },
  lfm2_moe: {
    model_type: 'lfm2_moe',
    ...SIZES,
    num_key_value_heads: 1,
    num_experts: 3,
    num_experts_per_tok: 2,
    moe_intermediate_size: 5,
    intermediate_size: 10,
    num_dense_layers: 1,
    layer_types: ['conv', 'full_attention'],
  },
  minimax_m2: {
    model_type: 'minimax_m2',
    ...SIZES,
    head_dim: 6,
    rotary_dim: 4,
    num_key_value_heads: 1,
    num_local_experts: 3,
    num_experts_per_tok: 2,
    intermediate_size: 5,
  },
};

/** The tensors that a config's family needs, each under its n-th name (the last one where there are fewer). */
export function neededTensors(config: Json, nameNumber = 0): TestTensor[] {
  const reader = new ConfigReader(config, 'config.json');
  const family = familyOf(reader);
  const tensors = new Map<string, TestTensor>();
  const spec = family.readSpec(reader);
  const needs = [...neededWeights(spec)];
  for (const need of needs) {
    const names: readonly WeightName[] = family.hubNames[need.role] ?? [];
    const name = names[Math.min(nameNumber, names.length - 1)];
    if (name === undefined) throw new Error(`no name for ${need.role}`);
    const view = { parts: 1, ...(typeof name === 'string' ? { tensor: name } : name) };
    const stacked = need.expert >= 0 && !view.tensor.includes('{expert}');
    const full = view.tensor.replace('{layer}', `${need.layer}`).replace('{expert}', `${need.expert}`);
    const matrix = need.head === undefined ? shapeOf(need, view, needs) : latentUpShape(spec, need.layer);
    tensors.set(full, { name: full, shape: stacked ? [3, ...matrix] : matrix });
  }
  return [...tensors.values()];
}

type View = { parts: number; transposed?: boolean; holds?: readonly WeightRole[] };

/** Of the tensor that holds a weight, and maybe others, of one expert where it is an expert's. */
function shapeOf(
  { role, layer, rows, cols }: WeightNeed,
  view: View,
  needs: readonly WeightNeed[],
): number[] {
  const { parts, transposed, holds } = view;
  if (transposed) return [cols, rows * parts];
  if (holds !== undefined) {
    const held = needs.filter((other) => other.layer === layer && holds.includes(other.role));
    return [held.reduce((sum, other) => sum + other.rows, 0), cols];
  }
  if (role === 'convKernel') return [rows, 1, cols];
  return rows === 1 && !['router', 'sharedExpertGate'].includes(role) ? [cols] : [rows * parts, cols];
}

/** Keys and values of all heads in one matrix. */
function latentUpShape(spec: ModelSpec, layer: number): number[] {
  const { numHeads = 0, latent } = spec.layers[layer]?.attention ?? {};
  if (latent === undefined) throw new Error(`layer ${layer} has no latent attention`);
  return [numHeads * (latent.nopeHeadDim + latent.valueHeadDim), latent.keyValueRank];
}

/** A byte-level BPE tokenizer of 256 bytes, a few merges and two special tokens. */
export function tinyTokenizer(): Json {
  const vocab: Record<string, number> = {};
  for (const [char, byte] of CHAR_TO_BYTE) vocab[char] = byte;
  const merges = ['h e', 'l l', 'he ll', 'hell o', '\u0120 hello'];
  for (const merge of merges) vocab[merge.replace(' ', '')] = Object.keys(vocab).length;
  const special = (id: number, content: string) => ({ id, content, special: true, normalized: false });
  return {
    version: '1.0',
    added_tokens: [
      special(290, '<|end|>'),
      special(291, '<|user|>'),
      { id: 292, content: '<tool>', special: false },
    ],
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: null,
    decoder: { type: 'ByteLevel' },
    model: { type: 'BPE', vocab, merges },
  };
}

export type FolderContent = { config: Json; tensors: readonly TestTensor[]; files?: Record<string, string> };

/** A model folder; an entry of `files` with an empty text leaves that file out. */
export function modelFolder({ config, tensors, files = {} }: FolderContent): string {
  const folder = newFolder();
  const contents: Record<string, string | Uint8Array> = {
    'config.json': JSON.stringify(config),
    'tokenizer.json': JSON.stringify(tinyTokenizer()),
    'tokenizer_config.json': JSON.stringify({ eos_token: '<|end|>', bos_token: null }),
    'model.safetensors': safetensorsBytes(tensors),
    ...files,
  };
  for (const [name, content] of Object.entries(contents)) {
    if (content.length > 0) writeFileSync(join(folder, name), content);
  }
  return folder;
}

/** The error that `run` throws; fails where it throws none. */
export function thrownBy(run: () => unknown): Error & Record<string, unknown> {
  try {
    run();
  } catch (error) {
    return error as Error & Record<string, unknown>;
  }
  throw new Error('expected an error, got none');
}
