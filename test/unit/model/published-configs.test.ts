/**
 * Configs of published models: with the keys of the Hub's files and as transformers 5 saves them anew they mean the same
 * (scripts/goldens/published_configs.py); keys that nobody knows change nothing; what contradicts itself is refused with
 * both values.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { ModelFormatError } from '../../../src/errors.js';
import { ConfigReader } from '../../../src/model/config.js';
import { familyOf } from '../../../src/model/families/registry.js';
import type { JsonObject } from '../../../src/model/json-file.js';
import type { ModelSpec } from '../../../src/model/model-spec.js';
import { thrownBy } from './tiny-checkpoint.js';

const CONFIGS: Record<string, { published: JsonObject; transformers: JsonObject }> = JSON.parse(
  readFileSync('test/fixtures/published-configs.json', 'utf8'),
);

function specOf(config: JsonObject): ModelSpec {
  const reader = new ConfigReader(config, 'config.json');
  return familyOf(reader).readSpec(reader);
}

/** Layers, heads, routed experts, experts per token, width of an expert, and the last layer's window. */
const FACTS: Record<string, number[]> = {
  'DeepSeek-V3': [61, 128, 256, 8, 2048, 0],
  'Kimi-K2-Instruct': [61, 64, 384, 8, 2048, 0],
  'DeepSeek-V2': [60, 128, 160, 6, 1536, 0],
  'GLM-4.7-Flash': [47, 20, 64, 4, 1536, 0],
  'GLM-4.7': [92, 96, 160, 8, 1536, 0],
  'gpt-oss-20b': [24, 64, 32, 4, 2880, 0],
  'ERNIE-4.5-21B-A3B-PT': [28, 20, 64, 6, 1536, 0],
  'MiniMax-M2': [62, 48, 256, 8, 1536, 0],
};

describe.each(Object.entries(CONFIGS))('%s', (name, { published, transformers }) => {
  it('loads', () => {
    const { layers } = specOf(published);
    const last = layers.at(-1);
    if (last?.ffn.kind !== 'moe') throw new Error('the last layer is dense');
    const { numExperts, numExpertsPerTok, intermediateSize } = last.ffn;
    expect([
      ...[layers.length, last.attention.numHeads, numExperts, numExpertsPerTok, intermediateSize],
      last.attention.slidingWindow,
    ]).toEqual(FACTS[name]);
  });

  it('means the same as transformers saves it', () => {
    expect(specOf(transformers)).toEqual(specOf(published));
  });

  it('has no meaning in keys that nobody knows', () => {
    const more = { ...published, future_key: 7, another: { rope_theta: 3 }, auto_map: { AutoConfig: 'x.Y' } };
    expect(specOf(more)).toEqual(specOf(published));
  });
});

it.each<[string, JsonObject, RegExp]>([
  ['DeepSeek-V3', { qk_head_dim: 128 }, /`qk_nope_head_dim` = 128, got 128/],
  ['DeepSeek-V3', { head_dim: 128 }, /`qk_rope_head_dim` = 64, got 128/],
  ['DeepSeek-V3', { num_local_experts: 8 }, /`n_routed_experts` = 256, got 8/],
  [
    'DeepSeek-V3',
    { rope_parameters: { rope_type: 'yarn', factor: 4 } },
    /rope_parameters.factor` = 4, got 40/,
  ],
  ['DeepSeek-V3', { topk_group: 9 }, /`n_group` = 8, got 9/],
  ['GLM-4.7-Flash', { mlp_layer_types: new Array(47).fill('sparse') }, /`first_k_dense_replace` = 1, got/],
  ['GLM-4.7-Flash', { mlp_layer_types: ['dense'] }, /`num_hidden_layers` = 47, got "1 types"/],
  ['GLM-4.7', { rope_parameters: { rope_theta: 5 } }, /`rope_theta` = 1000000, got 5/],
  ['GLM-4.7', { rope_parameters: { partial_rotary_factor: 1 } }, /= 1, got 0.5/],
  ['gpt-oss-20b', { experts_per_token: 2 }, /`num_experts_per_tok` = 4, got 2/],
  ['gpt-oss-20b', { layer_types: ['full_attention'] }, /`num_hidden_layers` = 24, got/],
  ['ERNIE-4.5-21B-A3B-PT', { num_experts_per_tok: 4 }, /`moe_k` = 6, got 4/],
  ['MiniMax-M2', { partial_rotary_factor: 1 }, /`partial_rotary_factor` = 1, got 64/],
  ['MiniMax-M2', { architectures: ['MiniMaxForCausalLM'] }, /expected one of .*minimax_m2.*, got "minimax"/],
])('%s with %o is refused', (name, changes, message) => {
  const error = thrownBy(() => specOf({ ...CONFIGS[name]?.published, ...changes }));
  expect(error).toBeInstanceOf(ModelFormatError);
  expect(error.message).toMatch(message);
});
