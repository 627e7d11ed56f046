/**
 * Published configurations of models that benchmarks name instead of a file. Values are the `config.json` of the
 * checkpoints on the Hub, reduced to what shapes depend on. Read by synthetic.ts.
 */
export const SYNTHETIC_SHAPES = {
  /** allenai/OLMoE-1B-7B-0924 */
  'olmoe-1b-7b': {
    model_type: 'olmoe',
    vocab_size: 50304,
    hidden_size: 2048,
    intermediate_size: 1024,
    num_hidden_layers: 16,
    num_attention_heads: 16,
    num_key_value_heads: 16,
    num_experts: 64,
    num_experts_per_tok: 8,
    norm_topk_prob: false,
    max_position_embeddings: 4096,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
  },
  /** Qwen/Qwen3-30B-A3B */
  'qwen3-30b-a3b': {
    model_type: 'qwen3_moe',
    vocab_size: 151936,
    hidden_size: 2048,
    intermediate_size: 6144,
    moe_intermediate_size: 768,
    num_hidden_layers: 48,
    num_attention_heads: 32,
    num_key_value_heads: 4,
    head_dim: 128,
    num_experts: 128,
    num_experts_per_tok: 8,
    norm_topk_prob: true,
    max_position_embeddings: 40960,
    rms_norm_eps: 1e-6,
    rope_theta: 1000000,
  },
} as const;
