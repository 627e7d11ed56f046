// Attention of single query tokens over the KV pool, the sequence cut into parts that run side by side (flash
// decoding; Dao et al. 2023). A block has one part of one KV head and all query heads that share it, so K and
// V are read once for up to 8 query heads, or 4 of more than 256 values. Each warp walks over KV blocks of
// its own with an online softmax; warps and parts are merged in a fixed order.
#include "attention_kernels.h"
#include "kv_pool.cuh"
#include "reduce.cuh"

namespace nearmoe::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kMaxHeads = 8, kMaxWideHeads = 4;  // wide: more than 256 values
constexpr int kTokens = static_cast<int>(kKvTokens);

/// What a block has for one query head: the weighted sum of V, the largest logit and the softmax's
/// denominator.
template <int D>
struct Partial {
  float sum[D];
  float largest, total;
};

/// Positions [first, end) of part `split` of the keys that a query at `position` sees, in whole KV blocks.
struct Part {
  int first_block, end_block, first_position, end_position;
};
__device__ __forceinline__ Part part_of(const AttentionArgs& args, uint32_t position, uint32_t split,
                                        uint32_t num_splits) {
  const int end = static_cast<int>(position) + 1, first = first_seen(args, static_cast<int>(position));
  const int first_block = first / kTokens, blocks = (end + kTokens - 1) / kTokens - first_block;
  const int each = (blocks + static_cast<int>(num_splits) - 1) / static_cast<int>(num_splits);
  const int begin = min(static_cast<int>(split) * each, blocks);
  return {first_block + begin, first_block + min(begin + each, blocks), first, end};
}

/// Values are taken in pieces of at most 8 for each lane, pieces of all lanes side by side.
template <int D>
constexpr int kPiece = D / 32 < 8 ? D / 32 : 8;
/// Dim of a lane's value i.
template <int D>
__device__ __forceinline__ int dim_of(int lane, int i) {
  constexpr int kLength = kPiece<D>;
  return (i / kLength * 32 + lane) * kLength + i % kLength;
}

/// Scores of the warp's KV block for HEADS query heads: scores[head][slot]. Lanes share positions: D / 8
/// lanes a key, at most all.
template <int D, KvKind K, int HEADS>
__device__ __forceinline__ void score_block(const uint8_t* keys, const float (*q)[D], int slots,
                                            float (*scores)[kTokens]) {
  constexpr int kLanesOfKey = D / 8 < 32 ? D / 8 : 32, kKeys = 32 / kLanesOfKey;
  constexpr int kPieces = D / 8 / kLanesOfKey;
  const int lane = static_cast<int>(threadIdx.x & 31), part = lane % kLanesOfKey;
#pragma unroll 2
  for (int first = 0; first < kTokens; first += kKeys) {
    const int slot = first + lane / kLanesOfKey;
    float k[kPieces][8] = {};
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      if (slot < slots)
        load_kv<K, 8>(keys, static_cast<size_t>(slot * D + (piece * kLanesOfKey + part) * 8), k[piece]);
    }
#pragma unroll
    for (int h = 0; h < HEADS; ++h) {
      float dot = 0.0f;
#pragma unroll
      for (int piece = 0; piece < kPieces; ++piece) {
#pragma unroll
        for (int i = 0; i < 8; ++i) dot = fmaf(q[h][(piece * kLanesOfKey + part) * 8 + i], k[piece][i], dot);
      }
#pragma unroll
      for (int offset = kLanesOfKey / 2; offset; offset >>= 1) dot += __shfl_xor_sync(kAllLanes, dot, offset);
      if (part == 0) scores[h][slot] = dot;
    }
  }
}

