// Many tokens times a packed block-format matrix with dot product instructions: the accumulators of 16 rows
// and up to kGemmTokens tokens stay in registers over the blocks of a panel, the partial sums of a longer row
// pass through y. Numerics: ../ops.h; the same bits as gemv.h for each token.
#pragma once

#include "gemm_panel.h"

namespace nearmoe {
namespace {

/// Weights that the next call unpacks: `lines` cache lines from `next` on are fetched into L2 with each
/// block.
struct Ahead {
  const uint8_t* next;
  size_t lines;
};

/// kTokens tokens (lanes from `lane` on) times 16 rows over `blocks` blocks; continues the sums in y unless
/// fresh.
template <int kMaxCode, int kHalves, bool kHasMin, int kTokens>
static void gemm_tokens(const WeightBlock* w, const TokenBlock* x, size_t lane, size_t blocks, bool fresh,
                        Ahead ahead, float* y, size_t ldy, size_t rows) {
  constexpr int kQuads = 8 / kHalves;
  VF acc[kTokens];
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t)
    acc[t] = fresh ? f_zero() : f_load_up_to(y + static_cast<size_t>(t) * ldy, rows);
  // Two cursors through the records, so that every address is a constant away from one of them.
  const int8_t* values = x->values[lane];
  const float* scales = x->scale + lane;
  constexpr size_t kScaled = (offsetof(TokenBlock, scaled) - offsetof(TokenBlock, scale)) / sizeof(float);
  for (size_t b = 0; b < blocks; ++b, ++w) {
    for (size_t line = 0; line < ahead.lines; ++line, ahead.next += 64) prefetch_far(ahead.next);
#pragma GCC unroll 2
    for (size_t h = 0; h < kHalves; ++h) {
      VB codes[kQuads];
#pragma GCC unroll 8
      for (size_t j = 0; j < kQuads; ++j) codes[j] = b_load(w->codes + 64 * (h * kQuads + j));
      const VF scale = f_load(w->scale[h]);
      VF min = scale;
      if constexpr (kHasMin) min = f_load(w->min[h]);
      const float* scaled = scales + kScaled + h * kTileTokens;
      // A few tokens side by side, so that their dot product chains overlap.
      constexpr size_t kSide = kTokens < kDotTokens ? kTokens : kDotTokens;
#pragma GCC unroll 16
      for (size_t first = 0; first < kTokens; first += kSide) {
        VI dots[kSide];
#pragma GCC unroll 4
        for (size_t i = 0; i < kSide; ++i) {
          int32_t init = 0;
          if constexpr (!kHasMin) std::memcpy(&init, scaled + first + i, sizeof init);
          dots[i] = i_set(init);
        }
        dot_tokens<kMaxCode, kQuads, kSide>(codes, values + first * kBlockCols + 4 * kQuads * h, kBlockCols,
                                            dots);
#pragma GCC unroll 4
        for (size_t i = 0; i < kSide; ++i) {
          const size_t t = first + i;
          acc[t] = f_fma(f_from_int(dots[i]), f_mul(scale, f_set(scales[t])), acc[t]);
          if constexpr (kHasMin) acc[t] = f_fma(min, f_set(scaled[t]), acc[t]);
        }
      }
    }
    // Keeps the compiler from advancing the cursors early, which would make every displacement 4 bytes long.
    __asm__ volatile("" : "+r"(values), "+r"(scales));
    values += sizeof(TokenBlock);
    scales += sizeof(TokenBlock) / sizeof(float);
  }
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) f_store_up_to(y + static_cast<size_t>(t) * ldy, acc[t], rows);
}

/// One tile: its tokens in runs of kGemmTokens, then halves of that.
template <int kMaxCode, int kHalves, bool kHasMin, int kTokens = kGemmTokens>
static void gemm_tile(const WeightBlock* w, const TokenBlock* x, size_t lane, size_t tokens, size_t blocks,
                      bool fresh, Ahead ahead, float* y, size_t ldy, size_t rows) {
  for (; tokens >= kTokens; lane += kTokens, tokens -= kTokens, y += kTokens * ldy, ahead.lines = 0) {
    gemm_tokens<kMaxCode, kHalves, kHasMin, kTokens>(w, x, lane, blocks, fresh, ahead, y, ldy, rows);
  }
  if constexpr (kTokens > 1) {
    if (tokens > 0) {
      gemm_tile<kMaxCode, kHalves, kHasMin, kTokens / 2>(w, x, lane, tokens, blocks, fresh, ahead, y, ldy,
                                                         rows);
    }
  }
}

template <class Q>
static void gemm(const PackedMatrix& w, const PackedLayout& layout, const ActView& x, float* y, size_t ldy) {
  TokenBlock panel[kPanelRecords];
  WeightBlock weights[kWeightBlocks];
  const size_t groups = (w.rows + kRowGroup - 1) / kRowGroup;
  for (size_t first_token = 0; first_token < x.count; first_token += kPanelTiles * kTileTokens) {
    const size_t left = x.count - first_token;
    const size_t tokens = left < kPanelTiles * kTileTokens ? left : kPanelTiles * kTileTokens;
    const size_t tiles = (tokens + kTileTokens - 1) / kTileTokens;
    const size_t panel_blocks = kPanelRecords / tiles;
    for (size_t b = 0; b < layout.blocks; b += panel_blocks) {
      const size_t blocks = layout.blocks - b < panel_blocks ? layout.blocks - b : panel_blocks;
      load_tokens<Q>(x, w.cols, first_token, tokens, b, blocks, Q::kZero, panel);
      for (size_t g = 0; g < groups; ++g) {
        const auto* group = reinterpret_cast<const uint8_t*>(w.data) + g * layout.group_bytes;
        const size_t rows = w.rows - g * kRowGroup;  // of which up to 16 count
        for (size_t i = 0; i < blocks; i += kWeightBlocks) {
          const size_t count = blocks - i < kWeightBlocks ? blocks - i : kWeightBlocks;
          load_weights<Q, false>(group, layout, b + i, count, weights);
          // The weights behind these come in while these are multiplied; the last ones of a panel's columns
          // lie before those of the next row group.
          const bool last = i + count == blocks;
          Ahead ahead{
              group + (last ? layout.group_bytes : 0) + packed_codes_offset(layout, last ? b : b + i + count),
              (layout.group_bytes / layout.blocks + 64 * tiles - 1) / (64 * tiles)};
          for (size_t tile = 0; tile < tiles; ++tile, ahead.next += 64 * ahead.lines * count) {
            const size_t done = tile * kTileTokens;
            gemm_tile<Q::kMaxCode, Q::kHalves, Q::kHasMin>(
                weights, panel + tile * blocks + i, 0,
                tokens - done < kTileTokens ? tokens - done : kTileTokens, count, b + i == 0, ahead,
                y + (first_token + done) * ldy + g * kRowGroup, ldy, rows);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace nearmoe
