// The k largest logits of each row, for sampling without a copy of the whole vocabulary. Keys are 64 bits,
// the logit made sortable above the complement of the id, so all keys differ and ties go to the lower id.
// First kernel: the k largest of each chunk of 4,096 by radix selection (the chunk stays in the L1 cache).
// Second kernel: the same over the chunks' survivors.
#include "formats.cuh"
#include "kernels.h"

namespace nearmoe::cuda {
namespace {

using Key = unsigned long long;

constexpr uint32_t kThreads = 256;
constexpr uint32_t kChunk = 4096;

__host__ __device__ constexpr uint32_t chunks_of(uint32_t n) { return (n + kChunk - 1) / kChunk; }

/// NaN and -inf become the smallest keys of real logits; 0 stands for "no entry".
__device__ __forceinline__ Key make_key(float logit, uint32_t id) {
  unsigned bits = logit == logit ? __float_as_uint(logit) : 0xff800000u;
  bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return static_cast<Key>(bits) << 32 | (0xffffffffu - id);
}

__device__ __forceinline__ float logit_of(Key key) {
  const unsigned bits = static_cast<unsigned>(key >> 32);
  return __uint_as_float(bits & 0x80000000u ? bits & 0x7fffffffu : ~bits);
}

/// Shared state of a selection.
struct Selection {
  uint32_t histogram[256];
  uint32_t digit, wanted, taken;
};

/// The k-th largest of the keys that key(0) ... key(n - 1) give (0 counts as none; 0 is returned where there
/// are fewer than k). Radix selection, 8 bits a round from the top. Called by all threads of the block.
template <class GetKey>
__device__ __forceinline__ Key find_threshold(GetKey key, uint32_t n, uint32_t k, Selection& state) {
  Key prefix = 0, mask = 0;
  uint32_t wanted = k;
  for (int shift = 56; shift >= 0; shift -= 8) {
    state.histogram[threadIdx.x] = 0;
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < n; i += kThreads) {
      const Key value = key(i);
      if (value != 0 && (value & mask) == prefix) {
        atomicAdd(&state.histogram[static_cast<uint32_t>(value >> shift) & 255u], 1u);
      }
    }
    __syncthreads();
    // The digit at which the count from above reaches `wanted`; one thread finds it is its own.
    uint32_t above = 0;
    for (uint32_t d = threadIdx.x + 1; d < 256; ++d) above += state.histogram[d];
    const bool mine = above < wanted && above + state.histogram[threadIdx.x] >= wanted;
    if (mine) {
      state.digit = threadIdx.x;
      state.wanted = wanted - above;
    }
    if (!__syncthreads_or(mine)) return 0;
    prefix |= static_cast<Key>(state.digit) << shift;
    mask |= static_cast<Key>(255) << shift;
    wanted = state.wanted;
    __syncthreads();
  }
  return prefix;
}

/// The k largest keys, descending, in out[0, k); 0 where there are fewer. `kept` holds k keys of the block.
template <class GetKey>
__device__ __forceinline__ void select_largest(GetKey key, uint32_t n, uint32_t k, Selection& state,
                                               Key* kept, Key* out) {
  const Key threshold = find_threshold(key, n, k, state);
  if (threadIdx.x == 0) state.taken = 0;
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < n; i += kThreads) {
    const Key value = key(i);
    if (value != 0 && value >= threshold) kept[atomicAdd(&state.taken, 1u)] = value;
  }
  __syncthreads();
  // Which place a key got depends on timing; its rank does not.
  const uint32_t taken = state.taken;
  for (uint32_t i = threadIdx.x; i < k; i += kThreads) {
    uint32_t rank = i;
    if (i < taken) {
      rank = 0;
      for (uint32_t j = 0; j < taken; ++j) rank += kept[j] > kept[i];
    }
    out[rank] = i < taken ? kept[i] : 0;
  }
}

__global__ void __launch_bounds__(kThreads) top_k_chunk_kernel(TopKArgs args) {
  GPU_SHARED(Selection, state, );
  GPU_SHARED(Key, kept, [kMaxCandidates]);
  const uint32_t row = blockIdx.y, first = blockIdx.x * kChunk, n = min(args.vocab_size - first, kChunk);
  const float* logits = args.logits + static_cast<size_t>(row) * args.stride + first;
  Key* out = args.workspace + (static_cast<size_t>(row) * gridDim.x + blockIdx.x) * args.k;
  select_largest([=](uint32_t i) { return make_key(__ldg(logits + i), first + i); }, n, args.k, state, kept,
                 out);
}

__global__ void __launch_bounds__(kThreads) top_k_merge_kernel(TopKArgs args, uint32_t chunks) {
  GPU_SHARED(Selection, state, );
  GPU_SHARED(Key, kept, [kMaxCandidates]);
  GPU_SHARED(Key, best, [kMaxCandidates]);
  const uint32_t row = blockIdx.x;
  const Key* survivors = args.workspace + static_cast<size_t>(row) * chunks * args.k;
  select_largest([=](uint32_t i) { return __ldg(survivors + i); }, chunks * args.k, args.k, state, kept,
                 best);
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < args.k; i += kThreads) {
    args.ids[static_cast<size_t>(row) * args.k + i] =
        static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(best[i]));
    args.values[static_cast<size_t>(row) * args.k + i] = logit_of(best[i]);
  }
}

}  // namespace

cudaError_t top_k(const TopKArgs& args, cudaStream_t stream) {
  if (args.k == 0 || args.k > kMaxCandidates || args.k > args.vocab_size) return cudaErrorInvalidValue;
  const uint32_t chunks = chunks_of(args.vocab_size);
  const cudaError_t error =
      gpu_launch("top_k_chunk", top_k_chunk_kernel, dim3(chunks, args.rows), dim3(kThreads), 0, stream, args);
  if (error != cudaSuccess) return error;
  return gpu_launch("top_k_merge", top_k_merge_kernel, dim3(args.rows), dim3(kThreads), 0, stream, args,
                    chunks);
}

size_t top_k_workspace(uint32_t rows, uint32_t vocab_size, uint32_t k) {
  return static_cast<size_t>(rows) * chunks_of(vocab_size) * k;
}

}  // namespace nearmoe::cuda
