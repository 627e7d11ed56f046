// Attention over latents on tensor cores, for single tokens (the sequence cut into parts that run side by
// side) and for runs of tokens alike. All heads share the latents, so the rows of a tile are (token, head)
// pairs: 16 of them, and each latent is loaded once for all 16. It is the key, and its first part the value.
// Two warps halve the dimensions of the scores for each half of the keys; then every warp turns all scores
// into weights for itself and has its own columns of the values. Operands are sums of two bf16 as in
// attention_prefill.cu. Needs sm_80.
#include "attention_kernels.h"
#include "kv_pool.cuh"
#include "reduce.cuh"
#include "rt/mma.h"

namespace nearmoe::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kRows = 16;
constexpr int kKeys = 16;
/// Tiles of 16 value columns that one warp has at most.
constexpr int kValueTiles = static_cast<int>(kMaxLatentValueDim) / 16 / kWarps;

template <KvKind K>
constexpr int kParts = K == KvKind::BF16 ? 1 : 2;

/// Halves between rows in shared memory: rows of a fragment lie in different banks.
constexpr int row_stride(uint32_t latent_dim) { return static_cast<int>(padded_latent_dim(latent_dim)) + 8; }

template <KvKind K>
size_t shared_bytes(uint32_t latent_dim) {
  return sizeof(uint16_t) * static_cast<size_t>(row_stride(latent_dim)) * (2 * kRows + kParts<K> * kKeys);
}

template <KvKind K>
struct Shared {
  int stride;
  uint16_t *q[2], *latents[2];
  __device__ Shared(uint16_t* base, uint32_t latent_dim) : stride(row_stride(latent_dim)) {
    q[0] = base;
    q[1] = base + kRows * stride;
    latents[0] = base + 2 * kRows * stride;
    latents[1] = latents[0] + (kParts<K> - 1) * kKeys * stride;
  }
};

/// The (token, head) pairs of a block, and the keys that it looks at.
struct Tile {
  int first_token, count, first_head, heads_of_token;
  int first_position;
  int first_key, end_key;

