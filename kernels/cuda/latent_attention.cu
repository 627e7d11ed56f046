// Attention over latents on tensor cores, for single tokens (the sequence cut into parts that run side by
// side) and for runs of tokens alike. All heads share the latents, so the rows of a block are (token, head)
// pairs, 16 of them or 32, and each latent is loaded once for all. It is the key, and its first part the
// value. Four warps have 16 rows: two halve the dimensions of the scores for each half of the keys; then
// every warp turns all scores into weights for itself and has its own columns of the values. Latents in f16
// or bf16 are operands as they are and come by asynchronous copies; everything else becomes the sum of two
// such numbers, bf16 where latents are floats. Needs sm_80.
#include <type_traits>

#include "latent_tile.cuh"

namespace nearmoe::cuda {
namespace {

/// Tiles of 16 value columns that one warp has at most.
constexpr int kValueTiles = static_cast<int>(kMaxLatentValueDim) / 16 / kWarps;

/// Weights are at most 1; brought up by so much, f16 keeps the small ones too.
template <KvKind K>
constexpr float kWeightRange = K == KvKind::F16 ? 16384.0f : 1.0f;

/// Groups of rows in a block.
int groups_of(uint32_t num_heads, uint32_t kv_dtype) {
  return num_heads > kRows && static_cast<KvKind>(kv_dtype) != KvKind::F32 ? 2 : 1;
}

template <KvKind K, int GROUPS>
size_t shared_bytes(uint32_t latent_dim) {
  using T = LatentTiling<K, GROUPS>;
  return sizeof(uint16_t) * static_cast<size_t>(row_stride(latent_dim)) *
         (2 * T::kBlockRows + T::kPlanes * T::kStages * kKeys);
}

/// Latents in f16 are operands as they are; floats are sums of two bf16 numbers.
template <KvKind K>
using LatentProduct = std::conditional_t<K == KvKind::F16, F16Product, Bf16Product<K == KvKind::F32>>;

/// Where the results of a row go: the output, or its part in the workspace with largest score and total
/// behind it.
template <KvKind K>
__device__ __forceinline__ void store_row(const LatentAttentionArgs& a, const LatentTile& tile, int row,
                                          int r, int warp, int lane, float largest, float total,
                                          const float (&out)[kValueTiles][2][4]) {
  const int value_dim = static_cast<int>(a.value_dim);
  const bool whole = gridDim.z == 1;
  const size_t part =
      (static_cast<size_t>(blockIdx.x) * a.num_heads + static_cast<size_t>(tile.head(row))) * gridDim.z +
      blockIdx.z;
  float* to =
      whole ? a.out + tile.pair(row, a) * a.value_dim : a.partial + part * static_cast<size_t>(value_dim + 2);
  const float factor = (whole ? 1.0f / total : 1.0f) / kWeightRange<K>;
  store_values(out, r, value_dim, warp, lane, factor, to);
  if (whole || warp != 0 || (lane & 3) != 0) return;
  to[value_dim] = largest;
  to[value_dim + 1] = total;
}

template <KvKind K, int GROUPS>
__global__ void __launch_bounds__(LatentTiling<K, GROUPS>::kThreads)
    latent_attention_kernel(LatentAttentionArgs a) {
  if (lacks_mma_bf16()) return;
  using T = LatentTiling<K, GROUPS>;
  GPU_DYN_SHARED(uint16_t, memory);
  GPU_SHARED(ScoreRow, scores, [2][T::kBlockRows]);
  GPU_SHARED(float, scales, [T::kBlockRows]);
  const LatentShared<K, GROUPS> shared(memory, a.latent_dim);
  const LatentTile tile(a, T::kBlockRows);
  const uint32_t* table = a.block_table + a.block_offsets[tile.first_token];
  const int all_warps = static_cast<int>(threadIdx.x >> 5), lane = static_cast<int>(threadIdx.x & 31);
  const int group = all_warps / kWarps, warp = all_warps % kWarps;
  const int padded = static_cast<int>(padded_latent_dim(a.latent_dim));
  if (tile.first_key < tile.end_key) load_latents(shared, 0, a, table, tile.first_key, tile.end_key);
  load_queries(shared, a, tile, all_warps, lane, scales);
  __syncthreads();
  RowState rows;
  float scale[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = kRows * group + (lane >> 2) + 8 * r;
    rows.position[r] = tile.has(row, a) ? tile.first_position + tile.token(row) : -1;
    scale[r] = scales[row];
    rows.largest[r] = -INFINITY;
    rows.total[r] = 0.0f;
  }
  float out[kValueTiles][2][4] = {};
  for (int first = tile.first_key, stage = 0; first < tile.end_key; first += kKeys) {
    const bool more = first + kKeys < tile.end_key;
    const Planes latents = shared.latents(stage);
    cp_async_wait<0>();
    __syncthreads();  // all threads' copies are there, and the tile before is done with
    if constexpr (T::kStages == 2) {
      stage ^= 1;
      if (more) load_latents(shared, stage, a, table, first + kKeys, tile.end_key);
    }
    multiply_keys<LatentProduct<K>>(shared.queries(group), latents, shared.stride, padded, warp, lane,
                                    scores[warp >> 1] + kRows * group);
    __syncthreads();
    float p[2][4], keep[2];
    soft_max(scores[0] + kRows * group, scores[1] + kRows * group, lane, rows, p, keep,
             [&](int r, int key, float product) {
               return first + key <= rows.position[r] ? product * scale[r] : -INFINITY;
             });
    shrink(out, keep);
    multiply_values<LatentProduct<K>>(latents, shared.stride, p, static_cast<int>(a.value_dim), warp, lane,
                                      out, [](float x, float y, unsigned& high, unsigned& low) {
                                        split_operands<K>(x * kWeightRange<K>, y * kWeightRange<K>, high,
                                                          low);
                                      });
    if constexpr (T::kStages == 1) {
      __syncthreads();  // the tile is done with
      if (more) load_latents(shared, stage, a, table, first + kKeys, tile.end_key);
    }
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float total = whole_total(rows, r);
    const int row = kRows * group + (lane >> 2) + 8 * r;
    if (rows.position[r] >= 0) store_row<K>(a, tile, row, r, warp, lane, rows.largest[r], total, out);
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
  const dim3 grid(args.num_tiles, latent_head_blocks(args.num_heads, args.kv_dtype), args.num_splits);
  const auto launch = [&]<KvKind K, int GROUPS>() {
    return gpu_launch("latent_attention", latent_attention_kernel<K, GROUPS>, grid,
                      dim3(LatentTiling<K, GROUPS>::kThreads), shared_bytes<K, GROUPS>(args.latent_dim),
                      stream, args);
  };
  const cudaError_t error = with_kv_kind(args.kv_dtype, [&]<KvKind K>() {
    if constexpr (K != KvKind::F32) {
      if (groups_of(args.num_heads, args.kv_dtype) == 2) return launch.template operator()<K, 2>();
    }
    return launch.template operator()<K, 1>();
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

uint32_t latent_head_blocks(uint32_t num_heads, uint32_t kv_dtype) {
  const auto rows = static_cast<uint32_t>(kRows * groups_of(num_heads, kv_dtype));
  return (num_heads + rows - 1) / rows;
}

}  // namespace nearmoe::cuda
