// latent_attention: softmax in the steps of attention.inl.h over rows that are key and value at once. Tiles
// of (token, query head) rows share what is brought to floats: whole latents for the scores, a few dimensions
// of a block at a time for the value sums. A row's arithmetic does not depend on its tile: a score is a dot
// product in 16 lanes, an output one fma chain per dimension. Needs attention.inl.h.

#include "../half.h"
#include "../kv_block.h"
#include "vec.h"

namespace nearmoe {
namespace {

constexpr size_t kMaxLatentDim = 1024;  // longer rows take the reference path
constexpr size_t kLatentTile = 64;      // rows that share latents brought to floats
constexpr size_t kFewKeys = 8;          // latents brought to floats at a time for scores of few rows
constexpr size_t kValueDims = 64;       // dimensions of a block's latents brought to floats for value sums

/// A tile of rows on its way through the keys.
struct LatentTile {
  size_t rows;
  const float* q[kLatentTile];
  float* out[kLatentTile];        ///< not yet divided by the sum
  size_t position[kLatentTile];   ///< of the row's token
  size_t first_key[kLatentTile];  ///< 0: latent attention has no window
  float largest[kLatentTile];
  alignas(64) float sums[kLatentTile][16];
  alignas(64) float weights[kLatentTile][kStepKeys];  ///< scores, then softmax numerators of a step
  alignas(64) float latents[kKvBlockTokens * kMaxLatentDim];
};

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

/// Dimensions [d, d + n) of a position's latent as floats, zeros up to the next multiple of 16.
template <KvDType kKv>
NEARMOE_INLINE void copy_latent(const std::byte* block, const KvLayout& layout, size_t dim, size_t key,
                                size_t d, size_t n, float* out) {
  for (size_t i = 0; i < n; i += 16) f_store(out + i, load_latent<kKv>(block, layout, dim, key, d + i));
}

/// q.latent of rows [r, r + kRows) and kKeys keys; latents: [kKeys][stride], zeros from dim on.
template <int kRows, int kKeys>
static void latent_scores(LatentTile& tile, size_t r, const float* latents, size_t dim, size_t stride,
                          size_t key) {
  VF acc[kRows * kKeys];
#pragma GCC unroll 16
  for (int i = 0; i < kRows * kKeys; ++i) acc[i] = f_zero();
  const float* const* q = tile.q + r;
  const auto multiply = [&](size_t d, auto load) NEARMOE_LAMBDA_INLINE {
    VF keys[kKeys];
#pragma GCC unroll 16
    for (int k = 0; k < kKeys; ++k) keys[k] = f_load(latents + static_cast<size_t>(k) * stride + d);
#pragma GCC unroll 8
    for (int row = 0; row < kRows; ++row) {
      const VF value = f_loaded(load(q[row] + d));
#pragma GCC unroll 16
      for (int k = 0; k < kKeys; ++k) acc[row * kKeys + k] = f_fma(value, keys[k], acc[row * kKeys + k]);
    }
  };
  size_t d = 0;
  for (; d + 16 <= dim; d += 16) multiply(d, [](const float* p) { return f_load(p); });
  if (d < dim) multiply(d, [&](const float* p) { return f_load_n(p, dim - d); });
  float sums[kRows * kKeys];
  f_reduce_add_each<kRows * kKeys>(acc, sums);
  for (size_t row = 0; row < kRows; ++row)
    std::memcpy(tile.weights[r + row] + key, sums + row * kKeys, kKeys * sizeof(float));
}

/// Scores of all rows from r on with the first `keys` of the latents at hand; `key`: the first one's place in
/// the step.
template <int kRows>
static void tile_scores(LatentTile& tile, size_t r, size_t dim, size_t stride, size_t key, size_t keys) {
  constexpr int kSide = 2 * kAttentionRows / kRows;
  constexpr int kKeys = kSide < static_cast<int>(kFewKeys) ? kSide : static_cast<int>(kFewKeys);
  for (; r + kRows <= tile.rows; r += kRows) {
    for (size_t k = 0; k < keys; k += kKeys)
      latent_scores<kRows, kKeys>(tile, r, tile.latents + k * stride, dim, stride, key + k);
  }
  if constexpr (kRows > 1) {
    if (r < tile.rows) tile_scores<kRows / 2>(tile, r, dim, stride, key, keys);
  }
}

/// Scores of all rows with the first `keys` keys of a block; `key`: the block's first one in the step.
template <KvDType kKv>
static void block_scores(LatentTile& tile, const std::byte* block, const KvLayout& layout, size_t dim,
                         size_t key, size_t keys) {
  const size_t stride = (dim + 15) / 16 * 16;
  // Few latents stay in the first level cache until they are used; many rows each want them to be many.
  const size_t group = tile.rows <= kAttentionRows ? kFewKeys : kKvBlockTokens;
  for (size_t k = 0; k < keys; k += group) {
    const size_t n = keys - k < group ? keys - k : group;
    for (size_t i = 0; i < n; ++i)
      copy_latent<kKv>(block, layout, dim, k + i, 0, dim, tile.latents + i * stride);
    // Slots beyond the newest key were never written; a register tile may reach over them.
    std::fill(tile.latents + n * stride, tile.latents + group * stride, 0.0f);
    tile_scores<kAttentionRows>(tile, 0, dim, stride, key + k, n);
  }
  // What the softmax overwrites must not be read uninitialised before.
  for (size_t r = 0; r < tile.rows; ++r)
    std::fill(tile.weights[r] + key + keys, tile.weights[r] + key + kKvBlockTokens, 0.0f);
}

/// out[row][d...] += weight * latent over the first `keys` of `latents` [][kValueDims], kVectors * 16
/// dimensions (the last n of 16).
template <int kRows, int kVectors>
static void add_latents(LatentTile& tile, size_t r, const float* latents, size_t d, size_t n, size_t key,
                        size_t keys) {
  VF acc[kRows][kVectors];
#pragma GCC unroll 8
  for (int row = 0; row < kRows; ++row) {
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c)
      acc[row][c] = f_load_up_to(tile.out[r + static_cast<size_t>(row)] + d + 16 * c, n);
  }
  for (size_t k = 0; k < keys; ++k) {
    VF values[kVectors];
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) values[c] = f_load(latents + k * kValueDims + 16 * c);
#pragma GCC unroll 8
    for (int row = 0; row < kRows; ++row) {
      const VF weight = f_set(tile.weights[r + static_cast<size_t>(row)][key + k]);
#pragma GCC unroll 8
      for (int c = 0; c < kVectors; ++c) acc[row][c] = f_fma(weight, values[c], acc[row][c]);
    }
  }
#pragma GCC unroll 8
  for (int row = 0; row < kRows; ++row) {
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c)
      f_store_up_to(tile.out[r + static_cast<size_t>(row)] + d + 16 * c, acc[row][c], n);
  }
}

