// Layout of one KV block of one head: kKvBlockTokens positions of K, then of V (written by kv_store, read by
// attention).
//   float formats: K transposed [head_dim][32], so that a vector holds one dimension of neighbouring keys; V
//   [32][head_dim]. Q8_0, head_dim filled up to B blocks of 32 columns:
//     K codes [B * 8][32 positions][4 columns], stored with 128 added (unsigned); K scales f16 [B][32
//     positions]; V codes [32 positions][B * 32] int8; V scales f16 [32 positions][B].
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops.h"

namespace nearmoe {

struct KvLayout {
  size_t blocks;    ///< 32-column blocks of a head (Q8_0)
  size_t k_scales;  ///< byte offset (Q8_0)
  size_t v;         ///< byte offset of V
  size_t v_scales;  ///< byte offset (Q8_0)
  size_t bytes;     ///< of the whole block, a multiple of kAlignment
};

static constexpr KvLayout kv_layout(KvDType dtype, size_t head_dim) {
  KvLayout out{};
  constexpr size_t kTokens = kKvBlockTokens;
  if (dtype == KvDType::Q8_0) {
    out.blocks = (head_dim + 31) / 32;
    out.k_scales = out.blocks * 32 * kTokens;
    out.v = out.k_scales + out.blocks * kTokens * 2;
    out.v_scales = out.v + out.blocks * 32 * kTokens;
    out.bytes = out.v_scales + out.blocks * kTokens * 2;
  } else {
    out.v = head_dim * kTokens * (dtype == KvDType::F32 ? 4 : 2);
    out.bytes = 2 * out.v;
  }
  out.bytes = (out.bytes + kAlignment - 1) / kAlignment * kAlignment;
  return out;
}

/// The oldest position that a token at `position` sees.
static constexpr size_t oldest_visible(const AttentionArgs& args, size_t position) {
  const size_t window = args.sliding_window;
  const size_t in_window = window > 0 && position + 1 > window ? position + 1 - window : 0;
  const size_t in_chunk = args.chunk_size > 0 ? position / args.chunk_size * args.chunk_size : 0;
  return in_window > in_chunk ? in_window : in_chunk;
}

/// A block of latents, [32 positions][dim] like V above (latent_store, latent_attention). Q8_0: codes [32][B
/// * 32] int8, then scales f16 [32][B].
static constexpr KvLayout latent_layout(KvDType dtype, size_t dim) {
  KvLayout out{};
  constexpr size_t kTokens = kKvBlockTokens;
  if (dtype == KvDType::Q8_0) {
    out.blocks = (dim + 31) / 32;
    out.v_scales = out.blocks * 32 * kTokens;
    out.bytes = out.v_scales + out.blocks * kTokens * 2;
  } else {
    out.bytes = dim * kTokens * (dtype == KvDType::F32 ? 4 : 2);
  }
  out.bytes = (out.bytes + kAlignment - 1) / kAlignment * kAlignment;
  return out;
}

}  // namespace nearmoe
