// Causal attention of runs of tokens whose heads have 257 to 512 values (Gemma 4's full-attention layers):
// too wide for the output tiles of attention_prefill.cu, so four warps share 16 (token, query head) pairs of
// one KV head. Two of them halve the dimensions of the scores for each half of the keys; then every warp
// turns all scores into weights for itself and has its own columns of the values. Keys and then values of 16
// positions pass through the same shared memory. Operands as in attention_prefill.cu. Needs sm_80.
#include "attention_kernels.h"
#include "kv_pool.cuh"
#include "reduce.cuh"
#include "rt/mma.h"

namespace nearmoe::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kRows = 16;
constexpr int kKeys = 16;
constexpr int kWidth = 512;          // of a padded head
constexpr int kStride = kWidth + 8;  // halves; rows of a fragment lie in different banks
/// Tiles of 16 value columns that one warp has.
constexpr int kValueTiles = kWidth / 16 / kWarps;

template <KvKind K>
constexpr int kParts = K == KvKind::BF16 ? 1 : 2;

/// Queries, and keys or values in their place.
template <KvKind K>
constexpr size_t kSharedBytes = sizeof(uint16_t) * kStride * (2 * kRows + kParts<K> * kKeys);

template <KvKind K>
struct Shared {
  uint16_t *q[2], *keys[2];
  __device__ explicit Shared(uint16_t* base) {
    q[0] = base;
    q[1] = base + kRows * kStride;
    keys[0] = base + 2 * kRows * kStride;
    keys[1] = keys[0] + (kParts<K> - 1) * kKeys * kStride;
  }
};

using Scores = float[2][kRows][kKeys + 2];

