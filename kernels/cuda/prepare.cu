// Float rows into the forms that matrix kernels read, where their producer does not write those itself:
// attention outputs, gated or not, before the output projection, hidden rows before grouped down GEMMs.
#include "kernels.h"
#include "sinks.cuh"

namespace nearmoe::cuda {
namespace {

constexpr unsigned kWarps = 8;

__global__ void __launch_bounds__(kWarps * 32) prepare_kernel(PrepareArgs args) {
  // Rows in x: a prompt's (token, expert) or (token, head) pairs are more than the 65,535 that y can count.
  const uint32_t row = blockIdx.x, block = blockIdx.y * kWarps + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  if (block >= args.out.stride / 32) return;  // whole warps
  const uint32_t col = 32 * block + lane;
  const bool there = col < args.cols;
  float x = there ? args.x[static_cast<size_t>(row) * args.x_stride + col] : 0.0f;
  if (there && args.gate)
    x = x / (1.0f + expf(-args.gate[static_cast<size_t>(row) * args.gate_stride + col]));
  store_block(args.out, row, block, x);
}

}  // namespace

cudaError_t prepare(const PrepareArgs& args, cudaStream_t stream) {
  const dim3 grid(args.rows, (args.out.stride / 32 + kWarps - 1) / kWarps);
  return gpu_launch("prepare", prepare_kernel, grid, dim3(kWarps * 32), 0, stream, args);
}

}  // namespace nearmoe::cuda
