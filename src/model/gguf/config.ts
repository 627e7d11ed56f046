/**
 * GGUF metadata as a configuration with the Hub's keys, so that a family reads both formats with one function.
 * Errors of the reader it returns name the metadata keys. Called by open-gguf.ts.
 */
import { describeValue, ModelFormatError } from '../../errors.js';
import { ConfigReader } from '../config.js';
import type { Family } from '../families/family.js';
import { FAMILIES } from '../families/registry.js';
import type { JsonObject } from '../json-file.js';
import type { LayerSpec, ModelSpec } from '../model-spec.js';
import type { TensorIndex } from '../tensor-index.js';
import type { GgufFamily, GgufSource } from './family.js';
import type { GgufMetadata } from './metadata.js';
import { readRopeParameters } from './rope.js';

/** Config key -> end of the metadata key; these must be there. */
const REQUIRED = {
  hidden_size: 'embedding_length',
  num_hidden_layers: 'block_count',
  max_position_embeddings: 'context_length',
  intermediate_size: 'feed_forward_length',
  num_local_experts: 'expert_count',
  num_experts_per_tok: 'expert_used_count',
} as const;

/** The family of a file and its ModelSpec. Throws ModelFormatError. */
export function readGgufSpec(
  metadata: GgufMetadata,
  tensors: TensorIndex,
): { family: Family; spec: ModelSpec } {
  const { family, gguf } = familyOf(metadata);
  const config = configOf(metadata, tensors, family, gguf);
  const spec = family.readSpec(config);
  const ropes = spec.ropes.map((rope) => ({ ...rope, style: gguf.ropeStyle }));
  return { family, spec: { ...spec, ropes, layers: spec.layers.map((layer) => ordered(layer, gguf)) } };
}

function ordered(layer: LayerSpec, { valueHeadOrder }: GgufFamily): LayerSpec {
  if (layer.recurrent?.kind !== 'gated-delta' || valueHeadOrder === undefined) return layer;
  return { ...layer, recurrent: { ...layer.recurrent, valueHeadOrder } };
}

function familyOf(metadata: GgufMetadata): { family: Family; gguf: GgufFamily } {
  const key = 'general.architecture';
  const architecture = metadata.text(key);
  const known = new Set<string>();
  for (const family of FAMILIES) {
    if (family.gguf === undefined) continue;
    if (family.gguf.architecture === architecture) return { family, gguf: family.gguf };
    known.add(family.gguf.architecture);
  }
  throw new ModelFormatError({
    code: architecture === undefined ? 'ERR_MODEL_FORMAT' : 'ERR_MODEL_UNSUPPORTED',
    file: metadata.path,
    field: key,
    expected: `one of ${[...known].join(', ')}`,
    got: describeValue(architecture),
  });
}

function configOf(
  metadata: GgufMetadata,
  tensors: TensorIndex,
  family: Family,
  gguf: GgufFamily,
): ConfigReader {
  const arch = gguf.architecture;
  const source: GgufSource = {
    metadata,
    tensors,
    integer: (suffix) => metadata.integer(`${arch}.${suffix}`),
  };
  const values: JsonObject = { ...gguf.defaults?.(source) };
  const labels: Record<string, string> = {};
  const set = (key: string, suffix: string, value: unknown) => {
    labels[key] = `${arch}.${suffix}`;
    if (value !== undefined) values[key] = value;
  };
  for (const [key, suffix] of Object.entries(gguf.keys ?? {}))
    set(key, suffix, metadata.get(`${arch}.${suffix}`));
  for (const [key, common] of Object.entries(REQUIRED)) {
    const suffix = gguf.keys?.[key] ?? common;
    const value = perLayer(metadata, `${arch}.${suffix}`);
    if (value === undefined && values[key] === undefined)
      throw metadata.error(`${arch}.${suffix}`, 'a number', 'no such key');
    set(key, suffix, value);
  }
  if (values.num_local_experts === 0) {
    throw metadata.error(`${arch}.expert_count`, 'at least 1: only mixtures of experts run here', 0);
  }
  const extraLayers = metadata.integer(`${arch}.nextn_predict_layers`) ?? 0;
  values.num_hidden_layers = Number(values.num_hidden_layers) - extraLayers;
  readHeads(metadata, gguf, set);
  set('rms_norm_eps', 'attention.layer_norm_rms_epsilon', readNormEps(metadata, arch));
  set('vocab_size', 'vocab_size', tensors.get('token_embd.weight')?.shape[0]);
  refuseOtherRouting(metadata, gguf);
  values.model_type = family.modelType;
  values.tie_word_embeddings = !tensors.has('output.weight');
  values.rope_parameters ??= { ...readRopeParameters(metadata, tensors, arch), ...gguf.rope };
  return new ConfigReader(values, metadata.path, labels);
}

