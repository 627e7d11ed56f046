// Many tokens times a packed block-format matrix with AMX tiles: one tile product is 16 tokens x 16 rows x
// the 32 columns of a block, exact in int32; scales are applied to it in vector registers, which bounds the
// speed. The tile products of a block run while the scales of the block before are applied. Bits equal
// gemm.h's. Linux needs the process's permission for tile state (../dispatch.cc asks).
#pragma once

#include "gemm_panel.h"

namespace nearmoe {
namespace {

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t column_bytes[16] = {};
  uint8_t rows[16] = {};
};

// Tiles: 0, 1 sums; 2, 3 tokens (16 x 32 bytes, or 16 x 16); 4, 5 weights (8 quads, or 4).
template <int kHalves>
static void configure_tiles() {
  TileConfig config;
  for (int i = 0; i < 6; ++i) {
    config.rows[i] = i < 4 ? 16 : 8 / kHalves;
    config.column_bytes[i] = i == 2 || i == 3 ? 32 / kHalves : 64;
  }
  _tile_loadconfig(&config);
}

/// Tile products of one block into sums[half][token][row].
template <int kHalves>
NEARMOE_INLINE void multiply_block(const WeightBlock& w, const TokenBlock& x,
                                   int32_t (*sums)[kTileTokens][kRowGroup]) {
  _tile_zero(0);
  _tile_loadd(2, x.values, kBlockCols);
  _tile_loadd(4, w.codes, 64);
  _tile_dpbssd(0, 2, 4);
  _tile_stored(0, sums[0], 64);
  if constexpr (kHalves == 2) {
    _tile_zero(1);
    _tile_loadd(3, x.values[0] + 16, kBlockCols);
    _tile_loadd(5, w.codes + 256, 64);
    _tile_dpbssd(1, 3, 5);
    _tile_stored(1, sums[1], 64);
  }
}

/// One tile of tokens times 16 rows over `blocks` blocks; y continues unless fresh. All 16 lanes are
/// computed, the first `tokens` are stored.
template <int kHalves, bool kHasMin>
static void amx_tile(const WeightBlock* w, const TokenBlock* x, size_t tokens, size_t blocks, bool fresh,
                     float* y, size_t ldy, size_t rows) {
  alignas(64) int32_t sums[2][2][kTileTokens][kRowGroup];
  VF acc[kTileTokens];
#pragma GCC unroll 16
  for (size_t t = 0; t < kTileTokens; ++t) {
    acc[t] = fresh || t >= tokens ? f_zero() : f_load_up_to(y + t * ldy, rows);
  }
  multiply_block<kHalves>(w[0], x[0], sums[0]);
  for (size_t b = 0; b < blocks; ++b) {
    if (b + 1 < blocks) multiply_block<kHalves>(w[b + 1], x[b + 1], sums[(b + 1) % 2]);
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) {
      const VF scale = f_load(w[b].scale[h]);
      VF min = scale;
      if constexpr (kHasMin) min = f_load(w[b].min[h]);
#pragma GCC unroll 16
      for (size_t t = 0; t < kTileTokens; ++t) {
        const VF dot = f_from_int(i_load(sums[b % 2][h][t]));
        acc[t] = f_fma(dot, f_mul(scale, f_set(x[b].scale[t])), acc[t]);
        if constexpr (kHasMin) acc[t] = f_fma(min, f_set(x[b].scaled[h][t]), acc[t]);
      }
    }
  }
#pragma GCC unroll 16
  for (size_t t = 0; t < kTileTokens; ++t) {
    if (t < tokens) f_store_up_to(y + t * ldy, acc[t], rows);
  }
}

template <class Q>
static void gemm_amx(const PackedMatrix& w, const ActView& x, float* y, size_t ldy) {
  TokenBlock panel[kPanelRecords];
  WeightBlock weights[kWeightBlocks];
  const PackedLayout layout = packed_layout(*quant_format(Q::kDType), w.cols, w.col_begin);
  const size_t groups = (w.rows + kRowGroup - 1) / kRowGroup;
  configure_tiles<Q::kHalves>();
  for (size_t first_token = 0; first_token < x.count; first_token += kPanelTiles * kTileTokens) {
    const size_t left = x.count - first_token;
    const size_t tokens = left < kPanelTiles * kTileTokens ? left : kPanelTiles * kTileTokens;
    const size_t tiles = (tokens + kTileTokens - 1) / kTileTokens;
    const size_t panel_blocks = kPanelRecords / tiles;
    for (size_t b = 0; b < layout.blocks; b += panel_blocks) {
      const size_t blocks = layout.blocks - b < panel_blocks ? layout.blocks - b : panel_blocks;
      load_tokens<Q>(x, w.cols, first_token, tokens, b, blocks, 0, panel);
      for (size_t g = 0; g < groups; ++g) {
        const auto* group = reinterpret_cast<const uint8_t*>(w.data) + g * layout.group_bytes;
        for (size_t i = 0; i < blocks; i += kWeightBlocks) {
          const size_t count = blocks - i < kWeightBlocks ? blocks - i : kWeightBlocks;
          load_weights<Q, true>(group, layout, b + i, count, weights);
          for (size_t tile = 0; tile < tiles; ++tile) {
            const size_t done = tile * kTileTokens;
            amx_tile<Q::kHalves, Q::kHasMin>(weights, panel + tile * blocks + i,
                                             tokens - done < kTileTokens ? tokens - done : kTileTokens, count,
                                             b + i == 0, y + (first_token + done) * ldy + g * kRowGroup, ldy,
                                             w.rows - g * kRowGroup);
          }
        }
      }
    }
  }
  _tile_release();
}

struct AmxGemm {
  static constexpr size_t kLeastTokens = 5;  // fewer are faster with dot product instructions
  template <class Q>
  NEARMOE_INLINE void run(const PackedMatrix& w, const ActView& x, float* y, size_t ldy) {
    gemm_amx<Q>(w, x, y, ldy);
  }
};

}  // namespace
}  // namespace nearmoe
