// The inner loop of all GEMV kernels: a warp's share of the products of one group of 16 weight rows with a
// few input rows. Every load of weights is 16 bytes a lane and 512 consecutive bytes a warp; each byte is
// read once.
#pragma once

#include "reduce.cuh"

namespace nearmoe::cuda {

/// Rows of the group that one lane accumulates: a lane's 16 bytes hold 4 quads, or 8 halves of one column.
template <DType F>
constexpr int kLaneRows = F == DType::F16 ? 8 : 4;

/// Steps of a row: what a warp's one load covers.
template <DType F>
__device__ __forceinline__ int gemv_steps(uint32_t cols) {
  const int n = static_cast<int>(cols);
  if constexpr (F == DType::F32) return (n + 7) / 8;
  if constexpr (F == DType::F16 || F == DType::BF16) return (n + 15) / 16;
  if constexpr (Format<F>::kQuantised) {
    const int blocks = (n + kBlockColumns - 1) / kBlockColumns;
    return Format<F>::kLowBits == 8 ? blocks : (blocks + 1) / 2;
  }
  return 0;
}

/// Input rows of a GEMV: row t at t * stride; `count` rows exist, the others of TOK repeat the last one.
struct GemvInput {
  const float* f32;
  const int8_t* q8;
  const float2* q8_meta;
  uint32_t stride;
  int count;
};

__device__ __forceinline__ size_t input_row(const GemvInput& x, int t) {
  return static_cast<size_t>(t < x.count ? t : x.count - 1) * x.stride;
}

template <DType F, int TOK>
__device__ __forceinline__ void add_float_step(const uint8_t* group, uint32_t cols, const GemvInput& x,
                                               int step, int lane, float (&acc)[TOK][kLaneRows<F>]) {
  if constexpr (F == DType::F32) {
    const uint32_t col = static_cast<uint32_t>(step * 8 + (lane >> 2));
    if (col >= cols) return;
    const float4 w = __ldg(reinterpret_cast<const float4*>(group) + step * 32 + lane);
#pragma unroll
    for (int t = 0; t < TOK; ++t) {
      const float v = __ldg(x.f32 + input_row(x, t) + col);
      acc[t][0] = fmaf(w.x, v, acc[t][0]);
      acc[t][1] = fmaf(w.y, v, acc[t][1]);
      acc[t][2] = fmaf(w.z, v, acc[t][2]);
      acc[t][3] = fmaf(w.w, v, acc[t][3]);
    }
  } else if constexpr (F == DType::BF16) {
    const uint32_t pair = static_cast<uint32_t>(step * 8 + (lane >> 2));
    if (2 * pair >= cols) return;
    const uint4 w = __ldg(reinterpret_cast<const uint4*>(group) + step * 32 + lane);
    const unsigned words[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
    for (int t = 0; t < TOK; ++t) {
      const float2 v = __ldg(reinterpret_cast<const float2*>(x.f32 + input_row(x, t)) + pair);
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        acc[t][r] = fmaf(__uint_as_float(words[r] << 16), v.x, acc[t][r]);
        acc[t][r] = fmaf(__uint_as_float(words[r] & 0xffff0000u), v.y, acc[t][r]);
      }
    }
  } else {
    const uint32_t col = static_cast<uint32_t>(step * 16 + (lane >> 1));
    if (col >= cols) return;
    const uint4 w = __ldg(reinterpret_cast<const uint4*>(group) + step * 32 + lane);
    const unsigned words[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
    for (int t = 0; t < TOK; ++t) {
      const float v = __ldg(x.f32 + input_row(x, t) + col);
#pragma unroll
      for (int r = 0; r < 8; ++r) {
        acc[t][r] = fmaf(half_bits_to_float(words[r / 2] >> (16 * (r % 2)) & 0xffffu), v, acc[t][r]);
      }
    }
  }
}

/// Bits 4 and 5 of the codes, for formats with a high plane; `half` 0 for columns 0..15 of the block.
template <DType F>
__device__ __forceinline__ uint4 high_plane(const uint8_t* codes, int half, int quad, int row_quad) {
  uint4 high = make_uint4(0, 0, 0, 0);
  if constexpr (Format<F>::kHighBits == 2) {
    const uint4 w =
        __ldg(reinterpret_cast<const uint4*>(codes + 64 * (Format<F>::kLowBits + half)) + row_quad);
    high = make_uint4((w.x >> 2 * quad & 0x03030303u) << 4, (w.y >> 2 * quad & 0x03030303u) << 4,
                      (w.z >> 2 * quad & 0x03030303u) << 4, (w.w >> 2 * quad & 0x03030303u) << 4);
  }
  return high;
}

/// A lane's products of one block: 4 rows with 4 columns (8-bit codes) or 4 + 4 columns (4-bit codes, quads j
/// and j + 4).
template <DType F, int TOK>
__device__ __forceinline__ void add_quantised_step(const WeightView& w, const uint8_t* group, int blocks,
                                                   const GemvInput& x, int step, int lane,
                                                   float (&acc)[TOK][4]) {
  using Q = Format<F>;
  constexpr bool k8Bit = Q::kLowBits == 8;
  const int row_quad = lane & 3;
  const int quad = k8Bit ? lane >> 2 : lane >> 2 & 3;
  const int b = k8Bit ? step : 2 * step + (lane >> 4);
  if (b >= blocks) return;
  const BlockPlace place = place_block<F>(group, w, b);
  const uint8_t* codes = place.codes;
  const uint4 packed = __ldg(reinterpret_cast<const uint4*>(codes) + quad * 4 + row_quad);
  const unsigned words[4] = {packed.x, packed.y, packed.z, packed.w};
  const uint4 high0 = high_plane<F>(codes, 0, quad, row_quad),
              high1 = high_plane<F>(codes, 1, quad, row_quad);
  const unsigned high[2][4] = {{high0.x, high0.y, high0.z, high0.w}, {high1.x, high1.y, high1.z, high1.w}};
  int first[4], second[4];
  BlockScale s0[4], s1[4];
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    first[r] = static_cast<int>(Q::to_signed(k8Bit ? words[r] : (words[r] & 0x0f0f0f0fu) | high[0][r]));
    second[r] = k8Bit ? 0 : static_cast<int>(Q::to_signed((words[r] >> 4 & 0x0f0f0f0fu) | high[1][r]));
    s0[r] = Q::block_scale(place.header, 4 * row_quad + r, place.sub, 0);
    s1[r] = Q::kHalves == 2 ? Q::block_scale(place.header, 4 * row_quad + r, place.sub, 1) : s0[r];
  }
#pragma unroll
  for (int t = 0; t < TOK; ++t) {
    const size_t row = input_row(x, t);
    const int* values = reinterpret_cast<const int*>(x.q8 + row) + b * 8 + quad;
    const float2 meta = __ldg(x.q8_meta + row / kBlockColumns + b);
    const int v0 = __ldg(values), v1 = k8Bit ? 0 : __ldg(values + 4);
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      int dot = __dp4a(first[r], v0, 0);
      if constexpr (Q::kHalves == 2) {
        acc[t][r] = fmaf(static_cast<float>(dot), s0[r].scale * meta.x, acc[t][r]);
        dot = 0;
      }
      if constexpr (!k8Bit) dot = __dp4a(second[r], v1, dot);
      acc[t][r] = fmaf(static_cast<float>(dot), s1[r].scale * meta.x, acc[t][r]);
      if constexpr (Q::kHasMin) {
        if (quad == 0) acc[t][r] = fmaf(s0[r].min, meta.y, acc[t][r]);
      }
    }
  }
}

