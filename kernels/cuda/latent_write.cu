// What happens between the projections and the absorption of keyUp in latent attention: the compressed row of
// a token normalised, its rotated part rotated, both stored into the KV pool; the queries' parts sorted into
// what keyUp reads and what is rotated. The first blocks of a token have the row, the others 8 heads each.
#include "attention_kernels.h"
#include "kv_pool.cuh"
#include "sinks.cuh"

namespace nearmoe::cuda {
namespace {

constexpr uint32_t kWarps = 8;

/// Calls put(index, value) for the rotated part x [latent_dim - value_dim] of a row; `first` of `step`
/// threads.
template <class Put>
__device__ __forceinline__ void rotate(const LatentWriteArgs& args, uint32_t token, const float* x,
                                       uint32_t first, uint32_t step, Put put) {
  const uint32_t half = args.rotary_dim / 2;
  const float2* rotary = args.rotary + static_cast<size_t>(token) * half;
  for (uint32_t pair = first; pair < half; pair += step) {
    const uint32_t i = args.interleaved ? 2 * pair : pair, j = args.interleaved ? i + 1 : pair + half;
    const float a = x[i], b = x[j];
    const float2 turn = rotary[pair];
    put(i, __fadd_rn(__fmul_rn(a, turn.x), -__fmul_rn(b, turn.y)));
    put(j, __fadd_rn(__fmul_rn(b, turn.x), __fmul_rn(a, turn.y)));
  }
  for (uint32_t i = args.rotary_dim + first; i < args.latent_dim - args.value_dim; i += step) put(i, x[i]);
}

template <KvKind K>
__device__ __forceinline__ void store_latent(const LatentWriteArgs& args, uint32_t token, float* scratch) {
  const float* x = args.latent + static_cast<size_t>(token) * args.latent_stride;
  const uint32_t position = args.positions[token];
  const uint32_t id = args.block_table[args.block_offsets[token] + position / kKvTokens];
  const uint32_t padded = padded_latent_dim(args.latent_dim);
  const size_t row = (static_cast<size_t>(id) * kKvTokens + position % kKvTokens) * padded;
  float squares = 0.0f;
  for (uint32_t i = threadIdx.x; i < args.value_dim; i += kWarps * 32) squares = fmaf(x[i], x[i], squares);
  const float scale =
      1.0f / sqrtf(block_sum(squares, scratch) / static_cast<float>(args.value_dim) + args.eps);
  for (uint32_t i = threadIdx.x; i < args.value_dim; i += kWarps * 32)
    store_kv<K>(args.kv, row + i, args.norm[i] * (x[i] * scale));
  rotate(args, token, x + args.value_dim, threadIdx.x, kWarps * 32,
         [&](uint32_t i, float value) { store_kv<K>(args.kv, row + args.value_dim + i, value); });
  for (uint32_t i = args.latent_dim + threadIdx.x; i < padded; i += kWarps * 32)
    store_kv<K>(args.kv, row + i, 0.0f);
}

template <KvKind K>
__global__ void __launch_bounds__(kWarps * 32) latent_write_kernel(LatentWriteArgs args) {
  GPU_SHARED(float, scratch, [32]);
  const uint32_t token = blockIdx.x, lane = threadIdx.x & 31;
  if (blockIdx.y == 0) return store_latent<K>(args, token, scratch);
  const uint32_t head = (blockIdx.y - 1) * kWarps + (threadIdx.x >> 5);
  if (head >= args.num_heads) return;  // whole warps
  const uint32_t head_dim = args.nope_dim + args.latent_dim - args.value_dim;
  const float* q = args.q + static_cast<size_t>(token) * args.q_stride + static_cast<size_t>(head) * head_dim;
  const size_t row = static_cast<size_t>(token) * args.num_heads + head;
  for (uint32_t block = 0; block < args.nope.stride / 32; ++block) {
    const uint32_t col = 32 * block + lane;
    store_block(args.nope, row, block, col < args.nope_dim ? q[col] : 0.0f);
  }
  float* rotated = args.latent_q + row * args.latent_dim + args.value_dim;
  rotate(args, token, q + args.nope_dim, lane, 32, [&](uint32_t i, float value) { rotated[i] = value; });
}

}  // namespace

cudaError_t latent_write(const LatentWriteArgs& args, cudaStream_t stream) {
  const dim3 grid(args.tokens, 1 + (args.num_heads + kWarps - 1) / kWarps);
  return with_kv_kind(args.kv_dtype, [&]<KvKind K>() {
    return gpu_launch("latent_write", latent_write_kernel<K>, grid, dim3(kWarps * 32), 0, stream, args);
  });
}

size_t latent_pool_block_bytes(uint32_t kv_dtype, uint32_t latent_dim) {
  return size_t{kKvTokens} * padded_latent_dim(latent_dim) *
         (static_cast<KvKind>(kv_dtype) == KvKind::F32 ? 4 : 2);
}

}  // namespace nearmoe::cuda
