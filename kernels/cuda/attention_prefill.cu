// Causal attention of runs of tokens over the KV pool on tensor cores, with an online softmax
// (FlashAttention-2; Dao 2023, arXiv 2307.08691). The rows of a tile are (token, query head) pairs of one KV
// head, so K and V are read once for all heads that share them. Operands are sums of two bf16 (K and V in
// bf16 need one): the error is that of float32 attention with inputs rounded to 16 bits of mantissa. Needs
// sm_80.
#include "attention_kernels.h"
#include "kv_pool.cuh"
#include "rt/mma.h"

namespace nearmoe::cuda {
namespace {

/// Tile sizes by head dim: shared memory stays under the 99 KiB of the smallest target.
template <int D>
struct Tiling {
  static constexpr int kWarps = D == 256 ? 2 : 4;
  static constexpr int kRows = 16 * kWarps;
  static constexpr int kKeys = D == 256 ? 16 : 32;
  static constexpr int kStride = D + 8;  // halves; rows of a fragment lie in different banks
};

template <int D, KvKind K>
constexpr int kParts = K == KvKind::BF16 ? 1 : 2;

template <int D, KvKind K>
constexpr size_t kSharedBytes =
    size_t{2} * Tiling<D>::kStride * (2 * Tiling<D>::kRows + 2 * kParts<D, K> * Tiling<D>::kKeys);

/// Rows of a warp: two per lane, g and g + 8.
struct RowState {
  float largest[2], total[2];
  int position[2];  // -1: no such row
  int first[2];     // key that it sees
};

/// Converts 8 values and stores them at `column` of a row in one or two planes.
template <int PARTS>
__device__ __forceinline__ void store_split(uint16_t* high, uint16_t* low, const float (&x)[8]) {
  unsigned h[4], l[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) split_pair(x[2 * i], x[2 * i + 1], h[i], l[i]);
  *reinterpret_cast<uint4*>(high) = make_uint4(h[0], h[1], h[2], h[3]);
  if constexpr (PARTS == 2) *reinterpret_cast<uint4*>(low) = make_uint4(l[0], l[1], l[2], l[3]);
}

template <int D, KvKind K>
struct Shared {
  static constexpr int kStride = Tiling<D>::kStride;
  uint16_t* q[2];
  uint16_t* k[2];
  uint16_t* v[2];
  __device__ explicit Shared(uint16_t* base) {
    constexpr int kQ = Tiling<D>::kRows * kStride, kKv = Tiling<D>::kKeys * kStride, kLow = kParts<D, K> - 1;
    q[0] = base;
    q[1] = base + kQ;
    k[0] = base + 2 * kQ;
    k[1] = k[0] + kLow * kKv;
    v[0] = k[1] + kKv;
    v[1] = v[0] + kLow * kKv;
  }
};

template <int D, KvKind K>
__device__ __forceinline__ void load_queries(const Shared<D, K>& shared, const AttentionArgs& a,
                                             const PrefillTile& tile, int kv_head, int group) {
  using T = Tiling<D>;
  for (int i = static_cast<int>(threadIdx.x); i < T::kRows * D / 8; i += T::kWarps * 32) {
    const int row = i / (D / 8), d = i % (D / 8) * 8;
    const int token = row / group, head = kv_head * group + row % group;
    float x[8] = {};
    if (token < static_cast<int>(tile.count)) {
      const float* q = a.q +
                       static_cast<size_t>(tile.first_token + static_cast<uint32_t>(token)) * a.q_stride +
                       static_cast<size_t>(head) * a.head_dim;
#pragma unroll
      for (int j = 0; j < 8; ++j) x[j] = d + j < static_cast<int>(a.head_dim) ? q[d + j] : 0.0f;
    }
    store_split<2>(shared.q[0] + row * T::kStride + d, shared.q[1] + row * T::kStride + d, x);
  }
}

/// K and V of positions [first, first + kKeys); zeros from `end` on, where the pool may hold anything.
template <int D, KvKind K>
__device__ __forceinline__ void load_keys_values(const Shared<D, K>& shared, const AttentionArgs& a,
                                                 const uint32_t* table, int kv_head, int first, int end) {
  using T = Tiling<D>;
  const size_t block_bytes = 2 * kKvTokens * D * kKvBytes<K>;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < T::kKeys * D / 8; i += T::kWarps * 32) {
    const int row = i / (D / 8), d = i % (D / 8) * 8, position = first + row;
    float k[8] = {}, v[8] = {};
    if (position < end) {
      const uint8_t* block =
          a.kv + (static_cast<size_t>(table[position / static_cast<int>(kKvTokens)]) * a.num_kv_heads +
                  static_cast<size_t>(kv_head)) *
                     block_bytes;
      const size_t at = static_cast<size_t>(position % static_cast<int>(kKvTokens) * D + d);
      load_kv<K, 8>(block, at, k);
      load_kv<K, 8>(block + block_bytes / 2, at, v);
    }
    store_split<kParts<D, K>>(shared.k[0] + row * T::kStride + d, shared.k[1] + row * T::kStride + d, k);
    store_split<kParts<D, K>>(shared.v[0] + row * T::kStride + d, shared.v[1] + row * T::kStride + d, v);
  }
}

/// s = Q K^T of the warp's 16 rows and the tile's keys.
template <int D, KvKind K>
__device__ __forceinline__ void multiply_keys(const Shared<D, K>& shared,
                                              float (&s)[Tiling<D>::kKeys / 8][4]) {
  using T = Tiling<D>;
  const int warp = static_cast<int>(threadIdx.x >> 5), lane = static_cast<int>(threadIdx.x & 31);
  const int q_at = (16 * warp + (lane & 15)) * T::kStride + (lane >> 4) * 8;
  const int k_at = ((lane & 7) + (lane >> 4) * 8) * T::kStride + (lane >> 3 & 1) * 8;
#pragma unroll 2
  for (int d = 0; d < D; d += 16) {
    unsigned q_high[4], q_low[4];
    ldmatrix_x4(q_high, shared.q[0] + q_at + d);
    ldmatrix_x4(q_low, shared.q[1] + q_at + d);
#pragma unroll
    for (int n = 0; n < T::kKeys; n += 16) {
      unsigned high[4], low[4] = {};
      ldmatrix_x4(high, shared.k[0] + k_at + n * T::kStride + d);
      if constexpr (kParts<D, K> == 2) ldmatrix_x4(low, shared.k[1] + k_at + n * T::kStride + d);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const unsigned b_high[2] = {high[2 * half], high[2 * half + 1]},
                       b_low[2] = {low[2 * half], low[2 * half + 1]};
        float(&out)[4] = s[n / 8 + half];
        mma_bf16(out, q_low, b_high);
        if constexpr (kParts<D, K> == 2) mma_bf16(out, q_high, b_low);
        mma_bf16(out, q_high, b_high);
      }
    }
  }
}

