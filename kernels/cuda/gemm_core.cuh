// The inner loop of the tensor-core GEMMs: four warps, each with one group of 16 weight rows, against a tile
// of input rows in shared memory. Weights go from device memory straight into mma fragments, each byte once
// per tile of input rows; the input tile is loaded ahead with cp.async and shared by the warps.
//
// Numerics. Quantised formats: exact integer products of a block, then one fused multiply-add per block in
// ascending order, so a result equals kernels/reference/matmul.cc bit for bit. Float formats: operands as
// sums of two bf16 (weights in bf16 need one), products accumulated in float; the error is about 2^-16 of
// each term.
#pragma once

#include "formats.cuh"
#include "rt/mma.h"

namespace nearmoe::cuda {

constexpr int kGemmWarps = 4;
constexpr int kGemmThreads = kGemmWarps * 32;
constexpr int kGemmRows = kGemmWarps * kGroupRows;
/// Input row that stands for "none": its values are zeros.
constexpr uint32_t kNoRow = 0xffffffffu;

/// Columns of the input tile, and bytes of one of its rows: 16 more than the values, so that the 8 rows of a
/// fragment lie in different banks.
template <DType F>
constexpr int kTileColumns = Format<F>::kQuantised ? 128 : 64;
constexpr int kTileRowBytes = 128 + 16;

/// The block's shared memory for NT * 8 input rows.
template <DType F, int NT>
struct alignas(16) GemmTile {
  static constexpr int kPlanes = Format<F>::kQuantised ? 1 : 2;
  unsigned char values[2][kPlanes][NT * 8][kTileRowBytes];
  float scale[2][Format<F>::kQuantised ? 4 : 1][NT * 8];
  float scaled_sum[2][Format<F>::kHasMin ? 4 : 1][NT * 8];
};

/// Starts the load of columns [chunk * kTileColumns, ...) of the rows in `rows` into stage `stage`.
template <DType F, int NT>
__device__ __forceinline__ void load_tile(GemmTile<F, NT>& tile, int stage, int chunk, const Activations& x,
                                          uint32_t first_col, const uint32_t* rows) {
  constexpr int kColumnsPer16 = Format<F>::kQuantised ? 16 : 8;
  const uint32_t col0 = first_col + static_cast<uint32_t>(chunk * kTileColumns<F>);
  for (int i = static_cast<int>(threadIdx.x); i < NT * 8 * 8; i += kGemmThreads) {
    const int row = i >> 3, piece = i & 7;
    const uint32_t col = col0 + static_cast<uint32_t>(piece * kColumnsPer16);
    const bool valid = rows[row] != kNoRow && col < x.stride;
    const size_t at = valid ? static_cast<size_t>(rows[row]) * x.stride + col : 0;
    if constexpr (Format<F>::kQuantised) {
      cp_async16(&tile.values[stage][0][row][piece * 16], x.q8 + at, valid);
    } else {
      cp_async16(&tile.values[stage][0][row][piece * 16], x.high + at, valid);
      cp_async16(&tile.values[stage][1][row][piece * 16], x.low + at, valid);
    }
  }
  cp_async_commit();
  if constexpr (Format<F>::kQuantised) {
    for (int i = static_cast<int>(threadIdx.x); i < NT * 8 * 4; i += kGemmThreads) {
      const int row = i >> 2, block = i & 3;
      const uint32_t col = col0 + static_cast<uint32_t>(block * kBlockColumns);
      float2 meta = make_float2(0.0f, 0.0f);
      if (rows[row] != kNoRow && col < x.stride) {
        meta = __ldg(x.q8_meta + (static_cast<size_t>(rows[row]) * x.stride + col) / kBlockColumns);
      }
      tile.scale[stage][block][row] = meta.x;
      if constexpr (Format<F>::kHasMin) tile.scaled_sum[stage][block][row] = meta.y;
    }
  }
}

/// One lane's part of a block of weights: A fragments for K = 32, and what its two rows are scaled with.
template <DType F>
struct QuantisedFragment {
  unsigned a[4];
  BlockScale scale[2][2];  // [row][half]
};

template <DType F>
__device__ __forceinline__ QuantisedFragment<F> load_quantised(const uint8_t* group, const WeightView& w,
                                                               int b, int g, int t) {
  using Q = Format<F>;
  const BlockPlace place = place_block<F>(group, w, b);
  const uint8_t* codes = place.codes;
  QuantisedFragment<F> out;
  const auto pair = [&](int vector) {
    return __ldg(reinterpret_cast<const uint2*>(codes + vector * 64) + g);
  };
  if constexpr (Q::kLowBits == 8) {
    const uint2 first = pair(t), second = pair(t + 4);
    out.a[0] = Q::to_signed(first.x);
    out.a[1] = Q::to_signed(first.y);
    out.a[2] = Q::to_signed(second.x);
    out.a[3] = Q::to_signed(second.y);
  } else {
    const uint2 low = pair(t);
    uint2 high[2] = {};
    if constexpr (Q::kHighBits == 2) {
      for (int h = 0; h < 2; ++h) {
        const uint2 bits = pair(4 + h);
        high[h] = make_uint2((bits.x >> 2 * t & 0x03030303u) << 4, (bits.y >> 2 * t & 0x03030303u) << 4);
      }
    }
    out.a[0] = Q::to_signed((low.x & 0x0f0f0f0fu) | high[0].x);
    out.a[1] = Q::to_signed((low.y & 0x0f0f0f0fu) | high[0].y);
    out.a[2] = Q::to_signed((low.x >> 4 & 0x0f0f0f0fu) | high[1].x);
    out.a[3] = Q::to_signed((low.y >> 4 & 0x0f0f0f0fu) | high[1].y);
  }
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    out.scale[row][0] = Q::block_scale(place.header, 2 * g + row, place.sub, 0);
    out.scale[row][1] =
        Q::kHalves == 2 ? Q::block_scale(place.header, 2 * g + row, place.sub, 1) : out.scale[row][0];
  }
  return out;
}

