// Soft-capping of the logits (Gemma): large ones bend towards the cap.
#include "kernels.h"

namespace nearmoe::cuda {
namespace {

constexpr uint32_t kThreads = 256;

__global__ void __launch_bounds__(kThreads) soft_cap_kernel(SoftCapArgs args) {
  const uint32_t col = blockIdx.x * kThreads + threadIdx.x;
  if (col >= args.cols) return;
  float* x = args.x + static_cast<size_t>(blockIdx.y) * args.stride + col;
  *x = args.cap * tanhf(*x / args.cap);
}

}  // namespace

cudaError_t soft_cap(const SoftCapArgs& args, cudaStream_t stream) {
  const dim3 grid((args.cols + kThreads - 1) / kThreads, args.rows);
  return gpu_launch("soft_cap", soft_cap_kernel, grid, dim3(kThreads), 0, stream, args);
}

}  // namespace nearmoe::cuda