/// Scales, caps and masks the scores, turns them into weights, and brings the rows' state and `out` up to
/// date.
template <int D>
__device__ __forceinline__ void soft_max(const AttentionArgs& a, int first, RowState& rows,
                                         float (&s)[Tiling<D>::kKeys / 8][4], float (&out)[D / 8][4]) {
  constexpr int kTiles = Tiling<D>::kKeys / 8;
  const int t = static_cast<int>(threadIdx.x & 3);
  float top[2] = {rows.largest[0], rows.largest[1]};
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int key = first + 8 * n + 2 * t + (i & 1);
      float x = s[n][i] * a.scale;
      if (a.softcap > 0.0f) x = a.softcap * tanhf(x / a.softcap);
      const bool visible = key <= rows.position[i >> 1] && key >= rows.first[i >> 1];
      s[n][i] = visible ? x : -INFINITY;
      top[i >> 1] = fmaxf(top[i >> 1], s[n][i]);
    }
  }
  float keep[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    top[r] = fmaxf(top[r], __shfl_xor_sync(kAllLanes, top[r], 1));
    top[r] = fmaxf(top[r], __shfl_xor_sync(kAllLanes, top[r], 2));
    keep[r] = rows.largest[r] == -INFINITY ? 0.0f : expf(rows.largest[r] - top[r]);
    rows.largest[r] = top[r];
    rows.total[r] *= keep[r];
  }
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      s[n][i] = s[n][i] == -INFINITY ? 0.0f : expf(s[n][i] - top[i >> 1]);
      rows.total[i >> 1] += s[n][i];  // of this lane's keys; the lanes are added at the end
    }
  }
#pragma unroll
  for (int n = 0; n < D / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) out[n][i] *= keep[i >> 1];
  }
}