template <int kRows, int kVectors>
static void tile_values(LatentTile& tile, size_t r, const float* latents, size_t d, size_t n, size_t key,
                        size_t keys) {
  for (; r + kRows <= tile.rows; r += kRows) add_latents<kRows, kVectors>(tile, r, latents, d, n, key, keys);
  if constexpr (kRows > 1) {
    if (r < tile.rows) tile_values<kRows / 2, kVectors>(tile, r, latents, d, n, key, keys);
  }
}

/// Adds the first `keys` latents of a block to all rows' outputs; `key`: the block's first one in the step.
template <KvDType kKv>
static void block_values(const LatentAttentionArgs& args, LatentTile& tile, const std::byte* block,
                         const KvLayout& layout, size_t key, size_t keys) {
  for (size_t begin = 0; begin < args.value_dim; begin += kValueDims) {
    const size_t left = args.value_dim - begin, dims = left < kValueDims ? left : kValueDims;
    for (size_t k = 0; k < keys; ++k)
      copy_latent<kKv>(block, layout, args.latent_dim, k, begin, dims, tile.latents + k * kValueDims);
    size_t d = 0;
    for (; d + 32 <= dims; d += 32)
      tile_values<kAttentionRows, 2>(tile, 0, tile.latents + d, begin + d, 16, key, keys);
    for (; d < dims; d += 16)
      tile_values<kAttentionRows, 1>(tile, 0, tile.latents + d, begin + d, dims - d, key, keys);
  }
}

