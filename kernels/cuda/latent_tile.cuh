// What a block of latent_attention.cu works on: its rows and keys, their places in shared memory, and how
// queries and latents come there.
#pragma once

#include "attention_kernels.h"
#include "shared_rows.cuh"

namespace nearmoe::cuda {

/// Shared memory stays under the 99 KiB of the smallest target. Two groups of rows leave room for the latents
/// of one tile, as two planes of float latents do; otherwise one is on its way while another is worked on.
template <KvKind K, int GROUPS>
struct LatentTiling {
  static constexpr int kThreads = GROUPS * kWarps * 32;
  static constexpr int kBlockRows = GROUPS * kRows;
  static constexpr int kPlanes = K == KvKind::F32 ? 2 : 1;
  static constexpr int kStages = K != KvKind::F32 && GROUPS == 1 ? 2 : 1;
};

/// Halves between rows in shared memory: rows of a fragment lie in different banks.
constexpr int row_stride(uint32_t latent_dim) { return static_cast<int>(padded_latent_dim(latent_dim)) + 8; }

template <KvKind K, int GROUPS>
struct LatentShared {
  using T = LatentTiling<K, GROUPS>;
  int stride;
  Planes q;
  uint16_t* base;  ///< of the latents
  __device__ LatentShared(uint16_t* memory, uint32_t latent_dim)
      : stride(row_stride(latent_dim)),
        q{memory, memory + T::kBlockRows * stride},
        base(memory + 2 * T::kBlockRows * stride) {}
  /// Of a group of rows.
  __device__ Planes queries(int group) const {
    return {q.high + kRows * group * stride, q.low + kRows * group * stride};
  }
  __device__ Planes latents(int stage) const {
    uint16_t* const high = base + stage * kKeys * stride;
    return {high, high + (T::kPlanes - 1) * kKeys * stride};
  }
};

/// The (token, head) pairs of a block, and the keys that it looks at.
struct LatentTile {
  int first_token, count, first_head, heads_of_token;
  int first_position;
  int first_key, end_key;

  __device__ LatentTile(const LatentAttentionArgs& a, int block_rows) {
    const int heads = static_cast<int>(a.num_heads);
    first_token = static_cast<int>(a.tiles    ? a.tiles[blockIdx.x].first_token
                                   : a.tokens ? a.tokens[blockIdx.x]
                                              : blockIdx.x);
    count = a.tiles ? static_cast<int>(a.tiles[blockIdx.x].count) : 1;
    heads_of_token = min(heads, block_rows);
    first_head = static_cast<int>(blockIdx.y) * block_rows;
    first_position = static_cast<int>(a.positions[first_token]);
    const int end = first_position + count, blocks = (end + kBlock - 1) / kBlock;
    const int each = (blocks + static_cast<int>(gridDim.z) - 1) / static_cast<int>(gridDim.z);
    first_key = min(static_cast<int>(blockIdx.z) * each, blocks) * kBlock;
    end_key = min(first_key + each * kBlock, end);
  }
  __device__ int token(int row) const { return row / heads_of_token; }
  __device__ int head(int row) const { return first_head + row % heads_of_token; }
  __device__ bool has(int row, const LatentAttentionArgs& a) const {
    return token(row) < count && head(row) < static_cast<int>(a.num_heads);
  }
  /// Row of q and out.
  __device__ size_t pair(int row, const LatentAttentionArgs& a) const {
    return static_cast<size_t>(first_token + token(row)) * a.num_heads + static_cast<size_t>(head(row));
  }

