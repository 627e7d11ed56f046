// The norm of what a delta rule puts out, and its gate. A warp a head.
#include "reduce.cuh"
#include "state_kernels.h"

namespace nearmoe::cuda {
namespace {

constexpr uint32_t kWarps = 8;

__global__ void __launch_bounds__(kWarps * 32) gated_norm_kernel(GatedNormArgs args) {
  const uint32_t token = blockIdx.x, head = blockIdx.y * kWarps + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  if (head >= args.heads) return;  // whole warps
  const size_t first = static_cast<size_t>(head) * args.dim;
  float* x = args.x + static_cast<size_t>(token) * args.stride + first;
  const float* gate = args.gate + static_cast<size_t>(token) * args.gate_stride + first;
  float squares = 0.0f;
  for (uint32_t i = lane; i < args.dim; i += 32) squares = fmaf(x[i], x[i], squares);
  const float scale = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(args.dim) + args.eps);
  for (uint32_t i = lane; i < args.dim; i += 32) {
    const float silu = gate[i] / (1.0f + expf(-gate[i]));
    x[i] = args.weight[i] * (x[i] * scale) * silu;
  }
}

}  // namespace

cudaError_t gated_norm(const GatedNormArgs& args, cudaStream_t stream) {
  const dim3 grid(args.tokens, (args.heads + kWarps - 1) / kWarps);
  return gpu_launch("gated_norm", gated_norm_kernel, grid, dim3(kWarps * 32), 0, stream, args);
}

}  // namespace nearmoe::cuda
