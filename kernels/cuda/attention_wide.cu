// Causal attention of runs of tokens whose heads have 257 to 512 values (Gemma 4's full-attention layers):
// too wide for the output tiles of attention_prefill.cu, so four warps share 16 (token, query head) pairs of
// one KV head (shared_rows.cuh). Keys and then values of 16 positions pass through the same shared memory.
// Operands as in attention_prefill.cu. Needs sm_80.
#include "attention_kernels.h"
#include "shared_rows.cuh"

namespace nearmoe::cuda {
namespace {

constexpr int kWidth = 512;          // of a padded head
constexpr int kStride = kWidth + 8;  // halves; rows of a fragment lie in different banks
/// Tiles of 16 value columns that one warp has.
constexpr int kValueTiles = kWidth / 16 / kWarps;

/// Keys and values that are no bf16 numbers become sums of two.
template <KvKind K>
using WideProduct = Bf16Product<K != KvKind::BF16>;
template <KvKind K>
constexpr int kParts = WideProduct<K>::kSplit ? 2 : 1;

/// Queries, and keys or values in their place.
template <KvKind K>
constexpr size_t kSharedBytes = sizeof(uint16_t) * kStride * (2 * kRows + kParts<K> * kKeys);

template <KvKind K>
struct Shared {
  Planes q, keys;
  __device__ explicit Shared(uint16_t* base)
      : q{base, base + kRows * kStride},
        keys{base + 2 * kRows * kStride, base + (2 * kRows + (kParts<K> - 1) * kKeys) * kStride} {}
};

template <int PARTS>
__device__ __forceinline__ void store_split(const Planes& planes, int at, const float (&x)[8]) {
  unsigned high[4], low[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) split_pair(x[2 * i], x[2 * i + 1], high[i], low[i]);
  *reinterpret_cast<uint4*>(planes.high + at) = make_uint4(high[0], high[1], high[2], high[3]);
  if constexpr (PARTS == 2)
    *reinterpret_cast<uint4*>(planes.low + at) = make_uint4(low[0], low[1], low[2], low[3]);
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
  GPU_SHARED(ScoreRow, scores, [2][kRows]);
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
    multiply_keys<WideProduct<K>>(shared.q, shared.keys, kStride, kWidth, warp, lane, scores[warp >> 1]);
    __syncthreads();
    load_rows(shared, a, tile, table, first, true);
    float p[2][4], keep[2];
    soft_max(scores[0], scores[1], lane, rows, p, keep, [&](int r, int key, float product) {
      float score = product * a.scale;
      if (a.softcap > 0.0f) score = a.softcap * tanhf(score / a.softcap);
      return first + key <= rows.position[r] && first + key >= seen[r] ? score : -INFINITY;
    });
    shrink(out, keep);
    __syncthreads();
    multiply_values<WideProduct<K>>(
        shared.keys, kStride, p, head_dim, warp, lane, out,
        [](float x, float y, unsigned& high, unsigned& low) { split_pair(x, y, high, low); });
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float total = whole_total(rows, r);
    if (rows.position[r] < 0) continue;
    const int row = (lane >> 2) + 8 * r;
    float factor = 1.0f;
    if (a.sinks) {
      const float sink = a.sinks[tile.head(row)], top = fmaxf(rows.largest[r], sink);
      factor = expf(rows.largest[r] - top);
      total = total * factor + expf(sink - top);
    }
    store_values(out, r, head_dim, warp, lane, factor / total,
                 a.out + tile.at(row, a.out_stride, a.head_dim));
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