/// acc += the products of steps first, first + stride, ... of one group.
template <DType F, int TOK>
__device__ __forceinline__ void accumulate_group(const WeightView& w, uint32_t group_index,
                                                 const GemvInput& x, int first, int stride,
                                                 float (&acc)[TOK][kLaneRows<F>]) {
  const uint8_t* group = w.data + static_cast<size_t>(group_index) * w.group_bytes;
  const int lane = static_cast<int>(threadIdx.x & 31), steps = gemv_steps<F>(w.cols);
  if constexpr (Format<F>::kQuantised) {
    const int blocks = static_cast<int>((w.cols + kBlockColumns - 1) / kBlockColumns);
#pragma unroll 2
    for (int step = first; step < steps; step += stride)
      add_quantised_step<F, TOK>(w, group, blocks, x, step, lane, acc);
  } else {
#pragma unroll 4
    for (int step = first; step < steps; step += stride)
      add_float_step<F, TOK>(group, w.cols, x, step, lane, acc);
  }
}

/// Adds up the lanes that hold parts of the same rows and leaves the warp's 16 sums per input row in `sums`
/// [TOK][16].
template <DType F, int TOK>
__device__ __forceinline__ void store_group_sums(float (&acc)[TOK][kLaneRows<F>], float* sums) {
  constexpr int kRows = kLaneRows<F>, kLanesOfRow = kGroupRows / kRows;
  const int lane = static_cast<int>(threadIdx.x & 31);
#pragma unroll
  for (int t = 0; t < TOK; ++t) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int offset = 16; offset >= kLanesOfRow; offset >>= 1) {
        acc[t][r] += __shfl_xor_sync(kAllLanes, acc[t][r], offset);
      }
      if (lane < kLanesOfRow) sums[t * kGroupRows + lane * kRows + r] = acc[t][r];
    }
  }
}

}  // namespace nearmoe::cuda