/** A number, or a list that says the same for every layer; with `withoutZeros`, for every layer that has any. */
function perLayer(metadata: GgufMetadata, key: string, withoutZeros = false): number | undefined {
  if (!ArrayBuffer.isView(metadata.get(key))) return metadata.integer(key);
  const list = Array.from(metadata.numbers(key) ?? []).filter((count) => count !== 0 || !withoutZeros);
  const first = list[0];
  for (let i = 0; i < list.length; i++) {
    if (list[i] !== first)
      throw metadata.error(key, 'the same number for all layers', `${first} and ${list[i]}`);
  }
  return first;
}

function readHeads(
  metadata: GgufMetadata,
  { architecture: arch, hasOwnHeads, hasLayersWithoutHeads }: GgufFamily,
  set: (key: string, suffix: string, value: unknown) => void,
): void {
  const heads = perLayer(metadata, `${arch}.attention.head_count`);
  if (heads === undefined) throw metadata.error(`${arch}.attention.head_count`, 'a number', 'no such key');
  set('num_attention_heads', 'attention.head_count', heads);
  if (hasOwnHeads) return;
  set(
    'num_key_value_heads',
    'attention.head_count_kv',
    perLayer(metadata, `${arch}.attention.head_count_kv`, hasLayersWithoutHeads) ?? heads,
  );
  const keyLength = metadata.integer(`${arch}.attention.key_length`);
  const valueLength = metadata.integer(`${arch}.attention.value_length`);
  if (valueLength !== undefined && valueLength !== keyLength) {
    throw metadata.error(`${arch}.attention.value_length`, `${keyLength}, the key length`, valueLength);
  }
  set('head_dim', 'attention.key_length', keyLength);
  const embedding = metadata.integer(`${arch}.embedding_length`) ?? 0;
  const rotated = metadata.integer(`${arch}.rope.dimension_count`);
  const headDim = keyLength ?? embedding / heads;
  set('partial_rotary_factor', 'rope.dimension_count', rotated === undefined ? undefined : rotated / headDim);
}

function readNormEps(metadata: GgufMetadata, arch: string): number {
  const [rms, layer] = ['attention.layer_norm_rms_epsilon', 'attention.layer_norm_epsilon'].map((suffix) =>
    metadata.number(`${arch}.${suffix}`),
  );
  const eps = rms ?? layer;
  if (eps === undefined)
    throw metadata.error(`${arch}.attention.layer_norm_rms_epsilon`, 'a number', 'no such key');
  return eps;
}

/** llama.cpp's numbers for `expert_gating_func`; 0 stands for none given. */
const GATING = { softmax: [0, 1], sigmoid: [0, 2], any: [0, 1, 2] };

/** Keys that change the routing in ways that the family does not read. */
function refuseOtherRouting(
  metadata: GgufMetadata,
  { architecture, gating = 'softmax', keys }: GgufFamily,
): void {
  const read = new Set(Object.values(keys ?? {}));
  const plain: Record<string, number[]> = {
    expert_gating_func: GATING[gating],
    expert_weights_scale: [0, 1],
    expert_group_count: [0, 1],
  };
  for (const [suffix, expected] of Object.entries(plain)) {
    const value = metadata.number(`${architecture}.${suffix}`);
    if (value === undefined || read.has(suffix) || expected.includes(value)) continue;
    throw metadata.error(`${architecture}.${suffix}`, `one of ${expected.join(', ')}`, value);
  }
}
