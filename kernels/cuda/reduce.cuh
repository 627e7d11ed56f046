// Sums and maxima over a warp and a block, in an order that does not depend on timing.
#pragma once

#include "formats.cuh"

namespace nearmoe::cuda {

__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
  for (int offset = 16; offset; offset >>= 1) v += __shfl_xor_sync(kAllLanes, v, offset);
  return v;
}

__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
  for (int offset = 16; offset; offset >>= 1) v = fmaxf(v, __shfl_xor_sync(kAllLanes, v, offset));
  return v;
}

/// What sums of exponentials below `from` are multiplied with to be below `to`, which is at least as large.
__device__ __forceinline__ float shift_factor(float from, float to) {
  return from == -INFINITY ? 0.0f : expf(from - to);
}

/// Sum over the block in every thread; `scratch` holds 32 floats and may be reused after the call.
__device__ __forceinline__ float block_sum(float v, float* scratch) {
  const unsigned warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = (blockDim.x + 31) >> 5;
  v = warp_sum(v);
  if (lane == 0) scratch[warp] = v;
  __syncthreads();
  v = warp_sum(lane < warps ? scratch[lane] : 0.0f);
  __syncthreads();
  return v;
}

}  // namespace nearmoe::cuda