/// acc += one block of weights times 8 input rows. `row`: the lane's B row (n = g) at the block's first
/// value.
template <DType F>
__device__ __forceinline__ void multiply_quantised(const QuantisedFragment<F>& w, const unsigned char* row,
                                                   int t, const float* scale, const float* scaled_sum,
                                                   float (&acc)[4]) {
  using Q = Format<F>;
  const unsigned b[2] = {*reinterpret_cast<const unsigned*>(row + 4 * t),
                         *reinterpret_cast<const unsigned*>(row + 16 + 4 * t)};
#pragma unroll
  for (int half = 0; half < Q::kHalves; ++half) {
    int dot[4] = {0, 0, 0, 0};
    if constexpr (Q::kHalves == 2) {
      const unsigned a[2] = {w.a[2 * half], w.a[2 * half + 1]};
      mma_s8_k16(dot, a, b[half]);
    } else {
      mma_s8(dot, w.a, b);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float factor = __fmul_rn(w.scale[i >> 1][half].scale, scale[2 * t + (i & 1)]);
      acc[i] = __fmaf_rn(__int2float_rn(dot[i]), factor, acc[i]);
    }
  }
  if constexpr (Q::kHasMin) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      acc[i] = __fmaf_rn(w.scale[i >> 1][0].min, scaled_sum[2 * t + (i & 1)], acc[i]);
  }
}

/// One lane's A fragments of 16 columns of weights; `low` only where the format needs two parts.
struct FloatFragment {
  unsigned high[4], low[4];
};

template <DType F>
__device__ __forceinline__ FloatFragment load_float(const uint8_t* group, uint32_t cols, uint32_t col, int g,
                                                    int t) {
  FloatFragment out;
  if constexpr (F == DType::BF16) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const uint32_t pair = col / 2 + static_cast<uint32_t>(t + 4 * h);
      uint2 v = make_uint2(0, 0);
      if (2 * pair < cols)
        v = __ldg(reinterpret_cast<const uint2*>(group + static_cast<size_t>(pair) * 64) + g);
      out.high[2 * h] = v.x;
      out.high[2 * h + 1] = v.y;
    }
  } else {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float2 v[2];  // columns 2t and 2t + 1 of rows 2g, 2g + 1
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const uint32_t c = col + static_cast<uint32_t>(8 * h + 2 * t + i);
        v[i] = make_float2(0.0f, 0.0f);
        if (c >= cols) continue;
        if constexpr (F == DType::F32) {
          v[i] = __ldg(reinterpret_cast<const float2*>(group + static_cast<size_t>(c) * 64) + g);
        } else {
          const unsigned bits =
              __ldg(reinterpret_cast<const unsigned*>(group + static_cast<size_t>(c) * 32) + g);
          v[i] = make_float2(half_bits_to_float(bits & 0xffffu), half_bits_to_float(bits >> 16));
        }
      }
      split_pair(v[0].x, v[1].x, out.high[2 * h], out.low[2 * h]);
      split_pair(v[0].y, v[1].y, out.high[2 * h + 1], out.low[2 * h + 1]);
    }
  }
  return out;
}

