// attention: online softmax over steps of 128 keys (4 KV blocks at fixed positions), rows = (token, query
// head) pairs of one KV head in tiles that share every K and V read. A row's arithmetic does not depend on
// its tile: scores are one fma chain per key, the softmax of a step sees only that row, outputs are one fma
// chain per dimension; keys a row may not see weigh exactly 0. Needs prepare_activations.inl.h (queries over
// a Q8_0 cache).

#include "../half.h"
#include "../kv_block.h"
#include "vec.h"

namespace nearmoe {
namespace {

constexpr size_t kStepBlocks = 4, kStepKeys = kStepBlocks * kKvBlockTokens;
static_assert(kStepKeys == kAttentionStep);
constexpr size_t kMaxHeadDim = 512;  // larger heads take the reference path
constexpr size_t kMaxRows = kAttentionRows;

/// A tile of rows on its way through the keys.
struct RowTile {
  size_t rows;
  size_t position[kMaxRows];                    ///< of the row's token
  size_t first_key[kMaxRows];                   ///< oldest key inside the window
  alignas(64) float q[kMaxRows * kMaxHeadDim];  ///< [head_dim][rows]
  int8_t q_codes[kMaxRows][kMaxHeadDim];        ///< Q8_0 only
  Q8Meta q_meta[kMaxRows][kMaxHeadDim / 32];
  alignas(64) float out[kMaxRows][kMaxHeadDim];    ///< not yet divided by the sum
  alignas(64) float weights[kMaxRows][kStepKeys];  ///< scores, then softmax numerators of a step
  alignas(64) float sums[kMaxRows][16];
  float largest[kMaxRows];
};

template <KvDType kKv>
NEARMOE_INLINE VF load_kv(const std::byte* base, size_t index) {
  if constexpr (kKv == KvDType::F32) return f_load(reinterpret_cast<const float*>(base) + index);
  const auto* words = reinterpret_cast<const uint16_t*>(base) + index;
  return kKv == KvDType::F16 ? f_from_f16(words) : f_from_bf16(words);
}

/// The first n < 16 of the values at base + index.
template <KvDType kKv>
NEARMOE_INLINE VF load_kv_n(const std::byte* base, size_t index, size_t n) {
  constexpr size_t kWidth = kKv == KvDType::F32 ? 4 : 2;
  alignas(64) std::byte copy[64] = {};
  std::memcpy(copy, base + index * kWidth, n * kWidth);
  return load_kv<kKv>(copy, 0);
}

/// q.k of kRows rows and kBlocks KV blocks into weights[row][32 * first...]; `ahead`: blocks to prefetch.
template <KvDType kKv, int kRows, int kBlocks>
static void scores(RowTile& tile, const std::byte* const* blocks, const std::byte* const* ahead,
                   size_t head_dim, size_t first) {
  constexpr size_t kLineKeys = kKv == KvDType::F32 ? 16 : 32;
  VF acc[kRows][kBlocks][2];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int b = 0; b < kBlocks; ++b) acc[r][b][0] = acc[r][b][1] = f_zero();
  }
  const float* q = tile.q;
  for (size_t d = 0; d < head_dim; ++d, q += kRows) {
    VF keys[kBlocks][2];
#pragma GCC unroll 4
    for (int b = 0; b < kBlocks; ++b) {
      keys[b][0] = load_kv<kKv>(blocks[b], d * kKvBlockTokens);
      keys[b][1] = load_kv<kKv>(blocks[b], d * kKvBlockTokens + 16);
#pragma GCC unroll 2
      for (size_t line = 0; line < kKvBlockTokens / kLineKeys; ++line) {
        prefetch_far(ahead[b] + (d * kKvBlockTokens / kLineKeys + line) * 64);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const VF value = f_set(q[r]);
#pragma GCC unroll 4
      for (int b = 0; b < kBlocks; ++b) {
        acc[r][b][0] = f_fma(value, keys[b][0], acc[r][b][0]);
        acc[r][b][1] = f_fma(value, keys[b][1], acc[r][b][1]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int b = 0; b < kBlocks; ++b) {
      float* to = tile.weights[r] + (first + static_cast<size_t>(b)) * kKvBlockTokens;
      f_store(to, acc[r][b][0]);
      f_store(to + 16, acc[r][b][1]);
    }
  }
}

/// The same over a Q8_0 block: integer dots of 32 dimensions, one fma for each.
template <int kRows>
static void scores_q8(RowTile& tile, const std::byte* block, const std::byte* ahead, const KvLayout& layout,
                      size_t first) {
  for (size_t half = 0; half < 2; ++half) {
    VF acc[kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) acc[r] = f_zero();
    for (size_t b = 0; b < layout.blocks; ++b) {
      VB keys[8];
#pragma GCC unroll 8
      for (size_t j = 0; j < 8; ++j) {
        const size_t at = ((b * 8 + j) * kKvBlockTokens + 16 * half) * 4;
        keys[j] = b_load(block + at);
        prefetch_far(ahead + at);
        if constexpr (kWideSigned) keys[j] = b_xor(keys[j], b_set(0x80));
      }
      const size_t scales = layout.k_scales + (b * kKvBlockTokens + 16 * half) * 2;
      const VF scale = f_from_f16(block + scales);
      if (half == 0) prefetch_far(ahead + scales);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const Q8Meta& meta = tile.q_meta[r][b];
        const VI init = i_set(kWideSigned ? 0 : -128 * meta.sum);
        const VI dot = dot_quads<255, 8>(keys, tile.q_codes[r] + 32 * b, init);
        acc[r] = f_fma(f_from_int(dot), f_mul(scale, f_set(meta.scale)), acc[r]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) f_store(tile.weights[r] + first * kKvBlockTokens + 16 * half, acc[r]);
  }
}

/// Turns row r's scores of keys [begin, end) of the step at first_key into softmax numerators; returns the
/// factor that earlier sums and outputs must be multiplied with.
template <class Tile>
static float softmax_step(const AttentionArgs& args, Tile& tile, size_t r, size_t step_key, size_t begin,
                          size_t end) {
  float* w = tile.weights[r];
  const size_t low = tile.first_key[r] > step_key ? tile.first_key[r] - step_key : 0;
  const size_t high = tile.position[r] + 1 - step_key;  // one past the newest visible key
  if (tile.position[r] < step_key || low >= end || high <= begin) {
    std::memset(w + begin, 0, (end - begin) * sizeof(float));
    return 1.0f;
  }
  const VF cap = f_set(args.softcap), scale = f_set(args.scale);
  for (size_t i = begin; i < end; i += 16) {
    VF s = f_mul(f_load(w + i), scale);
    if (args.softcap > 0.0f) {
      // tanh u = 1 - 2 / (1 + e^2u)
      const VF power = f_exp(f_mul(f_set(2.0f), f_div(s, cap)));
      s = f_mul(cap, f_sub(f_set(1.0f), f_div(f_set(2.0f), f_add(f_set(1.0f), power))));
    }
    f_store(w + i, s);
  }
  for (size_t i = begin; i < low; ++i) w[i] = -INFINITY;
  for (size_t i = high; i < end; ++i) w[i] = -INFINITY;
  VF top = f_set(tile.largest[r]);
  for (size_t i = begin; i < end; i += 16) top = f_max(f_load(w + i), top);
  const float largest = f_reduce_max(top);
  for (size_t i = begin; i < end; i += 16) f_store(w + i, f_exp(f_sub(f_load(w + i), f_set(largest))));
  for (size_t i = begin; i < low; ++i) w[i] = 0.0f;
  for (size_t i = high; i < end; ++i) w[i] = 0.0f;
  float factor = 1.0f;
  if (largest > tile.largest[r]) {
    float lanes[16];
    f_store(lanes, f_exp(f_set(tile.largest[r] - largest)));
    factor = lanes[0];
    tile.largest[r] = largest;
  }
  VF sum = f_mul(f_load(tile.sums[r]), f_set(factor));
  for (size_t i = begin; i < end; i += 16) sum = f_add(sum, f_load(w + i));
  f_store(tile.sums[r], sum);
  return factor;
}

/// out[row][d...] += weight * V over keys [begin, end) of one block, kVectors * 16 dimensions (the last n of
/// 16).
template <KvDType kKv, int kRows, int kVectors>
static void add_values(RowTile& tile, const std::byte* block, const std::byte* ahead, const KvLayout& layout,
                       size_t head_dim, size_t d, size_t n, size_t first, size_t begin, size_t end) {
  constexpr size_t kWidth = kKv == KvDType::F32 ? 4 : kKv == KvDType::Q8_0 ? 1 : 2;
  VF acc[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) acc[r][c] = f_load(tile.out[r] + d + 16 * static_cast<size_t>(c));
  }
  for (size_t key = begin; key < end; ++key) {
    const size_t row = key * (kKv == KvDType::Q8_0 ? layout.blocks * 32 : head_dim);
#pragma GCC unroll 8
    for (size_t line = 0; line < (kVectors * 16 * kWidth + 63) / 64; ++line) {
      prefetch_far(ahead + layout.v + (row + d) * kWidth + line * 64);
    }
    VF values[kVectors];
    float scales[kVectors];
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) {
      const size_t at = d + 16 * static_cast<size_t>(c);
      if constexpr (kKv == KvDType::Q8_0) {
        values[c] = f_from_s8(block + layout.v + row + at);
        uint16_t word;
        std::memcpy(&word, block + layout.v_scales + (key * layout.blocks + at / 32) * 2, sizeof word);
        scales[c] = f16_to_f32(word);
      } else {
        const std::byte* base = block + layout.v;
        values[c] = n == 16 ? load_kv<kKv>(base, row + at) : load_kv_n<kKv>(base, row + at, n);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const float weight = tile.weights[r][first * kKvBlockTokens + key];
#pragma GCC unroll 8
      for (int c = 0; c < kVectors; ++c) {
        const float scaled = kKv == KvDType::Q8_0 ? weight * scales[c] : weight;
        acc[r][c] = f_fma(f_set(scaled), values[c], acc[r][c]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) f_store(tile.out[r] + d + 16 * static_cast<size_t>(c), acc[r][c]);
  }
}

template <KvDType kKv, int kRows, int kBlocks>
NEARMOE_INLINE void step_scores(RowTile& tile, const std::byte* const* blocks, const std::byte* const* ahead,
                                const KvLayout& layout, size_t head_dim, size_t begin, size_t end) {
  if constexpr (kKv == KvDType::Q8_0) {
    for (size_t b = begin; b < end; ++b) scores_q8<kRows>(tile, blocks[b], ahead[b], layout, b);
  } else {
    size_t b = begin;
    for (; b + kBlocks <= end; b += kBlocks)
      scores<kKv, kRows, kBlocks>(tile, blocks + b, ahead + b, head_dim, b);
    if constexpr (kBlocks > 1) {
      for (; b < end; ++b) scores<kKv, kRows, 1>(tile, blocks + b, ahead + b, head_dim, b);
    }
  }
}

/// What is read after blocks [begin, end) of a step: the next step's, behind the last one the first step's of
/// the next head; where there is neither, the same blocks, which costs nothing.
static void blocks_ahead(const AttentionArgs& args, size_t step, size_t begin, size_t end, size_t first_step,
                         size_t newest, const std::byte* ahead[kStepBlocks]) {
  const size_t last_block = newest / kKvBlockTokens;
  for (size_t b = begin; b < end; ++b) {
    const size_t block = step * kStepBlocks + b;
    const std::byte* next = args.blocks[block];
    if (block + kStepBlocks <= last_block) {
      next = args.blocks[block + kStepBlocks];
    } else if (args.next_head_bytes != 0) {
      next = args.blocks[first_step * kStepBlocks + b] + args.next_head_bytes;
    }
    ahead[b] = next;
  }
}

/// One tile of exactly kRows rows over all its keys.
template <KvDType kKv, int kRows>
static void attend_tile(const AttentionArgs& args, RowTile& tile) {
  constexpr int kBlocks = kAttentionRows / kRows < 4 ? kAttentionRows / kRows : 4;
  constexpr int kVectors = 2 * kAttentionRows / kRows < 8 ? 2 * kAttentionRows / kRows : 8;
  const KvLayout layout = kv_layout(kKv, args.head_dim);
  // Rows ascend by position.
  size_t oldest = tile.first_key[0], newest = tile.position[kRows - 1];
  if (oldest < args.first_key) oldest = args.first_key;
  if (args.end_key > 0 && newest >= args.end_key) newest = args.end_key - 1;
  const size_t first_step = oldest / kStepKeys;
  for (size_t step = first_step; step * kStepKeys <= newest; ++step) {
    const size_t step_key = step * kStepKeys;
    const std::byte* const* blocks = args.blocks + step * kStepBlocks;
    const size_t begin = oldest > step_key ? (oldest - step_key) / kKvBlockTokens : 0;
    const size_t present = (newest - step_key) / kKvBlockTokens + 1;
    const size_t end = present < kStepBlocks ? present : kStepBlocks;
    const std::byte* ahead[kStepBlocks];
    blocks_ahead(args, step, begin, end, first_step, newest, ahead);
    step_scores<kKv, kRows, kBlocks>(tile, blocks, ahead, layout, args.head_dim, begin, end);
    for (size_t r = 0; r < kRows; ++r) {
      const float factor =
          softmax_step(args, tile, r, step_key, begin * kKvBlockTokens, end * kKvBlockTokens);
      if (factor == 1.0f) continue;
      for (size_t d = 0; d < args.head_dim; d += 16) {
        f_store(tile.out[r] + d, f_mul(f_load(tile.out[r] + d), f_set(factor)));
      }
    }
    for (size_t b = begin; b < end; ++b) {
      // Slots beyond the newest key were never written: they must not even be multiplied with 0.
      const size_t block_key = step_key + b * kKvBlockTokens;
      const size_t keys = newest + 1 - block_key < kKvBlockTokens ? newest + 1 - block_key : kKvBlockTokens;
      const size_t skip = oldest > block_key ? oldest - block_key : 0;
      size_t d = 0;
      for (; d + 16 * kVectors <= args.head_dim; d += 16 * kVectors) {
        add_values<kKv, kRows, kVectors>(tile, blocks[b], ahead[b], layout, args.head_dim, d, 16, b, skip,
                                         keys);
      }
      for (; d < args.head_dim; d += 16) {
        const size_t n = args.head_dim - d < 16 ? args.head_dim - d : 16;
        add_values<kKv, kRows, 1>(tile, blocks[b], ahead[b], layout, args.head_dim, d, n, b, skip, keys);
      }
    }
  }
}

/// Loads rows [first, first + kRows) of the (token, head) pairs, attends and writes their outputs.
template <KvDType kKv, int kRows>
static void attend_rows(const AttentionArgs& args, RowTile& tile, size_t first) {
  for (size_t r = 0; r < kRows; ++r) {
    const size_t t = (first + r) / args.q_heads, h = (first + r) % args.q_heads;
    const float* q = args.q + t * args.q_stride + h * args.head_dim;
    const size_t position = args.first_position + t;
    tile.position[r] = position;
    tile.first_key[r] = oldest_visible(args, position);
    if constexpr (kKv == KvDType::Q8_0) {
      for (size_t b = 0; 32 * b < args.head_dim; ++b) {
        const size_t left = args.head_dim - 32 * b;
        quantise_block(q + 32 * b, left < 32 ? left : 32, tile.q_codes[r] + 32 * b, &tile.q_meta[r][b]);
      }
    } else {
      for (size_t d = 0; d < args.head_dim; ++d) tile.q[d * kRows + r] = q[d];
    }
    std::memset(tile.out[r], 0, sizeof tile.out[r]);
    std::memset(tile.sums[r], 0, sizeof tile.sums[r]);
    tile.largest[r] = args.sinks ? args.sinks[h] : -1e30f;
    if (args.sinks) tile.sums[r][0] = 1.0f;
  }
  attend_tile<kKv, kRows>(args, tile);
  for (size_t r = 0; r < kRows; ++r) {
    const size_t t = (first + r) / args.q_heads, h = (first + r) % args.q_heads;
    float* out = args.out + t * args.out_stride + h * args.head_dim;
    const float total = f_reduce_add(f_load(tile.sums[r]));
    if (args.stats) {
      float* stats = args.stats + (t * args.q_heads + h) * 2;
      stats[0] = tile.largest[r];
      stats[1] = total;
    }
    const VF sum = f_set(args.stats ? 1.0f : total);
    for (size_t d = 0; d < args.head_dim; d += 16) {
      f_store_up_to(out + d, f_div(f_load(tile.out[r] + d), sum), args.head_dim - d);
    }
  }
}

template <KvDType kKv, int kRows>
static void attend(const AttentionArgs& args, RowTile& tile, size_t first, size_t rows) {
  for (; first + kRows <= rows; first += kRows) attend_rows<kKv, kRows>(args, tile, first);
  if constexpr (kRows > 1) {
    if (first < rows) attend<kKv, kRows / 2>(args, tile, first, rows);
  }
}

static void attention(const AttentionArgs& args) {
  if (args.head_dim > kMaxHeadDim) return reference::attention(args);
  RowTile tile;
  const size_t rows = static_cast<size_t>(args.tokens) * args.q_heads;
  switch (args.kv_dtype) {
    case KvDType::F32:
      return attend<KvDType::F32, kAttentionRows>(args, tile, 0, rows);
    case KvDType::F16:
      return attend<KvDType::F16, kAttentionRows>(args, tile, 0, rows);
    case KvDType::BF16:
      return attend<KvDType::BF16, kAttentionRows>(args, tile, 0, rows);
    case KvDType::Q8_0:
      return attend<KvDType::Q8_0, kAttentionRows>(args, tile, 0, rows);
  }
}

}  // namespace
}  // namespace nearmoe
