// RMSNorm and LayerNorm of the residual stream, with the result in every form that the next matrices want.
// One block a row; the row is read twice, the second time from the L1 cache.
#include "kernels.h"
#include "sinks.cuh"

namespace nearmoe::cuda {
namespace {

constexpr unsigned kThreads = 256;

/// What a row's values are shifted and multiplied with.
struct RowNorm {
  float mean, scale;
};
__device__ __forceinline__ RowNorm measure_row(const float* x, uint32_t cols, float eps, bool layer_norm,
                                               float* scratch) {
  const auto n = static_cast<float>(cols);
  float mean = 0.0f;
  if (layer_norm) {
    float sum = 0.0f;
    for (uint32_t i = threadIdx.x; i < cols; i += kThreads) sum += x[i];
    mean = block_sum(sum, scratch) / n;
  }
  float squares = 0.0f;
  for (uint32_t i = threadIdx.x; i < cols; i += kThreads) squares = fmaf(x[i] - mean, x[i] - mean, squares);
  return {mean, 1.0f / sqrtf(block_sum(squares, scratch) / n + eps)};
}

__device__ __forceinline__ float normed(float x, const RowNorm& row, float weight) {
  return weight * ((x - row.mean) * row.scale);
}

__global__ void __launch_bounds__(kThreads) norm_kernel(NormArgs args) {
  GPU_SHARED(float, scratch, [32]);
  const uint32_t token = blockIdx.x;
  const float* x = args.x + static_cast<size_t>(args.rows ? args.rows[token] : token) * args.x_stride;
  const RowNorm row = measure_row(x, args.cols, args.eps, args.layer_norm, scratch);
  const uint32_t warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  for (uint32_t block = warp; block < args.out.stride / 32; block += kThreads / 32) {
    const uint32_t col = 32 * block + lane;
    float y = 0.0f;
    if (col < args.cols) {
      y = normed(x[col], row, args.weight[col]);
      if (args.bias) y += args.bias[col];
    }
    store_block(args.out, token, block, y);
  }
}

__global__ void __launch_bounds__(kThreads) norm_add_kernel(NormAddArgs args) {
  GPU_SHARED(float, scratch, [32]);
  const float* x = args.x + static_cast<size_t>(blockIdx.x) * args.x_stride;
  float* out = args.out + static_cast<size_t>(blockIdx.x) * args.out_stride;
  const RowNorm row = measure_row(x, args.cols, args.eps, args.layer_norm, scratch);
  const float factor = args.scale ? *args.scale : 1.0f;
  for (uint32_t i = threadIdx.x; i < args.cols; i += kThreads) {
    const float before = args.overwrite ? 0.0f : out[i];
    out[i] = factor * fmaf(args.multiplier, normed(x[i], row, args.weight[i]), before);
  }
}

}  // namespace

cudaError_t norm_add(const NormAddArgs& args, cudaStream_t stream) {
  return gpu_launch("norm_add", norm_add_kernel, dim3(args.tokens), dim3(kThreads), 0, stream, args);
}

cudaError_t norm(const NormArgs& args, cudaStream_t stream) {
  return gpu_launch("norm", norm_kernel, dim3(args.tokens), dim3(kThreads), 0, stream, args);
}

}  // namespace nearmoe::cuda