  __device__ Tile(const LatentAttentionArgs& a) {
    const int heads = static_cast<int>(a.num_heads);
    first_token = static_cast<int>(a.tiles    ? a.tiles[blockIdx.x].first_token
                                   : a.tokens ? a.tokens[blockIdx.x]
                                              : blockIdx.x);
    count = a.tiles ? static_cast<int>(a.tiles[blockIdx.x].count) : 1;
    heads_of_token = min(heads, kRows);
    first_head = static_cast<int>(blockIdx.y) * kRows;
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

template <int PARTS>
__device__ __forceinline__ void store_split(uint16_t* const (&planes)[2], int at, const float (&x)[8]) {
  unsigned high[4], low[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) split_pair(x[2 * i], x[2 * i + 1], high[i], low[i]);
  *reinterpret_cast<uint4*>(planes[0] + at) = make_uint4(high[0], high[1], high[2], high[3]);
  if constexpr (PARTS == 2)
    *reinterpret_cast<uint4*>(planes[1] + at) = make_uint4(low[0], low[1], low[2], low[3]);
}

template <KvKind K>
__device__ __forceinline__ void load_queries(const Shared<K>& shared, const LatentAttentionArgs& a,
                                             const Tile& tile) {
  const int pieces = static_cast<int>(padded_latent_dim(a.latent_dim)) / 8;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * pieces; i += kWarps * 32) {
    const int row = i / pieces, d = i % pieces * 8;
    float x[8] = {};
    if (tile.has(row, a)) {
      const float* q = a.q + tile.pair(row, a) * a.latent_dim;
#pragma unroll
      for (int j = 0; j < 8; ++j) x[j] = d + j < static_cast<int>(a.latent_dim) ? q[d + j] : 0.0f;
    }
    store_split<2>(shared.q, row * shared.stride + d, x);
  }
}

/// Latents of positions [first, first + kKeys); zeros from `end` on, where the pool may hold anything.
template <KvKind K>
__device__ __forceinline__ void load_latents(const Shared<K>& shared, const LatentAttentionArgs& a,
                                             const uint32_t* table, int first, int end) {
  constexpr int kBlock = static_cast<int>(kKvTokens);
  const int padded = static_cast<int>(padded_latent_dim(a.latent_dim)), pieces = padded / 8;
  for (int i = static_cast<int>(threadIdx.x); i < kKeys * pieces; i += kWarps * 32) {
    const int row = i / pieces, d = i % pieces * 8, position = first + row;
    float x[8] = {};
    if (position < end) {
      const size_t slot =
          static_cast<size_t>(table[position / kBlock]) * kKvTokens + static_cast<size_t>(position % kBlock);
      load_kv<K, 8>(a.kv, slot * static_cast<size_t>(padded) + static_cast<size_t>(d), x);
    }
    store_split<kParts<K>>(shared.latents, row * shared.stride + d, x);
  }
}

/// One product of the operands' parts, small terms first.
template <KvKind K>
__device__ __forceinline__ void multiply(float (&out)[4], const unsigned (&a_high)[4],
                                         const unsigned (&a_low)[4], const unsigned* high,
                                         const unsigned* low) {
  const unsigned b_high[2] = {high[0], high[1]}, b_low[2] = {low[0], low[1]};
  mma_bf16(out, a_low, b_high);
  if constexpr (kParts<K> == 2) mma_bf16(out, a_high, b_low);
  mma_bf16(out, a_high, b_high);
}

/// The warp's part of the scores, Q times 8 latents over every second 32 dimensions, into `scores`.
template <KvKind K>
__device__ __forceinline__ void multiply_keys(const Shared<K>& shared, int padded, int warp, int lane,
                                              float (*scores)[kKeys + 2]) {
  const int keys = 8 * (warp & 1), part = warp >> 1;
  const int q_at = (lane & 15) * shared.stride + (lane >> 4) * 8;
  const int k_at = (keys + (lane & 7)) * shared.stride + (lane >> 3) * 8;
  float s[4] = {};
#pragma unroll 2
  for (int d = 32 * part; d < padded; d += 64) {
    unsigned high[4], low[4] = {};
    ldmatrix_x4(high, shared.latents[0] + k_at + d);
    if constexpr (kParts<K> == 2) ldmatrix_x4(low, shared.latents[1] + k_at + d);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      unsigned q_high[4], q_low[4];
      ldmatrix_x4(q_high, shared.q[0] + q_at + d + 16 * half);
      ldmatrix_x4(q_low, shared.q[1] + q_at + d + 16 * half);
      multiply<K>(s, q_high, q_low, high + 2 * half, low + 2 * half);
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) scores[(lane >> 2) + 8 * (i >> 1)][keys + 2 * (lane & 3) + (i & 1)] = s[i];
}

/// What a warp knows of its lanes' rows, g and g + 8; `total` has this lane's keys only.
struct RowState {
  float largest[2], total[2];
  int position[2];  ///< -1: no such row
};

/// Scores of the tile's keys -> weights p, and by how much earlier sums shrink.
__device__ __forceinline__ void soft_max(const float (&scores)[2][kRows][kKeys + 2], float scale, int first,
                                         int lane, RowState& rows, float (&p)[2][4], float (&keep)[2]) {
  float top[2] = {rows.largest[0], rows.largest[1]};
#pragma unroll
  for (int n = 0; n < 2; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = (lane >> 2) + 8 * (i >> 1), key = 8 * n + 2 * (lane & 3) + (i & 1);
      const bool visible = first + key <= rows.position[i >> 1];
      p[n][i] = visible ? (scores[0][row][key] + scores[1][row][key]) * scale : -INFINITY;
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

/// out += P times the value part of the latents, the warp's columns.
template <KvKind K>
__device__ __forceinline__ void multiply_values(const Shared<K>& shared, const float (&p)[2][4],
                                                int value_dim, int warp, int lane,
                                                float (&out)[kValueTiles][2][4]) {
  unsigned p_high[4], p_low[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float(&half)[4] = p[i >> 1];
    split_pair(half[2 * (i & 1)], half[2 * (i & 1) + 1], p_high[i], p_low[i]);
  }
  const int v_at = (lane & 15) * shared.stride + (lane >> 4) * 8;
#pragma unroll
  for (int tile = 0; tile < kValueTiles; ++tile) {
    const int column = 16 * (kWarps * tile + warp);
    if (column >= value_dim) break;
    unsigned high[4], low[4] = {};
    ldmatrix_x4_transposed(high, shared.latents[0] + v_at + column);
    if constexpr (kParts<K> == 2) ldmatrix_x4_transposed(low, shared.latents[1] + v_at + column);
#pragma unroll
    for (int half = 0; half < 2; ++half)
      multiply<K>(out[tile][half], p_high, p_low, high + 2 * half, low + 2 * half);
  }
}

/// Where the results of a row go: the output, or its part in the workspace with largest score and total
/// behind it.
__device__ __forceinline__ void store_row(const LatentAttentionArgs& a, const Tile& tile, int row, int r,
                                          int warp, int lane, float largest, float total,
                                          const float (&out)[kValueTiles][2][4]) {
  const int value_dim = static_cast<int>(a.value_dim);
  const bool whole = gridDim.z == 1;
  const size_t part =
      (static_cast<size_t>(blockIdx.x) * a.num_heads + static_cast<size_t>(tile.head(row))) * gridDim.z +
      blockIdx.z;
  float* to =
      whole ? a.out + tile.pair(row, a) * a.value_dim : a.partial + part * static_cast<size_t>(value_dim + 2);
  const float factor = whole ? 1.0f / total : 1.0f;
#pragma unroll
  for (int t = 0; t < kValueTiles; ++t) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int column = 16 * (kWarps * t + warp) + 8 * (i >> 1) + 2 * (lane & 3) + (i & 1);
      if (column < value_dim) to[column] = out[t][i >> 1][2 * r + (i & 1)] * factor;
    }
  }
  if (whole || warp != 0 || (lane & 3) != 0) return;
  to[value_dim] = largest;
  to[value_dim + 1] = total;
}

template <KvKind K>
__global__ void __launch_bounds__(kWarps * 32) latent_attention_kernel(LatentAttentionArgs a) {
  if (lacks_mma_bf16()) return;
  GPU_DYN_SHARED(uint16_t, memory);
  GPU_SHARED(float, scores, [2][kRows][kKeys + 2]);
  const Shared<K> shared(memory, a.latent_dim);
  const Tile tile(a);
  const uint32_t* table = a.block_table + a.block_offsets[tile.first_token];
  const int warp = static_cast<int>(threadIdx.x >> 5), lane = static_cast<int>(threadIdx.x & 31);
  RowState rows;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = (lane >> 2) + 8 * r;
    rows.position[r] = tile.has(row, a) ? tile.first_position + tile.token(row) : -1;
    rows.largest[r] = -INFINITY;
    rows.total[r] = 0.0f;
  }
  float out[kValueTiles][2][4] = {};
  load_queries(shared, a, tile);
  for (int first = tile.first_key; first < tile.end_key; first += kKeys) {
    __syncthreads();  // the tile before is done with; at first: queries are there
    load_latents(shared, a, table, first, tile.end_key);
    __syncthreads();
    multiply_keys(shared, static_cast<int>(padded_latent_dim(a.latent_dim)), warp, lane, scores[warp >> 1]);
    __syncthreads();
    float p[2][4], keep[2];
    soft_max(scores, a.scale, first, lane, rows, p, keep);
#pragma unroll
    for (int t = 0; t < kValueTiles; ++t) {
#pragma unroll
      for (int i = 0; i < 8; ++i) out[t][i >> 2][i & 3] *= keep[i >> 1 & 1];
    }
    multiply_values(shared, p, static_cast<int>(a.value_dim), warp, lane, out);
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float total = rows.total[r];
    total += __shfl_xor_sync(kAllLanes, total, 1);
    total += __shfl_xor_sync(kAllLanes, total, 2);
    const int row = (lane >> 2) + 8 * r;
    if (rows.position[r] >= 0) store_row(a, tile, row, r, warp, lane, rows.largest[r], total, out);
  }
}

