// Attention of 16 (token, head) rows that share their keys, by four warps, a tile of 16 keys at a time:
// products with tensor cores of what lies in shared memory, and the softmax between them. Two warps halve the
// dimensions of the scores for each half of the keys; then every warp turns all scores into weights for
// itself and has its own columns of the values. Used by latent_attention.cu and attention_wide.cu. Needs
// sm_80.
#pragma once

#include "kv_pool.cuh"
#include "reduce.cuh"
#include "rt/mma.h"

namespace nearmoe::cuda {

constexpr int kWarps = 4;  ///< of a group of rows
constexpr int kRows = 16;  ///< of a group
constexpr int kKeys = 16;

/// A row of scores: two values of padding, so that rows lie in different banks.
using ScoreRow = float[kKeys + 2];

/// One plane of numbers and that of what is left of them, which keys and values may lack.
struct Planes {
  uint16_t *high, *low;
};

/// Products whose second operand is one bf16 number, or (SPLIT) the sum of two; small terms first.
template <bool SPLIT>
struct Bf16Product {
  static constexpr bool kSplit = SPLIT;
  __device__ static __forceinline__ void add(float (&out)[4], const unsigned (&a_high)[4],
                                             const unsigned (&a_low)[4], const unsigned (&b_high)[2],
                                             const unsigned (&b_low)[2]) {
    mma_bf16(out, a_low, b_high);
    if constexpr (SPLIT) mma_bf16(out, a_high, b_low);
    mma_bf16(out, a_high, b_high);
  }
};

/// The same with one f16 number.
struct F16Product {
  static constexpr bool kSplit = false;
  __device__ static __forceinline__ void add(float (&out)[4], const unsigned (&a_high)[4],
                                             const unsigned (&a_low)[4], const unsigned (&b_high)[2],
                                             const unsigned (&)[2]) {
    mma_f16(out, a_low, b_high);
    mma_f16(out, a_high, b_high);
  }
};

template <class Product>
__device__ __forceinline__ void multiply(float (&out)[4], const unsigned (&a_high)[4],
                                         const unsigned (&a_low)[4], const unsigned* high,
                                         const unsigned* low) {
  const unsigned b_high[2] = {high[0], high[1]}, b_low[2] = {low[0], low[1]};
  Product::add(out, a_high, a_low, b_high, b_low);
}

/// The warp's part of the scores, the rows of q times 8 keys over every second 32 of `width` dimensions, into
/// `scores`. Rows of q and keys are `stride` halves apart.
template <class Product>
__device__ __forceinline__ void multiply_keys(const Planes& q, const Planes& keys, int stride, int width,
                                              int warp, int lane, ScoreRow* scores) {
  const int half_of_keys = 8 * (warp & 1), part = warp >> 1;
  const int q_at = (lane & 15) * stride + (lane >> 4) * 8;
  const int k_at = (half_of_keys + (lane & 7)) * stride + (lane >> 3) * 8;
  float s[4] = {};
#pragma unroll 2
  for (int d = 32 * part; d < width; d += 64) {
    unsigned high[4], low[4] = {};
    ldmatrix_x4(high, keys.high + k_at + d);
    if constexpr (Product::kSplit) ldmatrix_x4(low, keys.low + k_at + d);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      unsigned q_high[4], q_low[4];
      ldmatrix_x4(q_high, q.high + q_at + d + 16 * half);
      ldmatrix_x4(q_low, q.low + q_at + d + 16 * half);
      multiply<Product>(s, q_high, q_low, high + 2 * half, low + 2 * half);
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
    scores[(lane >> 2) + 8 * (i >> 1)][half_of_keys + 2 * (lane & 3) + (i & 1)] = s[i];
}

/// What a warp knows of its lanes' rows, g and g + 8 of its group; `total` has this lane's keys only.
struct RowState {
  float largest[2], total[2];
  int position[2];  ///< -1: no such row
};

/// Scores of the tile's keys, two halves of each, -> weights p, and by how much earlier sums shrink.
/// score_of(r, key, product) is the score of the lane's row r, -inf where it does not see the key.
template <class ScoreOf>
__device__ __forceinline__ void soft_max(const ScoreRow* first_half, const ScoreRow* second_half, int lane,
                                         RowState& rows, float (&p)[2][4], float (&keep)[2],
                                         ScoreOf score_of) {
  float top[2] = {rows.largest[0], rows.largest[1]};
#pragma unroll
  for (int n = 0; n < 2; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = (lane >> 2) + 8 * (i >> 1), key = 8 * n + 2 * (lane & 3) + (i & 1);
      p[n][i] = score_of(i >> 1, key, first_half[row][key] + second_half[row][key]);
      top[i >> 1] = fmaxf(top[i >> 1], p[n][i]);
    }
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    top[r] = fmaxf(top[r], __shfl_xor_sync(kAllLanes, top[r], 1));
    top[r] = fmaxf(top[r], __shfl_xor_sync(kAllLanes, top[r], 2));
    keep[r] = shift_factor(rows.largest[r], top[r]);
    rows.largest[r] = top[r];
    rows.total[r] *= keep[r];
  }
#pragma unroll
  for (int n = 0; n < 2; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      p[n][i] = shift_factor(p[n][i], top[i >> 1]);
      rows.total[i >> 1] += p[n][i];
    }
  }
}

