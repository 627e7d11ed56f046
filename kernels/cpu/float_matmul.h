// Float-format matmul: kGroups row groups x kTokens tokens of accumulators in registers, one fma chain for
// each row and token in column order. One token runs over several row groups at once so that the chains
// overlap.
#pragma once

#include "../activations.h"
#include "../quant_format.h"
#include "vec.h"

namespace nearmoe {
namespace {

/// How 16 rows of one or two columns become floats.
template <DType kDType>
struct FloatFormat;
template <>
struct FloatFormat<DType::F32> {
  static constexpr size_t kColumns = 1, kBytes = 64;
  NEARMOE_INLINE void load(const uint8_t* p, VF* w) { w[0] = f_load(reinterpret_cast<const float*>(p)); }
};
template <>
struct FloatFormat<DType::F16> {
  static constexpr size_t kColumns = 1, kBytes = 32;
  NEARMOE_INLINE void load(const uint8_t* p, VF* w) { w[0] = f_from_f16(p); }
};
template <>
struct FloatFormat<DType::BF16> {
  static constexpr size_t kColumns = 2, kBytes = 64;
  NEARMOE_INLINE void load(const uint8_t* p, VF* w) {
    const VB words = b_load(p);
    w[0] = f_bf16_even(words);
    w[1] = f_bf16_odd(words);
  }
};

constexpr size_t kFloatStreams = 4;    // row groups of the one-token path
constexpr size_t kFloatColumns = 512;  // columns of a token panel
constexpr size_t kFloatPrefetch = 1024;

/// x: token t's columns at x + t * x_stride; y: token t, group g at y + t * ldy + g * y_group (rows[g] of 16
/// stored).
template <DType kDType, int kGroups, int kTokens>
static void float_tile(const uint8_t* w, size_t stream_bytes, const float* x, size_t x_stride, size_t cols,
                       bool fresh, float* y, size_t ldy, size_t y_group, const size_t* rows) {
  using Format = FloatFormat<kDType>;
  constexpr int kColumns = Format::kColumns;
  VF acc[kTokens][kGroups];
#pragma GCC unroll 12
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) {
      const float* from = y + static_cast<size_t>(t) * ldy + static_cast<size_t>(g) * y_group;
      acc[t][g] = fresh ? f_zero() : f_load_up_to(from, rows[g]);
    }
  }
  for (size_t c = 0; c < cols; c += kColumns, w += Format::kBytes) {
    VF columns[kGroups][kColumns];
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) {
      const uint8_t* from = w + static_cast<size_t>(g) * stream_bytes;
      if constexpr (kTokens == 1) prefetch_far(from + kFloatPrefetch);
      Format::load(from, columns[g]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < kColumns; ++i) {
      if (i > 0 && c + static_cast<size_t>(i) == cols) break;
#pragma GCC unroll 12
      for (int t = 0; t < kTokens; ++t) {
        const VF value = f_set(x[static_cast<size_t>(t) * x_stride + c + static_cast<size_t>(i)]);
#pragma GCC unroll 4
        for (int g = 0; g < kGroups; ++g) acc[t][g] = f_fma(columns[g][i], value, acc[t][g]);
      }
    }
  }
#pragma GCC unroll 12
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) {
      f_store_up_to(y + static_cast<size_t>(t) * ldy + static_cast<size_t>(g) * y_group, acc[t][g], rows[g]);
    }
  }
}

/// The one-token path: each of kFloatStreams streams has its own run of row groups.
template <DType kDType>
static void float_gemv(const PackedMatrix& w, const std::byte* activations, float* y) {
  const auto* data = reinterpret_cast<const uint8_t*>(w.data);
  const auto* x = reinterpret_cast<const float*>(activations);
  const size_t group_bytes = float_group_bytes(kDType, w.cols);
  const size_t groups = (w.rows + kRowGroup - 1) / kRowGroup, run = groups / kFloatStreams;
  for (size_t i = 0; i < run; ++i) {
    size_t rows[kFloatStreams];
    for (size_t g = 0; g < kFloatStreams; ++g) rows[g] = w.rows - (g * run + i) * kRowGroup;
    float_tile<kDType, kFloatStreams, 1>(data + i * group_bytes, run * group_bytes, x, 0, w.cols, true,
                                         y + i * kRowGroup, 0, run * kRowGroup, rows);
  }
  for (size_t g = run * kFloatStreams; g < groups; ++g) {
    const size_t rows = w.rows - g * kRowGroup;
    float_tile<kDType, 1, 1>(data + g * group_bytes, 0, x, 0, w.cols, true, y + g * kRowGroup, 0, 0, &rows);
  }
}

/// Row groups [g, g + kGroups) times `tokens` tokens in runs of kTokens, then halves of that.
template <DType kDType, int kGroups, int kTokens>
static void float_tokens(const uint8_t* w, size_t group_bytes, const float* x, size_t x_stride, size_t tokens,
                         size_t cols, bool fresh, float* y, size_t ldy, const size_t* rows) {
  for (; tokens >= kTokens; tokens -= kTokens, x += kTokens * x_stride, y += kTokens * ldy) {
    float_tile<kDType, kGroups, kTokens>(w, group_bytes, x, x_stride, cols, fresh, y, ldy, kRowGroup, rows);
  }
  if constexpr (kTokens > 1) {
    if (tokens > 0) {
      float_tokens<kDType, kGroups, kTokens / 2>(w, group_bytes, x, x_stride, tokens, cols, fresh, y, ldy,
                                                 rows);
    }
  }
}

template <DType kDType>
static void float_gemm(const PackedMatrix& w, const ActView& x, float* y, size_t ldy) {
  constexpr size_t kTokens = kFloatTokens, kStride = kFloatColumns + 16;
  alignas(64) float panel[kTokens * kStride];
  const auto* data = reinterpret_cast<const uint8_t*>(w.data);
  const size_t group_bytes = float_group_bytes(kDType, w.cols);
  constexpr size_t kColumnBytes = FloatFormat<kDType>::kBytes / FloatFormat<kDType>::kColumns;
  const size_t groups = (w.rows + kRowGroup - 1) / kRowGroup;
  for (size_t first = 0; first < x.count; first += kTokens) {
    const size_t tokens = x.count - first < kTokens ? x.count - first : kTokens;
    for (size_t c = 0; c < w.cols; c += kFloatColumns) {
      const size_t cols = w.cols - c < kFloatColumns ? w.cols - c : kFloatColumns;
      for (size_t t = 0; t < tokens; ++t) {
        const std::byte* row = x.data + (x.index ? x.index[first + t] : first + t) * x.stride;
        std::memcpy(panel + t * kStride, row + c * sizeof(float), cols * sizeof(float));
      }
      size_t g = 0;
      for (; g + kFloatGroups <= groups; g += kFloatGroups) {
        size_t rows[kFloatGroups];
        for (size_t i = 0; i < kFloatGroups; ++i) rows[i] = w.rows - (g + i) * kRowGroup;
        float_tokens<kDType, kFloatGroups, kFloatTokens>(data + g * group_bytes + c * kColumnBytes,
                                                         group_bytes, panel, kStride, tokens, cols, c == 0,
                                                         y + first * ldy + g * kRowGroup, ldy, rows);
      }
      for (; g < groups; ++g) {
        const size_t rows = w.rows - g * kRowGroup;
        float_tokens<kDType, 1, kFloatTokens>(data + g * group_bytes + c * kColumnBytes, group_bytes, panel,
                                              kStride, tokens, cols, c == 0, y + first * ldy + g * kRowGroup,
                                              ldy, &rows);
      }
    }
  }
}

}  // namespace
}  // namespace nearmoe