template <int PARTS>
__device__ __forceinline__ void store_split(uint16_t* const (&planes)[2], int at, const float (&x)[8]) {
  unsigned high[4], low[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) split_pair(x[2 * i], x[2 * i + 1], high[i], low[i]);
  *reinterpret_cast<uint4*>(planes[0] + at) = make_uint4(high[0], high[1], high[2], high[3]);
  if constexpr (PARTS == 2)
    *reinterpret_cast<uint4*>(planes[1] + at) = make_uint4(low[0], low[1], low[2], low[3]);
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

/// The warp's part of the scores, Q times 8 keys over every second 32 dimensions, into `scores`.
template <KvKind K>
__device__ __forceinline__ void multiply_keys(const Shared<K>& shared, int warp, int lane,
                                              float (*scores)[kKeys + 2]) {
  const int keys = 8 * (warp & 1), part = warp >> 1;
  const int q_at = (lane & 15) * kStride + (lane >> 4) * 8;
  const int k_at = (keys + (lane & 7)) * kStride + (lane >> 3) * 8;
  float s[4] = {};
#pragma unroll 2
  for (int d = 32 * part; d < kWidth; d += 64) {
    unsigned high[4], low[4] = {};
    ldmatrix_x4(high, shared.keys[0] + k_at + d);
    if constexpr (kParts<K> == 2) ldmatrix_x4(low, shared.keys[1] + k_at + d);
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

/// Scores of the tile's keys -> weights p, and by how much earlier sums shrink. score_of(r, key, product) is
/// the score of the lane's row r, -inf where it does not see the key.
template <class ScoreOf>
__device__ __forceinline__ void soft_max(const Scores& scores, int lane, RowState& rows, float (&p)[2][4],
                                         float (&keep)[2], ScoreOf score_of) {
  float top[2] = {rows.largest[0], rows.largest[1]};
#pragma unroll
  for (int n = 0; n < 2; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = (lane >> 2) + 8 * (i >> 1), key = 8 * n + 2 * (lane & 3) + (i & 1);
      p[n][i] = score_of(i >> 1, key, scores[0][row][key] + scores[1][row][key]);
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

/// out += P times the values that lie in the keys' place, the warp's columns.
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
  const int v_at = (lane & 15) * kStride + (lane >> 4) * 8;
#pragma unroll
  for (int tile = 0; tile < kValueTiles; ++tile) {
    const int column = 16 * (kWarps * tile + warp);
    if (column >= value_dim) break;
    unsigned high[4], low[4] = {};
    ldmatrix_x4_transposed(high, shared.keys[0] + v_at + column);
    if constexpr (kParts<K> == 2) ldmatrix_x4_transposed(low, shared.keys[1] + v_at + column);
#pragma unroll
    for (int half = 0; half < 2; ++half)
      multiply<K>(out[tile][half], p_high, p_low, high + 2 * half, low + 2 * half);
  }
}

/// Earlier sums under new weights.
__device__ __forceinline__ void shrink(float (&out)[kValueTiles][2][4], const float (&keep)[2]) {
#pragma unroll
  for (int t = 0; t < kValueTiles; ++t) {
#pragma unroll
    for (int i = 0; i < 8; ++i) out[t][i >> 2][i & 3] *= keep[i >> 1 & 1];
  }
}

/// The pairs of a block: rows are (token, head), 16 heads of a token where a KV head has more.
struct Tile {
  int first_token, count, kv_head, first_head, heads_of_token, end_head;
  int first_position, end;

  __device__ Tile(const AttentionPrefillArgs& args) {
    const AttentionArgs& a = args.attention;
    const int group = static_cast<int>(a.num_heads / a.num_kv_heads);
    first_token = static_cast<int>(args.tiles[blockIdx.x].first_token);
    count = static_cast<int>(args.tiles[blockIdx.x].count);
    kv_head = static_cast<int>(blockIdx.y);
    heads_of_token = min(group, kRows);
    first_head = kv_head * group + static_cast<int>(blockIdx.z) * kRows;
    end_head = (kv_head + 1) * group;
    first_position = static_cast<int>(a.positions[first_token]);
    end = first_position + count;
  }
  __device__ int token(int row) const { return row / heads_of_token; }
  __device__ int head(int row) const { return first_head + row % heads_of_token; }
  __device__ bool has(int row) const { return token(row) < count && head(row) < end_head; }
  /// Where the pair's values begin in rows of `stride`.
  __device__ size_t at(int row, uint32_t stride, uint32_t head_dim) const {
    return static_cast<size_t>(first_token + token(row)) * stride + static_cast<size_t>(head(row)) * head_dim;
  }
};

template <KvKind K>
__device__ __forceinline__ void load_queries(const Shared<K>& shared, const AttentionArgs& a,
                                             const Tile& tile) {
  constexpr int kPieces = kWidth / 8;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kPieces; i += kWarps * 32) {
    const int row = i / kPieces, d = i % kPieces * 8;
    float x[8] = {};
    if (tile.has(row)) {
      const float* q = a.q + tile.at(row, a.q_stride, a.head_dim);
#pragma unroll
      for (int j = 0; j < 8; ++j) x[j] = d + j < static_cast<int>(a.head_dim) ? q[d + j] : 0.0f;
    }
    store_split<2>(shared.q, row * kStride + d, x);
  }
}

/// Keys, or values, of positions [first, first + kKeys); zeros from `end` on, where the pool may hold
/// anything.
template <KvKind K>
__device__ __forceinline__ void load_rows(const Shared<K>& shared, const AttentionArgs& a, const Tile& tile,
                                          const uint32_t* table, int first, bool values) {
  constexpr int kPieces = kWidth / 8, kBlock = static_cast<int>(kKvTokens);
  constexpr size_t kBlockBytes = 2 * kKvTokens * static_cast<size_t>(kWidth) * kKvBytes<K>;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < kKeys * kPieces; i += kWarps * 32) {
    const int row = i / kPieces, d = i % kPieces * 8, position = first + row;
    float x[8] = {};
    if (position < tile.end) {
      const uint8_t* block = a.kv + (static_cast<size_t>(table[position / kBlock]) * a.num_kv_heads +
                                     static_cast<size_t>(tile.kv_head)) *
                                        kBlockBytes;
      if (values) block += kBlockBytes / 2;
      load_kv<K, 8>(block, static_cast<size_t>(position % kBlock * kWidth + d), x);
    }
    store_split<kParts<K>>(shared.keys, row * kStride + d, x);
  }
}

template <KvKind K>
__global__ void __launch_bounds__(kWarps * 32) attention_wide_kernel(AttentionPrefillArgs args) {
  if (lacks_mma_bf16()) return;
  GPU_DYN_SHARED(uint16_t, memory);
  GPU_SHARED(Scores, scores, );
  const Shared<K> shared(memory);
  const AttentionArgs& a = args.attention;
  const Tile tile(args);
  const uint32_t* table = a.block_table + a.block_offsets[tile.first_token];
  const int warp = static_cast<int>(threadIdx.x >> 5), lane = static_cast<int>(threadIdx.x & 31);
  const int head_dim = static_cast<int>(a.head_dim);
  RowState rows;
  int seen[2];  // first key that a row sees
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = (lane >> 2) + 8 * r;
    rows.position[r] = tile.has(row) ? tile.first_position + tile.token(row) : -1;
    rows.largest[r] = -INFINITY;
    rows.total[r] = 0.0f;
    seen[r] = first_seen(a, rows.position[r]);
  }
  float out[kValueTiles][2][4] = {};
  load_queries(shared, a, tile);
  for (int first = first_seen(a, tile.first_position) / kKeys * kKeys; first < tile.end; first += kKeys) {
    __syncthreads();  // the values before are done with; at first: queries are there
    load_rows(shared, a, tile, table, first, false);
    __syncthreads();
    multiply_keys(shared, warp, lane, scores[warp >> 1]);
    __syncthreads();
    load_rows(shared, a, tile, table, first, true);
    float p[2][4], keep[2];
    soft_max(scores, lane, rows, p, keep, [&](int r, int key, float product) {
      float score = product * a.scale;
      if (a.softcap > 0.0f) score = a.softcap * tanhf(score / a.softcap);
      return first + key <= rows.position[r] && first + key >= seen[r] ? score : -INFINITY;
    });
    shrink(out, keep);
    __syncthreads();
    multiply_values(shared, p, head_dim, warp, lane, out);
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float total = rows.total[r];
    total += __shfl_xor_sync(kAllLanes, total, 1);
    total += __shfl_xor_sync(kAllLanes, total, 2);
    if (rows.position[r] < 0) continue;
    const int row = (lane >> 2) + 8 * r;
    float factor = 1.0f;
    if (a.sinks) {
      const float sink = a.sinks[tile.head(row)], top = fmaxf(rows.largest[r], sink);
      factor = expf(rows.largest[r] - top);
      total = total * factor + expf(sink - top);
    }
    float* to = a.out + tile.at(row, a.out_stride, a.head_dim);
#pragma unroll
    for (int t = 0; t < kValueTiles; ++t) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int column = 16 * (kWarps * t + warp) + 8 * (i >> 1) + 2 * (lane & 3) + (i & 1);
        if (column < head_dim) to[column] = out[t][i >> 1][2 * r + (i & 1)] * factor / total;
      }
    }
  }
}

}  // namespace

cudaError_t attention_wide(const AttentionPrefillArgs& args, cudaStream_t stream) {
  const AttentionArgs& a = args.attention;
  if (a.padded_head_dim != static_cast<uint32_t>(kWidth)) return cudaErrorInvalidValue;
  const uint32_t group = a.num_heads / a.num_kv_heads, rows = static_cast<uint32_t>(kRows);
  const dim3 grid(args.num_tiles, a.num_kv_heads, (group + rows - 1) / rows);
  return with_kv_kind(a.kv_dtype, [&]<KvKind K>() {
    return gpu_launch("attention_wide", attention_wide_kernel<K>, grid, dim3(kWarps * 32), kSharedBytes<K>,
                      stream, args);
  });
}

uint32_t wide_tile_tokens(uint32_t heads_per_kv) {
  const auto rows = static_cast<uint32_t>(kRows);
  return heads_per_kv < rows ? rows / heads_per_kv : 1;
}

}  // namespace nearmoe::cuda
