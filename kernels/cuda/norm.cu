// RMSNorm and LayerNorm of the residual stream, with the result in every form that the next matrices want.
// One block a row; the row is read twice, the second time from the L1 cache.
#include "kernels.h"
#include "sinks.cuh"

namespace nearmoe::cuda {
namespace {

constexpr unsigned kThreads = 256;

__global__ void __launch_bounds__(kThreads) norm_kernel(NormArgs args) {
  GPU_SHARED(float, scratch, [32]);
  const uint32_t token = blockIdx.x;
  const uint32_t row = args.rows ? args.rows[token] : token;
  const float* x = args.x + static_cast<size_t>(row) * args.x_stride;
  const auto n = static_cast<float>(args.cols);
  float mean = 0.0f;
  if (args.layer_norm) {
    float sum = 0.0f;
    for (uint32_t i = threadIdx.x; i < args.cols; i += kThreads) sum += x[i];
    mean = block_sum(sum, scratch) / n;
  }
  float squares = 0.0f;
  for (uint32_t i = threadIdx.x; i < args.cols; i += kThreads)
    squares = fmaf(x[i] - mean, x[i] - mean, squares);
  const float scale = 1.0f / sqrtf(block_sum(squares, scratch) / n + args.eps);
  const uint32_t warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  for (uint32_t block = warp; block < args.out.stride / 32; block += kThreads / 32) {
    const uint32_t col = 32 * block + lane;
    float y = 0.0f;
    if (col < args.cols) {
      y = args.layer_norm ? (x[col] - mean) * scale * args.weight[col] : args.weight[col] * (x[col] * scale);
      if (args.bias) y += args.bias[col];
    }
    store_block(args.out, token, block, y);
  }
}

}  // namespace

cudaError_t norm(const NormArgs& args, cudaStream_t stream) {
  return gpu_launch("norm", norm_kernel, dim3(args.tokens), dim3(kThreads), 0, stream, args);
}

}  // namespace nearmoe::cuda