template <int D, KvKind K, int HEADS>
__global__ void __launch_bounds__(kWarps * 32, 1) attention_decode_kernel(AttentionDecodeArgs args) {
  constexpr int kDims = D / 32;  // of a lane
  [[maybe_unused]] constexpr int kUnroll = D > 256 ? 2 : 4;
  const AttentionArgs& a = args.attention;
  GPU_SHARED(float, q, [HEADS][D]);
  GPU_SHARED(float, scores, [kWarps][HEADS][kTokens]);
  GPU_SHARED(Partial<D>, partials, [kWarps]);
  const int group = static_cast<int>(a.num_heads / a.num_kv_heads), chunks = (group + HEADS - 1) / HEADS;
  const int kv_head = static_cast<int>(blockIdx.x) / chunks,
            first_head = static_cast<int>(blockIdx.x) % chunks * HEADS;
  const int heads = min(group - first_head, HEADS), head0 = kv_head * group + first_head;
  const uint32_t token = args.tokens ? args.tokens[blockIdx.z] : blockIdx.z;
  const uint32_t position = a.positions[token];
  const uint32_t* table = a.block_table + a.block_offsets[token];
  const int warp = static_cast<int>(threadIdx.x >> 5), lane = static_cast<int>(threadIdx.x & 31);
  for (int i = static_cast<int>(threadIdx.x); i < HEADS * D; i += kWarps * 32) {
    const int h = i / D, d = i % D;
    const bool there = h < heads && d < static_cast<int>(a.head_dim);
    q[h][d] = there ? a.q[static_cast<size_t>(token) * a.q_stride +
                          static_cast<size_t>(head0 + h) * a.head_dim + static_cast<size_t>(d)]
                    : 0.0f;
  }
  __syncthreads();
  float acc[HEADS][kDims] = {}, largest[HEADS], total[HEADS] = {};
#pragma unroll
  for (int h = 0; h < HEADS; ++h) largest[h] = -INFINITY;
  const Part part = part_of(a, position, blockIdx.y, gridDim.y);
  const size_t block_bytes = 2 * kKvTokens * D * kKvBytes<K>;
  for (int b = part.first_block + warp; b < part.end_block; b += kWarps) {
    const uint8_t* keys =
        a.kv + (static_cast<size_t>(table[b]) * a.num_kv_heads + static_cast<size_t>(kv_head)) * block_bytes;
    const uint8_t* values = keys + block_bytes / 2;
    const int slots = min(part.end_position - b * kTokens, kTokens);
    score_block<D, K, HEADS>(keys, q, slots, scores[warp]);
    __syncwarp();
    const int seen = b * kTokens + lane;
    const bool visible = lane < slots && seen >= part.first_position;
#pragma unroll
    for (int h = 0; h < HEADS; ++h) {
      float s = scores[warp][h][lane] * a.scale;
      if (a.softcap > 0.0f) s = a.softcap * tanhf(s / a.softcap);
      s = visible ? s : -INFINITY;
      const float top = fmaxf(largest[h], warp_max(s));
      const float weight = visible ? expf(s - top) : 0.0f, keep = shift_factor(largest[h], top);
      largest[h] = top;
      total[h] = total[h] * keep + warp_sum(weight);
      scores[warp][h][lane] = weight;
#pragma unroll
      for (int i = 0; i < kDims; ++i) acc[h][i] *= keep;
    }
    __syncwarp();
#pragma unroll kUnroll
    for (int slot = 0; slot < slots; ++slot) {
      float v[kDims / kPiece<D>][kPiece<D>];
#pragma unroll
      for (int piece = 0; piece < kDims / kPiece<D>; ++piece)
        load_kv<K, kPiece<D>>(values, static_cast<size_t>(slot * D + dim_of<D>(lane, piece * kPiece<D>)),
                              v[piece]);
#pragma unroll
      for (int h = 0; h < HEADS; ++h) {
        const float weight = scores[warp][h][slot];
#pragma unroll
        for (int i = 0; i < kDims; ++i) acc[h][i] = fmaf(weight, v[i / kPiece<D>][i % kPiece<D>], acc[h][i]);
      }
    }
    __syncwarp();
  }
  for (int h = 0; h < heads; ++h) {
    // The warps' results of one head meet in shared memory; `h` selects registers, so it is unrolled by the
    // switch below.
#pragma unroll
    for (int u = 0; u < HEADS; ++u) {
      if (u != h) continue;
#pragma unroll
      for (int i = 0; i < kDims; ++i) partials[warp].sum[dim_of<D>(lane, i)] = acc[u][i];
      if (lane == 0) {
        partials[warp].largest = largest[u];
        partials[warp].total = total[u];
      }
    }
    __syncthreads();
    float top = -INFINITY;
    for (int w = 0; w < kWarps; ++w) top = fmaxf(top, partials[w].largest);
    float sum_of_totals = 0.0f;
    for (int w = 0; w < kWarps; ++w)
      sum_of_totals += partials[w].total * shift_factor(partials[w].largest, top);
    const size_t at =
        (static_cast<size_t>(blockIdx.z) * a.num_heads + static_cast<size_t>(head0 + h)) * gridDim.y +
        blockIdx.y;
    float* out = args.partial + at * (D + 2);
    for (int d = static_cast<int>(threadIdx.x); d < D; d += kWarps * 32) {
      float sum = 0.0f;
      for (int w = 0; w < kWarps; ++w) sum += partials[w].sum[d] * shift_factor(partials[w].largest, top);
      out[d] = sum;
    }
    if (threadIdx.x == 0) {
      out[D] = top;
      out[D + 1] = sum_of_totals;
    }
    __syncthreads();
  }
}

