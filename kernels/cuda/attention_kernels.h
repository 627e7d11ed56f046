// The launchers of everything that touches the KV pool. Conventions as in kernels.h.
#pragma once

#include "kernels.h"

namespace nearmoe::cuda {

/// Positions of one KV block; equals kernels/ops.h.
inline constexpr uint32_t kKvTokens = 32;

// ---- rope_kv_write.cu

/// Head: null weights count as 1.
enum class QkNormKind : uint32_t { None, Head, Full };

/// Norm of q and k, clipping, rotary embedding, and the store of k and v into the KV blocks.
struct RopeKvArgs {
  float* q;        ///< [T][Q * D], in place
  const float* k;  ///< [T][G * D]
  const float* v;  ///< [T][G * D]
  uint32_t q_stride, k_stride, v_stride;
  uint32_t tokens, num_heads, num_kv_heads, head_dim;
  QkNormKind qk_norm;
  const float* q_norm;  ///< [D] or [Q * D]
  const float* k_norm;
  bool value_norm;  ///< per head, without a weight
  float eps;
  uint32_t rotary_dim;   ///< 0 = none
  const float2* rotary;  ///< {cos, sin} [T][rotary_dim / 2]
  bool interleaved;
  const uint32_t* positions;      ///< [T]
  const uint32_t* block_offsets;  ///< [T]: where the block table of the token's sequence begins
  const uint32_t* block_table;
  uint8_t* kv;  ///< the layer's part of the pool
  uint32_t kv_dtype;
  uint32_t padded_head_dim;
  float clip;  ///< limit of q, k and v after the norm, before the rotation; 0 = off
  /// Queries times 1 + scale * log1p(floor((position + 1) / floor)) (Llama 4); scale 0 = off.
  float temperature_scale, temperature_floor;
};
cudaError_t rope_kv_write(const RopeKvArgs& args, cudaStream_t stream);

/// Head dims are padded to one of 64, 128, 256, 512 in the KV pool; 0 where it is larger.
uint32_t padded_head_dim(uint32_t head_dim);
/// Bytes of one KV block of one head in the pool: K [32][Dp], then V [32][Dp].
size_t kv_pool_block_bytes(uint32_t kv_dtype, uint32_t padded_head_dim);

// ---- attention_decode.cu, attention_prefill.cu

struct AttentionArgs {
  const float* q;  ///< [T][Q * D], normed and rotated
  uint32_t q_stride;
  float* out;  ///< [T][Q * D]
  uint32_t out_stride;
  uint32_t num_heads, num_kv_heads, head_dim, padded_head_dim;
  float scale, softcap;
  uint32_t sliding_window;  ///< 0 = none; else keys at a distance of that and more are not seen
  uint32_t chunk_size;      ///< 0 = none; else only keys of the query's own run of so many positions are
  const float* sinks;       ///< [Q] or null
  const uint32_t* positions;
  const uint32_t* block_offsets;
  const uint32_t* block_table;
  const uint8_t* kv;
  uint32_t kv_dtype;
};
/// Attention of single tokens, the sequence cut in `num_splits` parts. Rows: tokens[i], or i where null.
struct AttentionDecodeArgs {
  AttentionArgs attention;
  const uint32_t* tokens;
  uint32_t num_tokens;
  uint32_t num_splits;
  float* partial;  ///< workspace of attention_decode_workspace floats
};
cudaError_t attention_decode(const AttentionDecodeArgs& args, cudaStream_t stream);
size_t attention_decode_workspace(uint32_t num_tokens, uint32_t num_heads, uint32_t padded_head_dim,
                                  uint32_t num_splits);
/// Tokens of one sequence that one block of attention_prefill works on: at most prefill_tile_tokens(heads per
/// KV head).
struct PrefillTile {
  uint32_t first_token, count;
};
struct AttentionPrefillArgs {
  AttentionArgs attention;
  const PrefillTile* tiles;  ///< in device memory
  uint32_t num_tiles;
};
cudaError_t attention_prefill(const AttentionPrefillArgs& args, cudaStream_t stream);
uint32_t prefill_tile_tokens(uint32_t heads_per_kv, uint32_t padded_head_dim);

// ---- attention_wide.cu

/// attention_prefill for heads padded to 512 values, which it hands on.
cudaError_t attention_wide(const AttentionPrefillArgs& args, cudaStream_t stream);
uint32_t wide_tile_tokens(uint32_t heads_per_kv);

// ---- latent_write.cu, latent_attention.cu: multi-head latent attention (DeepSeek-V2, arXiv 2405.04434),
// absorbed

/// Widest compressed row with its rotated part, and widest value part of it.
inline constexpr uint32_t kMaxLatentDim = 576;
inline constexpr uint32_t kMaxLatentValueDim = 512;

/// The compressed row of each token normalised, rotated and stored into the KV blocks; the queries' parts
/// that are not rotated in the forms that keyUp reads, the rotated ones where they belong behind keyUp's
/// products. R value_dim of the latent, P rotated dim, latent_dim = R + P.
struct LatentWriteArgs {
  const float* latent;  ///< [T][R + P]
  const float* q;       ///< [T][Q * (nope_dim + P)]
  uint32_t latent_stride, q_stride;
  uint32_t tokens, num_heads, nope_dim, latent_dim, value_dim;
  const float* norm;  ///< [R]
  float eps;
  uint32_t rotary_dim;   ///< even, at most P
  const float2* rotary;  ///< {cos, sin} [T][rotary_dim / 2]
  bool interleaved;
  const uint32_t* positions;
  const uint32_t* block_offsets;
  const uint32_t* block_table;
  uint8_t* kv;
  uint32_t kv_dtype;
  ActivationSinks nope;  ///< row t * Q + head
  float* latent_q;       ///< [T][Q][R + P]: the last P values of a head are written
};
cudaError_t latent_write(const LatentWriteArgs& args, cudaStream_t stream);
/// Rows of latents are padded with zeros to a multiple of 32 values in the KV pool.
constexpr uint32_t padded_latent_dim(uint32_t latent_dim) { return (latent_dim + 31) / 32 * 32; }
/// Bytes of one block of latents in the pool: [32][padded].
size_t latent_pool_block_bytes(uint32_t kv_dtype, uint32_t latent_dim);

/// Causal attention of all heads to the latents themselves: softmax(scale * q . latent), values are a
/// latent's first value_dim values. Needs sm_80.
struct LatentAttentionArgs {
  const float* q;  ///< [T][Q][latent_dim]
  float* out;      ///< [T][Q][value_dim]
  uint32_t num_heads, latent_dim, value_dim;
  float scale;
  const uint32_t* positions;
  const uint32_t* block_offsets;
  const uint32_t* block_table;
  const uint8_t* kv;
  uint32_t kv_dtype;
  /// Runs of at most latent_tile_tokens of one sequence, in device memory; null: single tokens.
  const PrefillTile* tiles;
  const uint32_t* tokens;  ///< the single tokens; null: 0, 1, ...
  uint32_t num_tiles;      ///< or single tokens
  uint32_t num_splits;     ///< parts of the sequence; 1 with tiles
  float* partial;          ///< workspace of latent_attention_workspace floats; unused where num_splits is 1
};
cudaError_t latent_attention(const LatentAttentionArgs& args, cudaStream_t stream);
size_t latent_attention_workspace(uint32_t num_tokens, uint32_t num_heads, uint32_t value_dim,
                                  uint32_t num_splits);
uint32_t latent_tile_tokens(uint32_t num_heads);
/// Thread blocks that share the heads of a token; each reads the latents.
uint32_t latent_head_blocks(uint32_t num_heads, uint32_t kv_dtype);

}  // namespace nearmoe::cuda
