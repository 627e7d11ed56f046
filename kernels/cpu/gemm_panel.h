// The two panels of the block-format GEMM: tokens gathered in tiles of 16, one record for each block of 32
// columns, and one row group's weights unpacked to bytes with float scales. Both lie on the stack of the
// call. Used by gemm.h and gemm_neon.h (dot product instructions) and gemm_amx.h (tiles). How the bytes lie
// inside a block is the Panel's choice.
#pragma once

#include "../activations.h"
#include "quant_block.h"

namespace nearmoe {
namespace {

constexpr size_t kTileTokens = 16;
constexpr size_t kPanelRecords = 256;  // token records of a call: 180 KB, inside L2
constexpr size_t kPanelTiles = 8;      // at most, then fewer columns at a time
constexpr size_t kWeightBlocks = 32;   // blocks of one row group unpacked at a time: 24 KB, inside L1

/// 16 tokens of one block. aux: -zero * sum of each half as int32, or scaled sums as floats for formats with
/// minima.
struct alignas(64) TokenBlock {
  int8_t values[kTileTokens][kBlockCols];
  float scale[kTileTokens];
  union {
    int32_t init[2][kTileTokens];
    float scaled[2][kTileTokens];
  };
};

/// 16 rows of one block: 8 quads as bytes, scales and minima of both halves.
struct alignas(64) WeightBlock {
  uint8_t codes[8 * 64];
  float scale[2][kRowGroup];
  float min[2][kRowGroup];
};

/// Tokens row by row, weights as they are packed: quads of 4 columns of 16 rows.
struct QuadPanel {
  NEARMOE_INLINE void store_token(TokenBlock& out, size_t lane, const int8_t* values) {
    std::memcpy(out.values[lane], values, kBlockCols);
  }
  template <class Block>
  NEARMOE_INLINE void store_weights(Block& out, const VB w[8]) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) b_store(out.codes + 64 * j, w[j]);
  }
};

NEARMOE_INLINE const std::byte* token_row(const ActView& x, size_t t) {
  return x.data + (x.index ? x.index[t] : t) * x.stride;
}

/// Fills one token's lane of the records of blocks [first, first + blocks).
template <int kHalves, bool kHasMin, class Panel>
static void load_token(const std::byte* row, size_t cols, size_t first, size_t blocks, int zero, size_t lane,
                       TokenBlock* out) {
  const auto* values = reinterpret_cast<const int8_t*>(row) + first * kBlockCols;
  const auto* meta = reinterpret_cast<const Q8Meta*>(row + q8_value_bytes(cols)) + first;
  for (size_t b = 0; b < blocks; ++b) {
    Panel::store_token(out[b], lane, values + b * kBlockCols);
    out[b].scale[lane] = meta[b].scale;
    for (int h = 0; h < kHalves; ++h) {
      if constexpr (kHasMin) {
        out[b].scaled[h][lane] = kHalves == 1 ? meta[b].scaled_sum : meta[b].scaled_half[h];
      } else {
        out[b].init[h][lane] = -zero * (kHalves == 1 ? meta[b].sum : meta[b].half[h]);
      }
    }
  }
}

/// Fills tiles of `tokens` tokens from `first_token` on; tile i's records begin at out + i * blocks. Lanes of
/// the last tile that have no token get scales of 0: whatever lies on the stack there could be denormal,
/// which is slow.
template <class Q, class Panel = QuadPanel>
static void load_tokens(const ActView& x, size_t cols, size_t first_token, size_t tokens, size_t first_block,
                        size_t blocks, int zero, TokenBlock* out) {
  for (size_t t = 0; t < tokens; ++t) {
    load_token<Q::kHalves, Q::kHasMin, Panel>(token_row(x, first_token + t), cols, first_block, blocks, zero,
                                              t % kTileTokens, out + t / kTileTokens * blocks);
  }
  for (size_t t = tokens; t % kTileTokens != 0; ++t) {
    TokenBlock* tile = out + t / kTileTokens * blocks;
    for (size_t b = 0; b < blocks; ++b) {
      tile[b].scale[t % kTileTokens] = 0.0f;
      for (int h = 0; h < 2; ++h) tile[b].scaled[h][t % kTileTokens] = 0.0f;
    }
  }
}

/// Unpacks blocks [first, first + count) of a row group. With kSigned the codes become code - zero as signed
/// bytes.
template <class Q, bool kSigned, class Panel = QuadPanel, class Block>
static void load_weights(const uint8_t* group, const PackedLayout& layout, size_t first, size_t count,
                         Block* out) {
  constexpr size_t kSubs = Q::kSubs, kHalves = Q::kHalves;
  VF scale[kSubs * kHalves], min[kSubs * kHalves];
  size_t index = (layout.phase + first) / (layout.record_supers * kSubs);
  Record record = packed_record(layout, index);
  for (size_t i = 0; i < count; ++i, ++out) {
    const size_t b = first + i;
    if (b == record.first_block + record.blocks) record = packed_record(layout, ++index);
    const size_t place = layout.phase + b, sub = place % kSubs;
    if (kSubs == 1 || sub == 0 || i == 0) {
      Q::scales(group + record.offset + (place / kSubs - record.first_super) * Q::kHeaderBytes, scale, min);
    }
    const uint8_t* codes = group + record.codes + (b - record.first_block) * Q::kCodeBytes;
    for (size_t line = 0; line < Q::kCodeBytes; line += 64) prefetch(codes + 2 * kWeightBlocks * 16 + line);
    VB w[8];
    Q::codes(codes, w);
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      if constexpr (kSigned && Q::kZero != 0) w[j] = b_sub(w[j], b_set(static_cast<uint8_t>(Q::kZero)));
    }
    Panel::store_weights(*out, w);
#pragma GCC unroll 2
    for (size_t h = 0; h < kHalves; ++h) {
      f_store(out->scale[h], scale[sub * kHalves + h]);
      if constexpr (Q::kHasMin) f_store(out->min[h], min[sub * kHalves + h]);
    }
  }
}

}  // namespace
}  // namespace nearmoe