/// Brings a row's earlier outputs to the step's new largest score.
static void rescale(float* out, size_t value_dim, float factor) {
  for (size_t d = 0; d < value_dim; d += 16) {
    const size_t n = value_dim - d;
    f_store_up_to(out + d, f_mul(f_load_up_to(out + d, n), f_set(factor)), n);
  }
}

/// The tile's rows over the keys of one step.
template <KvDType kKv>
static void latent_step(const LatentAttentionArgs& args, LatentTile& tile, size_t step) {
  const size_t step_key = step * kStepKeys;
  const KvLayout layout = latent_layout(kKv, args.latent_dim);
  const std::byte* const* blocks = args.blocks + step * kStepBlocks;
  const size_t newest = tile.position[tile.rows - 1];  // rows ascend by position
  const size_t visible = newest + 1 - step_key < kStepKeys ? newest + 1 - step_key : kStepKeys;
  const size_t blocks_used = (visible + kKvBlockTokens - 1) / kKvBlockTokens;
  const auto keys_of = [&](size_t b) {
    const size_t left = visible - b * kKvBlockTokens;
    return left < kKvBlockTokens ? left : kKvBlockTokens;
  };
  for (size_t b = 0; b < blocks_used; ++b)
    block_scores<kKv>(tile, blocks[b], layout, args.latent_dim, b * kKvBlockTokens, keys_of(b));
  AttentionArgs softmax;
  softmax.scale = args.scale;
  for (size_t r = 0; r < tile.rows; ++r) {
    const float factor = softmax_step(softmax, tile, r, step_key, 0, blocks_used * kKvBlockTokens);
    if (factor != 1.0f) rescale(tile.out[r], args.value_dim, factor);
  }
  for (size_t b = 0; b < blocks_used; ++b)
    block_values<kKv>(args, tile, blocks[b], layout, b * kKvBlockTokens, keys_of(b));
}

/// Rows [first, first + tile.rows) of the (token, head) pairs.
template <KvDType kKv>
static void attend_latents(const LatentAttentionArgs& args, LatentTile& tile, size_t first) {
  for (size_t r = 0; r < tile.rows; ++r) {
    const size_t t = (first + r) / args.q_heads, h = (first + r) % args.q_heads;
    tile.q[r] = args.q + t * args.q_stride + h * args.latent_dim;
    tile.out[r] = args.out + t * args.out_stride + h * args.value_dim;
    std::fill(tile.out[r], tile.out[r] + args.value_dim, 0.0f);
    tile.position[r] = args.first_position + t;
    tile.first_key[r] = 0;
    tile.largest[r] = -1e30f;
    std::memset(tile.sums[r], 0, sizeof tile.sums[r]);
  }
  for (size_t step = 0; step * kStepKeys <= tile.position[tile.rows - 1]; ++step)
    latent_step<kKv>(args, tile, step);
  for (size_t r = 0; r < tile.rows; ++r) {
    const VF sum = f_set(f_reduce_add(f_load(tile.sums[r])));
    for (size_t d = 0; d < args.value_dim; d += 16) {
      const size_t n = args.value_dim - d;
      f_store_up_to(tile.out[r] + d, f_div(f_load_up_to(tile.out[r] + d, n), sum), n);
    }
  }
}

template <KvDType kKv>
static void latent_attention(const LatentAttentionArgs& args) {
  LatentTile tile;
  const size_t rows = static_cast<size_t>(args.tokens) * args.q_heads;
  for (size_t first = 0; first < rows; first += kLatentTile) {
    tile.rows = rows - first < kLatentTile ? rows - first : kLatentTile;
    attend_latents<kKv>(args, tile, first);
  }
}

static void latent_attention(const LatentAttentionArgs& args) {
  if (args.latent_dim > kMaxLatentDim) return reference::latent_attention(args);
  switch (args.kv_dtype) {
    case KvDType::F32:
      return latent_attention<KvDType::F32>(args);
    case KvDType::F16:
      return latent_attention<KvDType::F16>(args);
    case KvDType::BF16:
      return latent_attention<KvDType::BF16>(args);
    case KvDType::Q8_0:
      return latent_attention<KvDType::Q8_0>(args);
  }
}

}  // namespace
}  // namespace nearmoe
