/**
 * The figures of `inspect` for a published shape, against arithmetic done by hand from its config.
 */
import { expect, test } from 'vitest';
import { modelFacts } from '../../../src/engine/model-facts.js';
import { ConfigReader } from '../../../src/model/config.js';
import { familyOf } from '../../../src/model/families/registry.js';
import { TensorIndex, type TensorInfo } from '../../../src/model/tensor-index.js';
import { neededWeights } from '../../../src/model/weights.js';

/** config.json of Qwen3-30B-A3B. */
const config = {
  architectures: ['Qwen3MoeForCausalLM'],
  model_type: 'qwen3_moe',
  head_dim: 128,
  hidden_size: 2048,
  intermediate_size: 6144,
  max_position_embeddings: 40960,
  moe_intermediate_size: 768,
  norm_topk_prob: true,
  num_attention_heads: 32,
  num_experts: 128,
  num_experts_per_tok: 8,
  num_hidden_layers: 48,
  num_key_value_heads: 4,
  rms_norm_eps: 1e-6,
  rope_theta: 1000000,
  tie_word_embeddings: false,
  vocab_size: 151936,
};

/** The model with every weight in a bfloat16 tensor of its own. */
function opened(values: object) {
  const reader = new ConfigReader({ ...config, ...values }, 'config.json');
  const spec = familyOf(reader).readSpec(reader);
  const weights = [...neededWeights(spec)].map((need, index) => ({
    ...need,
    tensor: `t${index}`,
    firstRow: 0,
  }));
  const tensors = weights.map(({ tensor, rows, cols }): TensorInfo => {
    return {
      name: tensor,
      dtype: 'bf16',
      shape: [rows, cols],
      file: 0,
      offsetBytes: 0,
      sizeBytes: 2 * rows * cols,
    };
  });
  return { spec, weights, tensors: new TensorIndex(['model.safetensors'], tensors) };
}

const embedding = 151936 * 2048;
const attention = 48 * (2048 * 4096 + 2 * 2048 * 512 + 4096 * 2048);
const router = 48 * 128 * 2048;
const oneExpert = 3 * 2048 * 768;
const norms = 48 * (2 * 2048 + 2 * 128) + 2048;

test('Qwen3-30B-A3B has 30.5 billion parameters, 3.35 billion active', () => {
  const facts = modelFacts(opened({}));
  const rest = 2 * embedding + attention + router + norms;
  expect(facts.parameters).toEqual({
    total: rest + 48 * 128 * oneExpert,
    active: rest + 48 * 8 * oneExpert,
  });
  expect(facts.parameters.total).toBe(30_532_122_624);
  expect(facts.expertBytes).toBe(9_437_184);
  expect(facts.kvBytesPerToken).toBe(98_304);
  expect(facts.readBytesPerToken).toBe(2 * (facts.parameters.active - embedding + 2048));
  expect(facts.sizeBytes.byDtype).toEqual({ bf16: 2 * facts.parameters.total });
  expect(facts.sizeBytes.byKind).toEqual({
    embedding: 2 * embedding,
    attention: 2 * attention,
    'dense ffn': 0,
    'shared experts': 0,
    router: 2 * router,
    experts: 2 * 48 * 128 * oneExpert,
    'lm head': 2 * embedding,
    norms: 2 * norms,
  });
});

test('tied embeddings are stored once and read whole', () => {
  const facts = modelFacts(opened({ tie_word_embeddings: true }));
  expect(facts.sizeBytes.byKind['lm head']).toBe(0);
  expect(facts.readBytesPerToken).toBe(2 * facts.parameters.active);
});

test('dense layers between are counted as such', () => {
  const facts = modelFacts(opened({ mlp_only_layers: [0] }));
  expect([facts.layers, facts.moeLayers]).toEqual([48, 47]);
  expect(facts.sizeBytes.byKind['dense ffn']).toBe(2 * 3 * 2048 * 6144);
  expect(facts.sizeBytes.byKind.experts).toBe(2 * 47 * 128 * oneExpert);
  expect(facts.expertBytes).toBe(9_437_184);
});