/// A row's total over the lanes that share it.
__device__ __forceinline__ float whole_total(const RowState& rows, int r) {
  float total = rows.total[r];
  total += __shfl_xor_sync(kAllLanes, total, 1);
  return total + __shfl_xor_sync(kAllLanes, total, 2);
}

/// Earlier sums under new weights.
template <int TILES>
__device__ __forceinline__ void shrink(float (&out)[TILES][2][4], const float (&keep)[2]) {
#pragma unroll
  for (int t = 0; t < TILES; ++t) {
#pragma unroll
    for (int i = 0; i < 8; ++i) out[t][i >> 2][i & 3] *= keep[i >> 1 & 1];
  }
}

/// out += P times the values, the warp's columns. split(a, b, high, low) makes operands of two weights.
template <class Product, int TILES, class Split>
__device__ __forceinline__ void multiply_values(const Planes& values, int stride, const float (&p)[2][4],
                                                int value_dim, int warp, int lane, float (&out)[TILES][2][4],
                                                Split split) {
  unsigned p_high[4], p_low[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float(&half)[4] = p[i >> 1];
    split(half[2 * (i & 1)], half[2 * (i & 1) + 1], p_high[i], p_low[i]);
  }
  const int v_at = (lane & 15) * stride + (lane >> 4) * 8;
#pragma unroll
  for (int tile = 0; tile < TILES; ++tile) {
    const int column = 16 * (kWarps * tile + warp);
    if (column >= value_dim) break;
    unsigned high[4], low[4] = {};
    ldmatrix_x4_transposed(high, values.high + v_at + column);
    if constexpr (Product::kSplit) ldmatrix_x4_transposed(low, values.low + v_at + column);
#pragma unroll
    for (int half = 0; half < 2; ++half)
      multiply<Product>(out[tile][half], p_high, p_low, high + 2 * half, low + 2 * half);
  }
}

/// One of a row's sums, times `factor`, to `to`: the warp's columns below value_dim.
template <int TILES>
__device__ __forceinline__ void store_values(const float (&out)[TILES][2][4], int r, int value_dim, int warp,
                                             int lane, float factor, float* to) {
#pragma unroll
  for (int t = 0; t < TILES; ++t) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int column = 16 * (kWarps * t + warp) + 8 * (i >> 1) + 2 * (lane & 3) + (i & 1);
      if (column < value_dim) to[column] = out[t][i >> 1][2 * r + (i & 1)] * factor;
    }
  }
}

}  // namespace nearmoe::cuda