template <DType F>
__device__ __forceinline__ void multiply_float(const FloatFragment& w, const unsigned char* high,
                                               const unsigned char* low, int t, float (&acc)[4]) {
  const auto pair = [&](const unsigned char* row, int i) {
    return *reinterpret_cast<const unsigned*>(row + 4 * t + 16 * i);
  };
  const unsigned b_high[2] = {pair(high, 0), pair(high, 1)}, b_low[2] = {pair(low, 0), pair(low, 1)};
  mma_bf16(acc, w.high, b_low);  // small terms first
  if constexpr (F != DType::BF16) mma_bf16(acc, w.low, b_high);
  mma_bf16(acc, w.high, b_high);
}

/// acc[m] += group m of W (all of layout `w`) times the input rows' columns from first_col on. All threads of
/// the block come with the same layout, rows and first_col; each warp has its own groups. `used`: input rows
/// in use.
template <DType F, int NT, int M>
__device__ __forceinline__ void gemm_accumulate(GemmTile<F, NT>& tile, const uint8_t* const (&groups)[M],
                                                const WeightView& w, const Activations& x, uint32_t first_col,
                                                const uint32_t* rows, int used, float (&acc)[M][NT][4]) {
  const int lane = static_cast<int>(threadIdx.x & 31), g = lane >> 2, t = lane & 3;
  const int chunks = (static_cast<int>(w.cols) + kTileColumns<F> - 1) / kTileColumns<F>;
  load_tile<F, NT>(tile, 0, 0, x, first_col, rows);
  for (int chunk = 0; chunk < chunks; ++chunk) {
    const int stage = chunk & 1;
    if (chunk + 1 < chunks) {
      load_tile<F, NT>(tile, stage ^ 1, chunk + 1, x, first_col, rows);
      cp_async_wait<1>();
    } else {
      cp_async_wait<0>();
    }
    __syncthreads();
    if constexpr (Format<F>::kQuantised) {
      const int blocks = static_cast<int>((w.cols + kBlockColumns - 1) / kBlockColumns) - 4 * chunk;
#pragma unroll
      for (int b = 0; b < 4; ++b) {
        if (b >= blocks) break;
#pragma unroll
        for (int m = 0; m < M; ++m) {
          const QuantisedFragment<F> fragment = load_quantised<F>(groups[m], w, 4 * chunk + b, g, t);
#pragma unroll
          for (int n = 0; n < NT; ++n) {
            if (8 * n >= used) break;
            multiply_quantised<F>(fragment, tile.values[stage][0][8 * n + g] + 32 * b, t,
                                  &tile.scale[stage][b][8 * n],
                                  &tile.scaled_sum[stage][Format<F>::kHasMin ? b : 0][8 * n], acc[m][n]);
          }
        }
      }
    } else {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const uint32_t col = static_cast<uint32_t>(64 * chunk + 16 * k);
        if (col >= w.cols) break;
#pragma unroll
        for (int m = 0; m < M; ++m) {
          const FloatFragment fragment = load_float<F>(groups[m], w.cols, col, g, t);
#pragma unroll
          for (int n = 0; n < NT; ++n) {
            if (8 * n >= used) break;
            multiply_float<F>(fragment, tile.values[stage][0][8 * n + g] + 32 * k,
                              tile.values[stage][GemmTile<F, NT>::kPlanes - 1][8 * n + g] + 32 * k, t,
                              acc[m][n]);
          }
        }
      }
    }
    __syncthreads();
  }
}

}  // namespace nearmoe::cuda