constexpr uint32_t kMergeThreads = 128;

/// Merges the parts of one head.
__global__ void __launch_bounds__(kMergeThreads) latent_merge_kernel(LatentAttentionArgs a) {
  const uint32_t head = blockIdx.y, token = a.tokens ? a.tokens[blockIdx.x] : blockIdx.x;
  const size_t size = a.value_dim + 2;
  const float* parts =
      a.partial + (static_cast<size_t>(blockIdx.x) * a.num_heads + head) * a.num_splits * size;
  float top = -INFINITY, total = 0.0f;
  for (uint32_t s = 0; s < a.num_splits; ++s) top = fmaxf(top, parts[s * size + a.value_dim]);
  for (uint32_t s = 0; s < a.num_splits; ++s)
    total += parts[s * size + a.value_dim + 1] * shift_factor(parts[s * size + a.value_dim], top);
  float* out = a.out + (static_cast<size_t>(token) * a.num_heads + head) * a.value_dim;
  for (uint32_t d = threadIdx.x; d < a.value_dim; d += kMergeThreads) {
    float sum = 0.0f;
    for (uint32_t s = 0; s < a.num_splits; ++s)
      sum += parts[s * size + d] * shift_factor(parts[s * size + a.value_dim], top);
    out[d] = sum / total;
  }
}

}  // namespace

cudaError_t latent_attention(const LatentAttentionArgs& args, cudaStream_t stream) {
  if (args.latent_dim > kMaxLatentDim || args.value_dim > kMaxLatentValueDim ||
      args.value_dim > args.latent_dim || args.num_splits == 0 || (args.tiles && args.num_splits > 1))
    return cudaErrorInvalidValue;
  const dim3 grid(args.num_tiles, latent_head_blocks(args.num_heads), args.num_splits);
  const cudaError_t error = with_kv_kind(args.kv_dtype, [&]<KvKind K>() {
    return gpu_launch("latent_attention", latent_attention_kernel<K>, grid, dim3(kWarps * 32),
                      shared_bytes<K>(args.latent_dim), stream, args);
  });
  if (error != cudaSuccess || args.num_splits == 1) return error;
  return gpu_launch("latent_merge", latent_merge_kernel, dim3(args.num_tiles, args.num_heads),
                    dim3(kMergeThreads), 0, stream, args);
}

size_t latent_attention_workspace(uint32_t num_tokens, uint32_t num_heads, uint32_t value_dim,
                                  uint32_t num_splits) {
  return static_cast<size_t>(num_tokens) * num_heads * num_splits * (value_dim + 2);
}

uint32_t latent_tile_tokens(uint32_t num_heads) {
  return num_heads < static_cast<uint32_t>(kRows) ? static_cast<uint32_t>(kRows) / num_heads : 1;
}

uint32_t latent_head_blocks(uint32_t num_heads) {
  return (num_heads + static_cast<uint32_t>(kRows) - 1) / static_cast<uint32_t>(kRows);
}

}  // namespace nearmoe::cuda