/// Merges the parts of one query head.
template <int D>
__global__ void __launch_bounds__(D) attention_merge_kernel(AttentionDecodeArgs args) {
  const AttentionArgs& a = args.attention;
  const uint32_t head = blockIdx.x, d = threadIdx.x;
  const uint32_t token = args.tokens ? args.tokens[blockIdx.y] : blockIdx.y;
  const float* parts =
      args.partial + (static_cast<size_t>(blockIdx.y) * a.num_heads + head) * args.num_splits * (D + 2);
  float top = a.sinks ? a.sinks[head] : -INFINITY;
  for (uint32_t s = 0; s < args.num_splits; ++s) top = fmaxf(top, parts[s * (D + 2) + D]);
  float total = a.sinks ? expf(a.sinks[head] - top) : 0.0f, sum = 0.0f;
  for (uint32_t s = 0; s < args.num_splits; ++s) {
    const float* part = parts + s * (D + 2);
    const float factor = shift_factor(part[D], top);
    total += part[D + 1] * factor;
    sum += part[d] * factor;
  }
  if (d < a.head_dim)
    a.out[static_cast<size_t>(token) * a.out_stride + static_cast<size_t>(head) * a.head_dim + d] =
        sum / total;
}

template <int D, KvKind K>
cudaError_t launch(const AttentionDecodeArgs& args, cudaStream_t stream) {
  const AttentionArgs& a = args.attention;
  const uint32_t group = a.num_heads / a.num_kv_heads;
  const auto run = [&]<int HEADS>() {
    const uint32_t chunks = (group + HEADS - 1) / HEADS;
    const dim3 grid(a.num_kv_heads * chunks, args.num_splits, args.num_tokens);
    return gpu_launch("attention_decode", attention_decode_kernel<D, K, HEADS>, grid, dim3(kWarps * 32), 0,
                      stream, args);
  };
  const cudaError_t error = group == 1   ? run.template operator()<1>()
                            : group == 2 ? run.template operator()<2>()
                            : group <= 4 ? run.template operator()<4>()
                                         : run.template operator()<(D > 256 ? kMaxWideHeads : kMaxHeads)>();
  if (error != cudaSuccess) return error;
  return gpu_launch("attention_merge", attention_merge_kernel<D>, dim3(a.num_heads, args.num_tokens), dim3(D),
                    0, stream, args);
}

}  // namespace

cudaError_t attention_decode(const AttentionDecodeArgs& args, cudaStream_t stream) {
  return with_head_dim<512>(args.attention.padded_head_dim, [&]<int D>() {
    return with_kv_kind(args.attention.kv_dtype, [&]<KvKind K>() { return launch<D, K>(args, stream); });
  });
}

size_t attention_decode_workspace(uint32_t num_tokens, uint32_t num_heads, uint32_t padded,
                                  uint32_t num_splits) {
  return static_cast<size_t>(num_tokens) * num_heads * num_splits * (padded + 2);
}

}  // namespace nearmoe::cuda