 private:
  static constexpr int kBlock = static_cast<int>(kKvTokens);
};

/// Two numbers as operands that meet latents of this kind.
template <KvKind K>
__device__ __forceinline__ void split_operands(float x, float y, unsigned& high, unsigned& low) {
  if constexpr (K == KvKind::F16) {
    split_half_pair(x, y, high, low);
  } else {
    split_pair(x, y, high, low);
  }
}

template <KvKind K>
__device__ __forceinline__ void store_split(const Planes& planes, int at, const float (&x)[8]) {
  unsigned high[4], low[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) split_operands<K>(x[2 * i], x[2 * i + 1], high[i], low[i]);
  *reinterpret_cast<uint4*>(planes.high + at) = make_uint4(high[0], high[1], high[2], high[3]);
  *reinterpret_cast<uint4*>(planes.low + at) = make_uint4(low[0], low[1], low[2], low[3]);
}

/// A power of two that brings values of this size to 2^13 and more, within f16, and its inverse.
__device__ __forceinline__ float2 half_range(float largest) {
  const int exponent = min(max(static_cast<int>(__float_as_uint(largest) >> 23 & 0xffu), 14), 254);
  return make_float2(__uint_as_float(static_cast<unsigned>(267 - exponent) << 23),
                     __uint_as_float(static_cast<unsigned>(exponent - 13) << 23));
}

/// Queries into shared memory; `scales`: what a row's scores are to be multiplied with.
template <KvKind K, int GROUPS>
__device__ __forceinline__ void load_queries(const LatentShared<K, GROUPS>& shared,
                                             const LatentAttentionArgs& a, const LatentTile& tile, int warp,
                                             int lane, float* scales) {
  using T = LatentTiling<K, GROUPS>;
  const int dims = static_cast<int>(a.latent_dim), padded = static_cast<int>(padded_latent_dim(a.latent_dim));
  for (int row = warp; row < T::kBlockRows; row += kWarps * GROUPS) {
    const bool present = tile.has(row, a);
    const float* q = a.q + (present ? tile.pair(row, a) : 0) * a.latent_dim;
    float2 range = make_float2(1.0f, 1.0f);
    if constexpr (K == KvKind::F16) {
      float largest = 0.0f;
      for (int d = lane; present && d < dims; d += 32) largest = fmaxf(largest, fabsf(q[d]));
      range = half_range(warp_max(largest));
    }
    for (int d = 8 * lane; d < padded; d += 8 * 32) {
      float x[8];
#pragma unroll
      for (int j = 0; j < 8; ++j) x[j] = present && d + j < dims ? q[d + j] * range.x : 0.0f;
      store_split<K>(shared.q, row * shared.stride + d, x);
    }
    if (lane == 0) scales[row] = a.scale * range.y;
  }
}

/// Latents of positions [first, first + kKeys), on their way; zeros from `end` on, where the pool may hold
/// anything.
template <KvKind K, int GROUPS>
__device__ __forceinline__ void load_latents(const LatentShared<K, GROUPS>& shared, int stage,
                                             const LatentAttentionArgs& a, const uint32_t* table, int first,
                                             int end) {
  constexpr int kBlock = static_cast<int>(kKvTokens);
  const Planes to = shared.latents(stage);
  const int padded = static_cast<int>(padded_latent_dim(a.latent_dim)), pieces = padded / 8;
  for (int i = static_cast<int>(threadIdx.x); i < kKeys * pieces; i += LatentTiling<K, GROUPS>::kThreads) {
    const int row = i / pieces, d = i % pieces * 8, position = first + row, at = row * shared.stride + d;
    const bool present = position < end;
    const size_t slot = present ? static_cast<size_t>(table[position / kBlock]) * kKvTokens +
                                      static_cast<size_t>(position % kBlock)
                                : 0;
    const size_t from = slot * static_cast<size_t>(padded) + static_cast<size_t>(d);
    if constexpr (K == KvKind::F32) {
      float x[8] = {};
      if (present) load_kv<K, 8>(a.kv, from, x);
      store_split<K>(to, at, x);
    } else {
      cp_async16(to.high + at, a.kv + from * sizeof(uint16_t), present);
    }
  }
  cp_async_commit();
}

}  // namespace nearmoe::cuda
