/**
 * Writes a qwen3_moe checkpoint of any size with made-up weights, for tests that need steps to take a while. The
 * tokenizer is the golden fixture's. Values are small and differ, so that nothing overflows and routing varies.
 */
import {
  closeSync,
  copyFileSync,
  mkdtempSync,
  openSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { goldenFolder } from './built.js';

export type SyntheticShape = {
  hiddenSize: number;
  layers: number;
  numExperts: number;
  topK: number;
  intermediateSize: number;
  maxPositions: number;
};

export function writeSyntheticCheckpoint(shape: SyntheticShape): string {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'nearmoe-synthetic-'));
  const source = goldenFolder('qwen3_moe');
  for (const file of ['tokenizer.json', 'tokenizer_config.json', 'generation_config.json']) {
    copyFileSync(path.join(source, file), path.join(folder, file));
  }
  const config = JSON.parse(readFileSync(path.join(source, 'config.json'), 'utf8')) as Record<
    string,
    unknown
  >;
  const headDim = 32;
  const heads = shape.hiddenSize / headDim;
  const changed = {
    hidden_size: shape.hiddenSize,
    num_hidden_layers: shape.layers,
    num_local_experts: shape.numExperts,
    num_experts_per_tok: shape.topK,
    moe_intermediate_size: shape.intermediateSize,
    max_position_embeddings: shape.maxPositions,
    num_attention_heads: heads,
    num_key_value_heads: heads / 2,
    head_dim: headDim,
    mlp_only_layers: [],
  };
  writeFileSync(path.join(folder, 'config.json'), JSON.stringify({ ...config, ...changed }));
  writeTensors(path.join(folder, 'model.safetensors'), [...tensors(shape, heads, headDim)]);
  return folder;
}

type Tensor = { name: string; shape: number[]; isNorm: boolean };

function* tensors(shape: SyntheticShape, heads: number, headDim: number): Generator<Tensor> {
  const { hiddenSize: hidden, intermediateSize: wide } = shape;
  const matrix = (name: string, rows: number, cols: number) => ({ name, shape: [rows, cols], isNorm: false });
  const norm = (name: string, size: number) => ({ name, shape: [size], isNorm: true });
  yield matrix('model.embed_tokens.weight', 291, hidden);
  for (let layer = 0; layer < shape.layers; layer++) {
    const at = `model.layers.${layer}`;
    yield norm(`${at}.input_layernorm.weight`, hidden);
    yield norm(`${at}.post_attention_layernorm.weight`, hidden);
    yield matrix(`${at}.self_attn.q_proj.weight`, heads * headDim, hidden);
    yield matrix(`${at}.self_attn.k_proj.weight`, (heads / 2) * headDim, hidden);
    yield matrix(`${at}.self_attn.v_proj.weight`, (heads / 2) * headDim, hidden);
    yield matrix(`${at}.self_attn.o_proj.weight`, hidden, heads * headDim);
    yield norm(`${at}.self_attn.q_norm.weight`, headDim);
    yield norm(`${at}.self_attn.k_norm.weight`, headDim);
    yield matrix(`${at}.mlp.gate.weight`, shape.numExperts, hidden);
    for (let expert = 0; expert < shape.numExperts; expert++) {
      yield matrix(`${at}.mlp.experts.${expert}.gate_proj.weight`, wide, hidden);
      yield matrix(`${at}.mlp.experts.${expert}.up_proj.weight`, wide, hidden);
      yield matrix(`${at}.mlp.experts.${expert}.down_proj.weight`, hidden, wide);
    }
  }
  yield norm('model.norm.weight', hidden);
  yield matrix('lm_head.weight', 291, hidden);
}

function writeTensors(file: string, list: Tensor[]): void {
  const header: Record<string, object> = {};
  let end = 0;
  for (const { name, shape } of list) {
    const begin = end;
    end += 4 * shape.reduce((product, size) => product * size, 1);
    header[name] = { dtype: 'F32', shape, data_offsets: [begin, end] };
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const handle = openSync(file, 'w');
  writeSync(handle, length);
  writeSync(handle, text);
  let seed = 1;
  for (const { shape, isNorm } of list) {
    const values = new Float32Array(shape.reduce((product, size) => product * size, 1));
    for (let i = 0; i < values.length; i++) {
      seed = (Math.imul(seed, 1664525) + 1013904223) | 0;
      values[i] = isNorm ? 1 : seed / 2 ** 35;
    }
    writeSync(handle, new Uint8Array(values.buffer));
  }
  closeSync(handle);
}
