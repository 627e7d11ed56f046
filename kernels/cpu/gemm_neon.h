// Many tokens times a packed block-format matrix on AArch64: tiles of 8 rows x 4 tokens whose integer dots
// and float sums fit the 32 vector registers, over weights unpacked to signed bytes. With I8MM an
// instruction multiplies 2 rows by 2 tokens over 8 columns (SMMLA), without it 4 rows by one token over 4
// (SDOT). Numerics: ../ops.h; the same bits as gemv.h for each token.
#pragma once

#include "gemm_panel.h"

namespace nearmoe {
namespace {

constexpr size_t kTileRows = 8;
constexpr size_t kSideTokens = 4;

#if defined(__ARM_FEATURE_MATMUL_INT8)

/// Operands of SMMLA: 8 columns of two tokens side by side, and of two rows.
struct PairPanel {
  NEARMOE_INLINE void store_token(TokenBlock& out, size_t lane, const int8_t* values) {
    int8_t* pair = out.values[0] + lane / 2 * 2 * kBlockCols + lane % 2 * 8;
    for (size_t c = 0; c < kBlockCols; c += 8) std::memcpy(pair + 2 * c, values + c, 8);
  }
  NEARMOE_INLINE void store_rows(uint8_t* out, uint8x16_t first, uint8x16_t second) {
    const uint32x4_t low = vreinterpretq_u32_u8(first), high = vreinterpretq_u32_u8(second);
    vst1q_u8(out, vreinterpretq_u8_u32(vzip1q_u32(low, high)));
    vst1q_u8(out + 16, vreinterpretq_u8_u32(vzip2q_u32(low, high)));
  }
  NEARMOE_INLINE void store_weights(WeightBlock& out, const VB w[8]) {
#pragma GCC unroll 4
    for (int j = 0; j < 8; j += 2) {
      store_rows(out.codes + 64 * j, w[j].a, w[j + 1].a);
      store_rows(out.codes + 64 * j + 32, w[j].b, w[j + 1].b);
      store_rows(out.codes + 64 * j + 64, w[j].c, w[j + 1].c);
      store_rows(out.codes + 64 * j + 96, w[j].d, w[j + 1].d);
    }
  }
};
using Panel = PairPanel;

/// Two floats, twice.
NEARMOE_INLINE float32x4_t load_pair(const float* p) {
  const float32x2_t pair = vld1_f32(p);
  return vcombine_f32(pair, pair);
}

/// Sums of 4 rows (two registers of row pairs) to and from one token each.
NEARMOE_INLINE void split_tokens(const float32x4_t pairs[2], float* first, float* second) {
  vst1q_f32(first, vuzp1q_f32(pairs[0], pairs[1]));
  vst1q_f32(second, vuzp2q_f32(pairs[0], pairs[1]));
}
NEARMOE_INLINE void join_tokens(const float* first, const float* second, float32x4_t pairs[2]) {
  const float32x4_t low = vld1q_f32(first), high = vld1q_f32(second);
  pairs[0] = vzip1q_f32(low, high);
  pairs[1] = vzip2q_f32(low, high);
}

/// Rows [row, row + 8) times kTokens tokens from `lane` (even) on; continues sums[token][row]. An odd last
/// token has a lane beside it that holds anything and whose sums nobody reads.
template <int kHalves, bool kHasMin, size_t kTokens>
static void multiply_tile(const WeightBlock* w, const TokenBlock* x, size_t row, size_t lane, size_t blocks,
                          float (*sums)[kRowGroup]) {
  constexpr size_t kPairs = (kTokens + 1) / 2, kRowPairs = kTileRows / 2;
  float32x4_t acc[kPairs][kRowPairs];
#pragma GCC unroll 2
  for (size_t p = 0; p < kPairs; ++p) {
    join_tokens(sums[2 * p] + row, sums[2 * p + 1] + row, acc[p]);
    join_tokens(sums[2 * p] + row + 4, sums[2 * p + 1] + row + 4, acc[p] + 2);
  }
  for (size_t b = 0; b < blocks; ++b, ++w, ++x) {
    const int8_t* values = x->values[lane];
// Halves one after the other: interleaved, their sums do not fit the registers.
#pragma GCC unroll 1
    for (size_t h = 0; h < kHalves; ++h) {
      int32x4_t dots[kPairs][kRowPairs];
#pragma GCC unroll 2
      for (size_t p = 0; p < kPairs; ++p) {
#pragma GCC unroll 4
        for (size_t r = 0; r < kRowPairs; ++r) dots[p][r] = vdupq_n_s32(0);
      }
#pragma GCC unroll 4
      for (size_t c = h * 4 / kHalves; c < (h + 1) * 4 / kHalves; ++c) {  // 8 columns
        int8x16_t tokens[kPairs];
#pragma GCC unroll 2
        for (size_t p = 0; p < kPairs; ++p) tokens[p] = vld1q_s8(values + 64 * p + 16 * c);
#pragma GCC unroll 4
        for (size_t r = 0; r < kRowPairs; ++r) {
          const int8x16_t rows = vreinterpretq_s8_u8(vld1q_u8(w->codes + 128 * c + 8 * row + 16 * r));
#pragma GCC unroll 2
          for (size_t p = 0; p < kPairs; ++p) dots[p][r] = vmmlaq_s32(dots[p][r], rows, tokens[p]);
        }
      }
#pragma GCC unroll 4
      for (size_t r = 0; r < kRowPairs; ++r) {
        const float* row_scale = w->scale[h] + row + 2 * r;
        const float* row_min = w->min[h] + row + 2 * r;
        const float32x4_t scale = vzip1q_f32(load_pair(row_scale), load_pair(row_scale));
#pragma GCC unroll 2
        for (size_t p = 0; p < kPairs; ++p) {
          const float32x4_t product = vmulq_f32(scale, load_pair(x->scale + lane + 2 * p));
          acc[p][r] = vfmaq_f32(acc[p][r], vcvtq_f32_s32(dots[p][r]), product);
          if constexpr (kHasMin) {
            const float32x4_t min = vzip1q_f32(load_pair(row_min), load_pair(row_min));
            acc[p][r] = vfmaq_f32(acc[p][r], min, load_pair(x->scaled[h] + lane + 2 * p));
          }
        }
      }
    }
  }
#pragma GCC unroll 2
  for (size_t p = 0; p < kPairs; ++p) {
    split_tokens(acc[p], sums[2 * p] + row, sums[2 * p + 1] + row);
    split_tokens(acc[p] + 2, sums[2 * p] + row + 4, sums[2 * p + 1] + row + 4);
  }
}

#else

using Panel = QuadPanel;

/// One quad of 8 rows times the same quad of kTokens tokens; SDOT's lane must be a constant.
template <int kLane, size_t kTokens>
NEARMOE_INLINE void dot_quad_tile(const uint8_t* codes, const int8x16_t* tokens, int32x4_t (*dots)[2]) {
  const int8x16_t low = vreinterpretq_s8_u8(vld1q_u8(codes)),
                  high = vreinterpretq_s8_u8(vld1q_u8(codes + 16));
#pragma GCC unroll 4
  for (size_t t = 0; t < kTokens; ++t) {
    dots[t][0] = vdotq_laneq_s32(dots[t][0], low, tokens[t], kLane);
    dots[t][1] = vdotq_laneq_s32(dots[t][1], high, tokens[t], kLane);
  }
}

/// Rows [row, row + 8) times kTokens tokens from `lane` on; continues sums[token][row].
template <int kHalves, bool kHasMin, size_t kTokens>
static void multiply_tile(const WeightBlock* w, const TokenBlock* x, size_t row, size_t lane, size_t blocks,
                          float (*sums)[kRowGroup]) {
  float32x4_t acc[kTokens][2];
#pragma GCC unroll 4
  for (size_t t = 0; t < kTokens; ++t) {
    acc[t][0] = vld1q_f32(sums[t] + row);
    acc[t][1] = vld1q_f32(sums[t] + row + 4);
  }
  for (size_t b = 0; b < blocks; ++b, ++w, ++x) {
#pragma GCC unroll 2
    for (size_t h = 0; h < kHalves; ++h) {
      int32x4_t dots[kTokens][2];
#pragma GCC unroll 4
      for (size_t t = 0; t < kTokens; ++t) dots[t][0] = dots[t][1] = vdupq_n_s32(0);
#pragma GCC unroll 2
      for (size_t c = h * 2 / kHalves; c < (h + 1) * 2 / kHalves; ++c) {  // 16 columns
        int8x16_t tokens[kTokens];
#pragma GCC unroll 4
        for (size_t t = 0; t < kTokens; ++t) tokens[t] = vld1q_s8(x->values[lane + t] + 16 * c);
        const uint8_t* codes = w->codes + 256 * c + 4 * row;
        dot_quad_tile<0, kTokens>(codes, tokens, dots);
        dot_quad_tile<1, kTokens>(codes + 64, tokens, dots);
        dot_quad_tile<2, kTokens>(codes + 128, tokens, dots);
        dot_quad_tile<3, kTokens>(codes + 192, tokens, dots);
      }
#pragma GCC unroll 2
      for (size_t r = 0; r < 2; ++r) {
        const float32x4_t scale = vld1q_f32(w->scale[h] + row + 4 * r);
#pragma GCC unroll 4
        for (size_t t = 0; t < kTokens; ++t) {
          const float32x4_t product = vmulq_n_f32(scale, x->scale[lane + t]);
          acc[t][r] = vfmaq_f32(acc[t][r], vcvtq_f32_s32(dots[t][r]), product);
          if constexpr (kHasMin) {
            acc[t][r] = vfmaq_n_f32(acc[t][r], vld1q_f32(w->min[h] + row + 4 * r), x->scaled[h][lane + t]);
          }
        }
      }
    }
  }
#pragma GCC unroll 4
  for (size_t t = 0; t < kTokens; ++t) {
    vst1q_f32(sums[t] + row, acc[t][0]);
    vst1q_f32(sums[t] + row + 4, acc[t][1]);
  }
}

#endif

/// kTokens tokens times the 16 rows of a group; continues the sums in y unless fresh.
template <int kHalves, bool kHasMin, size_t kTokens>
static void multiply_tokens(const WeightBlock* w, const TokenBlock* x, size_t lane, size_t blocks, bool fresh,
                            float* y, size_t ldy, size_t rows) {
  alignas(16) float sums[kSideTokens][kRowGroup] = {};
  for (size_t t = 0; t < kTokens && !fresh; ++t) f_store(sums[t], f_load_up_to(y + t * ldy, rows));
  for (size_t row = 0; row < kRowGroup && row < rows; row += kTileRows) {
    multiply_tile<kHalves, kHasMin, kTokens>(w, x, row, lane, blocks, sums);
  }
  for (size_t t = 0; t < kTokens; ++t) f_store_up_to(y + t * ldy, f_load(sums[t]), rows);
}

/// The tokens of one tile, four at a time.
template <int kHalves, bool kHasMin>
static void multiply_group(const WeightBlock* w, const TokenBlock* x, size_t tokens, size_t blocks,
                           bool fresh, float* y, size_t ldy, size_t rows) {
  size_t lane = 0;
  for (; lane + 4 <= tokens; lane += 4, y += 4 * ldy) {
    multiply_tokens<kHalves, kHasMin, 4>(w, x, lane, blocks, fresh, y, ldy, rows);
  }
  switch (tokens - lane) {
    case 3:
      return multiply_tokens<kHalves, kHasMin, 3>(w, x, lane, blocks, fresh, y, ldy, rows);
    case 2:
      return multiply_tokens<kHalves, kHasMin, 2>(w, x, lane, blocks, fresh, y, ldy, rows);
    case 1:
      return multiply_tokens<kHalves, kHasMin, 1>(w, x, lane, blocks, fresh, y, ldy, rows);
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
      load_tokens<Q, Panel>(x, w.cols, first_token, tokens, b, blocks, 0, panel);
      for (size_t g = 0; g < groups; ++g) {
        const auto* group = reinterpret_cast<const uint8_t*>(w.data) + g * layout.group_bytes;
        for (size_t i = 0; i < blocks; i += kWeightBlocks) {
          const size_t count = blocks - i < kWeightBlocks ? blocks - i : kWeightBlocks;
          load_weights<Q, true, Panel>(group, layout, b + i, count, weights);
          for (size_t tile = 0; tile < tiles; ++tile) {
            const size_t done = tile * kTileTokens;
            multiply_group<Q::kHalves, Q::kHasMin>(
                weights, panel + tile * blocks + i, tokens - done < kTileTokens ? tokens - done : kTileTokens,
                count, b + i == 0, y + (first_token + done) * ldy + g * kRowGroup, ldy,
                w.rows - g * kRowGroup);
          }
        }
      }
    }
  }
}

struct NeonGemm {
  static constexpr size_t kLeastTokens = 2;
  template <class Q>
  NEARMOE_INLINE void run(const PackedMatrix& w, const ActView& x, float* y, size_t ldy) {
    gemm<Q>(w, packed_layout(*quant_format(Q::kDType), w.cols, w.col_begin), x, y, ldy);
  }
};

}  // namespace
}  // namespace nearmoe
