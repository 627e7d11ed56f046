// latent_attention: the softmax and the value sums of attention.inl.h over rows that are key and value at
// once; scores are dot products along a row. A row's arithmetic does not depend on its tile. Needs
// attention.inl.h.

#include "../half.h"
#include "../kv_block.h"
#include "vec.h"

namespace nearmoe {
namespace {

constexpr size_t kMaxLatentDim = 1024;  // longer rows take the reference path
constexpr size_t kLatentKeys = 2;       // keys beside one another in a score tile

/// 16 values of a position's latent, zeros past its end.
template <KvDType kKv>
NEARMOE_INLINE VF load_latent(const std::byte* block, const KvLayout& layout, size_t dim, size_t key,
                              size_t d) {
  if constexpr (kKv == KvDType::Q8_0) {
    uint16_t word;
    std::memcpy(&word, block + layout.v_scales + (key * layout.blocks + d / 32) * 2, sizeof word);
    return f_mul(f_from_s8(block + key * layout.blocks * 32 + d), f_set(f16_to_f32(word)));
  } else {
    const size_t n = dim - d;
    return n >= 16 ? load_kv<kKv>(block, key * dim + d) : load_kv_n<kKv>(block, key * dim + d, n);
  }
}

/// q.latent of kRows rows (q: [kRows][kMaxLatentDim], filled up with zeros) and kKeys keys.
template <KvDType kKv, int kRows, int kKeys>
static void latent_scores(const float* q, RowTile& tile, const std::byte* block, const KvLayout& layout,
                          size_t dim, size_t first, size_t key) {
  VF acc[kRows][kKeys];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int k = 0; k < kKeys; ++k) acc[r][k] = f_zero();
  }
  for (size_t d = 0; d < dim; d += 16) {
    VF keys[kKeys];
#pragma GCC unroll 2
    for (int k = 0; k < kKeys; ++k) {
      keys[k] = load_latent<kKv>(block, layout, dim, key + static_cast<size_t>(k), d);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const VF value = f_load(q + static_cast<size_t>(r) * kMaxLatentDim + d);
#pragma GCC unroll 2
      for (int k = 0; k < kKeys; ++k) acc[r][k] = f_fma(value, keys[k], acc[r][k]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int k = 0; k < kKeys; ++k) {
      tile.weights[r][first * kKvBlockTokens + key + static_cast<size_t>(k)] = f_reduce_add(acc[r][k]);
    }
  }
}

/// One tile of exactly kRows rows over all its keys.
template <KvDType kKv, int kRows>
static void attend_latent_tile(const LatentAttentionArgs& args, const AttentionArgs& softmax, const float* q,
                               RowTile& tile) {
  constexpr int kVectors = 2 * kAttentionRows / kRows < 8 ? 2 * kAttentionRows / kRows : 8;
  const size_t dim = args.latent_dim;
  const KvLayout layout = latent_layout(kKv, dim);
  const size_t newest = tile.position[kRows - 1];  // rows ascend by position
  for (size_t step = 0; step * kStepKeys <= newest; ++step) {
    const size_t step_key = step * kStepKeys;
    const std::byte* const* blocks = args.blocks + step * kStepBlocks;
    const size_t present = (newest - step_key) / kKvBlockTokens + 1;
    const size_t end = present < kStepBlocks ? present : kStepBlocks;
    for (size_t b = 0; b < end; ++b) {
      const size_t left = newest + 1 - step_key - b * kKvBlockTokens;
      const size_t keys = left < kKvBlockTokens ? left : kKvBlockTokens;
      size_t key = 0;
      for (; key + kLatentKeys <= keys; key += kLatentKeys)
        latent_scores<kKv, kRows, kLatentKeys>(q, tile, blocks[b], layout, dim, b, key);
      for (; key < keys; ++key) latent_scores<kKv, kRows, 1>(q, tile, blocks[b], layout, dim, b, key);
      // What the softmax overwrites must not be read uninitialised before.
      for (size_t r = 0; r < kRows; ++r) {
        std::fill(tile.weights[r] + b * kKvBlockTokens + keys, tile.weights[r] + (b + 1) * kKvBlockTokens,
                  0.0f);
      }
    }
    for (size_t r = 0; r < kRows; ++r) {
      const float factor = softmax_step(softmax, tile, r, step_key, 0, end * kKvBlockTokens);
      if (factor == 1.0f) continue;
      for (size_t d = 0; d < args.value_dim; d += 16) {
        f_store(tile.out[r] + d, f_mul(f_load(tile.out[r] + d), f_set(factor)));
      }
    }
    for (size_t b = 0; b < end; ++b) {
      const size_t left = newest + 1 - step_key - b * kKvBlockTokens;
      const size_t keys = left < kKvBlockTokens ? left : kKvBlockTokens;
      size_t d = 0;
      for (; d + 16 * kVectors <= args.value_dim; d += 16 * kVectors)
        add_values<kKv, kRows, kVectors>(tile, blocks[b], blocks[b], layout, dim, d, 16, b, 0, keys);
      for (; d < args.value_dim; d += 16) {
        const size_t n = dim - d < 16 ? dim - d : 16;
        add_values<kKv, kRows, 1>(tile, blocks[b], blocks[b], layout, dim, d, n, b, 0, keys);
      }
    }
  }
}

template <KvDType kKv, int kRows>
static void attend_latent_rows(const LatentAttentionArgs& args, RowTile& tile, size_t first) {
  alignas(64) float q[kRows * kMaxLatentDim];
  const size_t dim = args.latent_dim, padded = (dim + 15) / 16 * 16;
  for (size_t r = 0; r < kRows; ++r) {
    const size_t t = (first + r) / args.q_heads, h = (first + r) % args.q_heads;
    float* row = q + r * kMaxLatentDim;
    std::memcpy(row, args.q + t * args.q_stride + h * dim, dim * sizeof(float));
    std::fill(row + dim, row + padded, 0.0f);
    tile.position[r] = args.first_position + t;
    tile.first_key[r] = 0;
    std::memset(tile.out[r], 0, sizeof tile.out[r]);
    std::memset(tile.sums[r], 0, sizeof tile.sums[r]);
    tile.largest[r] = -1e30f;
  }
  AttentionArgs softmax;
  softmax.scale = args.scale;
  attend_latent_tile<kKv, kRows>(args, softmax, q, tile);
  for (size_t r = 0; r < kRows; ++r) {
    const size_t t = (first + r) / args.q_heads, h = (first + r) % args.q_heads;
    float* out = args.out + t * args.out_stride + h * args.value_dim;
    const VF sum = f_set(f_reduce_add(f_load(tile.sums[r])));
    for (size_t d = 0; d < args.value_dim; d += 16)
      f_store_up_to(out + d, f_div(f_load(tile.out[r] + d), sum), args.value_dim - d);
  }
}

template <KvDType kKv, int kRows>
static void attend_latent(const LatentAttentionArgs& args, RowTile& tile, size_t first, size_t rows) {
  for (; first + kRows <= rows; first += kRows) attend_latent_rows<kKv, kRows>(args, tile, first);
  if constexpr (kRows > 1) {
    if (first < rows) attend_latent<kKv, kRows / 2>(args, tile, first, rows);
  }
}

static void latent_attention(const LatentAttentionArgs& args) {
  if (args.latent_dim > kMaxLatentDim || args.value_dim > kMaxHeadDim)
    return reference::latent_attention(args);
  RowTile tile;
  const size_t rows = static_cast<size_t>(args.tokens) * args.q_heads;
  switch (args.kv_dtype) {
    case KvDType::F32:
      return attend_latent<KvDType::F32, kAttentionRows>(args, tile, 0, rows);
    case KvDType::F16:
      return attend_latent<KvDType::F16, kAttentionRows>(args, tile, 0, rows);
    case KvDType::BF16:
      return attend_latent<KvDType::BF16, kAttentionRows>(args, tile, 0, rows);
    case KvDType::Q8_0:
      return attend_latent<KvDType::Q8_0, kAttentionRows>(args, tile, 0, rows);
  }
}

}  // namespace
}  // namespace nearmoe