/// out += P V.
template <int D, KvKind K>
__device__ __forceinline__ void multiply_values(const Shared<D, K>& shared,
                                                const float (&p)[Tiling<D>::kKeys / 8][4],
                                                float (&out)[D / 8][4]) {
  using T = Tiling<D>;
  const int lane = static_cast<int>(threadIdx.x & 31);
  const int v_at = (lane & 15) * T::kStride + (lane >> 4) * 8;
#pragma unroll
  for (int k = 0; k < T::kKeys; k += 16) {
    unsigned p_high[4], p_low[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float(&tile)[4] = p[k / 8 + (i >> 1)];
      split_pair(tile[2 * (i & 1)], tile[2 * (i & 1) + 1], p_high[i], p_low[i]);
    }
#pragma unroll
    for (int d = 0; d < D; d += 16) {
      unsigned high[4], low[4] = {};
      ldmatrix_x4_transposed(high, shared.v[0] + v_at + k * T::kStride + d);
      if constexpr (kParts<D, K> == 2) ldmatrix_x4_transposed(low, shared.v[1] + v_at + k * T::kStride + d);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const unsigned b_high[2] = {high[2 * half], high[2 * half + 1]},
                       b_low[2] = {low[2 * half], low[2 * half + 1]};
        mma_bf16(out[d / 8 + half], p_low, b_high);
        if constexpr (kParts<D, K> == 2) mma_bf16(out[d / 8 + half], p_high, b_low);
        mma_bf16(out[d / 8 + half], p_high, b_high);
      }
    }
  }
}

template <int D, KvKind K>
__global__ void __launch_bounds__(Tiling<D>::kWarps * 32)
    attention_prefill_kernel(AttentionPrefillArgs args) {
  using T = Tiling<D>;
  GPU_DYN_SHARED(uint16_t, memory);
  const Shared<D, K> shared(memory);
  const AttentionArgs& a = args.attention;
  const PrefillTile tile = args.tiles[blockIdx.x];
  const int kv_head = static_cast<int>(blockIdx.y), group = static_cast<int>(a.num_heads / a.num_kv_heads);
  const int warp = static_cast<int>(threadIdx.x >> 5), lane = static_cast<int>(threadIdx.x & 31);
  const uint32_t* table = a.block_table + a.block_offsets[tile.first_token];
  const int first_position = static_cast<int>(a.positions[tile.first_token]);
  const int end = first_position + static_cast<int>(tile.count);
  load_queries<D, K>(shared, a, tile, kv_head, group);
  RowState rows;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = 16 * warp + (lane >> 2) + 8 * r;
    rows.position[r] = row / group < static_cast<int>(tile.count) ? first_position + row / group : -1;
    rows.first[r] = first_seen(a, rows.position[r]);
    rows.largest[r] = -INFINITY;
    rows.total[r] = 0.0f;
  }
  float out[D / 8][4] = {};
  const int begin = first_seen(a, first_position) / T::kKeys * T::kKeys;
  for (int first = begin; first < end; first += T::kKeys) {
    __syncthreads();  // the tile before is done with; at first: queries are there
    load_keys_values<D, K>(shared, a, table, kv_head, first, end);
    __syncthreads();
    float s[T::kKeys / 8][4] = {};
    multiply_keys<D, K>(shared, s);
    soft_max<D>(a, first, rows, s, out);
    multiply_values<D, K>(shared, s, out);
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float total = rows.total[r];
    total += __shfl_xor_sync(kAllLanes, total, 1);
    total += __shfl_xor_sync(kAllLanes, total, 2);
    if (rows.position[r] < 0) continue;
    const int row = 16 * warp + (lane >> 2) + 8 * r, head = kv_head * group + row % group;
    float factor = 1.0f;
    if (a.sinks) {
      const float top = fmaxf(rows.largest[r], a.sinks[head]);
      factor = expf(rows.largest[r] - top);
      total = total * factor + expf(a.sinks[head] - top);
    }
    float* o = a.out +
               static_cast<size_t>(tile.first_token + static_cast<uint32_t>(row / group)) * a.out_stride +
               static_cast<size_t>(head) * a.head_dim;
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int d = 8 * n + 2 * (lane & 3) + i;
        if (d < static_cast<int>(a.head_dim)) o[d] = out[n][2 * r + i] * factor / total;
      }
    }
  }
}

}  // namespace

cudaError_t attention_prefill(const AttentionPrefillArgs& args, cudaStream_t stream) {
  if (args.attention.padded_head_dim > 256) return attention_wide(args, stream);
  const dim3 grid(args.num_tiles, args.attention.num_kv_heads);
  return with_head_dim<256>(args.attention.padded_head_dim, [&]<int D>() {
    return with_kv_kind(args.attention.kv_dtype, [&]<KvKind K>() {
      return gpu_launch("attention_prefill", attention_prefill_kernel<D, K>, grid,
                        dim3(Tiling<D>::kWarps * 32), kSharedBytes<D, K>, stream, args);
    });
  });
}

uint32_t prefill_tile_tokens(uint32_t heads_per_kv, uint32_t padded) {
  if (padded > 256) return wide_tile_tokens(heads_per_kv);
  const uint32_t rows = padded == 256 ? Tiling<256>::kRows : Tiling<64>::kRows;
  return rows / heads_per_kv;
}

}  // namespace nearmoe::cuda
