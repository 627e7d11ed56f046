// What joins the residual stream: the weighted outputs of grouped experts, the partial sums of the NDP units
// (read from mapped host memory, once), and the gate that scales the shared expert.
#include "experts.cuh"
#include "kernels.h"
#include "reduce.cuh"

namespace nearmoe::cuda {
namespace {

constexpr uint32_t kThreads = 256;

__global__ void __launch_bounds__(kThreads) combine_kernel(CombineArgs args) {
  const uint32_t token = blockIdx.y, col = blockIdx.x * kThreads + threadIdx.x;
  if (col >= args.cols) return;
  const uint32_t per_token = args.pairs.ids ? args.pairs.top_k : 1;
  float sum = 0.0f;
  for (uint32_t k = 0; k < per_token; ++k) {
    const uint32_t pair = token * per_token + k;
    if (!view_of(args.pairs, pair)) continue;
    const float weight = args.pairs.weights ? args.pairs.weights[pair] : 1.0f;
    sum = fmaf(weight, args.outputs[static_cast<size_t>(pair) * args.output_stride + col], sum);
  }
  float* hidden = args.hidden + static_cast<size_t>(token) * args.hidden_stride + col;
  *hidden = fmaf(args.multiplier, sum, *hidden);
}

__global__ void __launch_bounds__(kThreads) add_partial_kernel(AddPartialArgs args) {
  const uint32_t token = blockIdx.y, col = blockIdx.x * kThreads + threadIdx.x;
  if (col >= args.cols) return;
  float* hidden = args.hidden + static_cast<size_t>(token) * args.hidden_stride + col;
  *hidden = fmaf(args.multiplier, args.partial[static_cast<size_t>(token) * args.cols + col], *hidden);
}

__global__ void __launch_bounds__(kThreads) shared_gate_kernel(SharedGateArgs args) {
  GPU_SHARED(float, scratch, [32]);
  const float* x = args.x + static_cast<size_t>(blockIdx.x) * args.x_stride;
  float sum = 0.0f;
  for (uint32_t i = threadIdx.x; i < args.cols; i += kThreads) sum = fmaf(args.weight[i], x[i], sum);
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) args.gates[blockIdx.x] = 1.0f / (1.0f + expf(-sum));
}

}  // namespace

cudaError_t combine(const CombineArgs& args, cudaStream_t stream) {
  const dim3 grid((args.cols + kThreads - 1) / kThreads, args.pairs.tokens);
  return gpu_launch("combine", combine_kernel, grid, dim3(kThreads), 0, stream, args);
}

cudaError_t add_partial(const AddPartialArgs& args, cudaStream_t stream) {
  const dim3 grid((args.cols + kThreads - 1) / kThreads, args.tokens);
  return gpu_launch("add_partial", add_partial_kernel, grid, dim3(kThreads), 0, stream, args);
}

cudaError_t shared_gate(const SharedGateArgs& args, cudaStream_t stream) {
  return gpu_launch("shared_gate", shared_gate_kernel, dim3(args.tokens), dim3(kThreads), 0, stream, args);
}

}  // namespace nearmoe::cuda
