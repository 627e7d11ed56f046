// Experts for few tokens (decode). First kernel: gate and up of one (token, expert) pair with the activation,
// 32 hidden values a block, written in the form that the down matrix wants. Second kernel: down of all of a
// token's pairs, weighted and added up in ascending order of experts, straight into the residual stream.
#include "experts.cuh"
#include "gemv_core.cuh"
#include "kernels.h"
#include "sinks.cuh"

namespace nearmoe::cuda {
namespace {

constexpr int kWarps = 8;

/// Warps: bit 0 the row group, bit 1 gate or up, bit 2 the half of the steps.
template <DType F>
__global__ void __launch_bounds__(kWarps * 32) expert_gate_up_kernel(ExpertGemvArgs args) {
  GPU_SHARED(float, sums, [kWarps][kGroupRows]);
  const uint32_t pair = blockIdx.y, col = blockIdx.x * 32;
  const ExpertView* view = view_of(args.pairs, pair);
  if (!view || col >= view->hidden_cols) return;
  const ExpertSlice* slice = slice_of(*view, col);
  const int warp = static_cast<int>(threadIdx.x >> 5);
  const uint32_t group = (col - slice->hidden_offset) / kGroupRows + static_cast<uint32_t>(warp & 1);
  const uint32_t token = args.pairs.ids ? pair / args.pairs.top_k : pair;
  const size_t at = static_cast<size_t>(token) * args.x.stride;
  const GemvInput x{args.x.f32 + at, args.x.q8 + at, args.x.q8_meta + at / kBlockColumns, args.x.stride, 1};
  float acc[1][kLaneRows<F>] = {};
  if (group * kGroupRows < slice->rows) {
    const WeightView w = slice_matrix(args.shape, *slice, warp & 2 ? slice->up : slice->gate);
    accumulate_group<F, 1>(w, group, x, warp >> 2, 2, acc);
  }
  store_group_sums<F, 1>(acc, sums[warp]);
  __syncthreads();
  if (warp != 0) return;
  const uint32_t lane = threadIdx.x, g = lane / kGroupRows, r = lane % kGroupRows;
  const uint32_t own = col - slice->hidden_offset + lane, row = slice->first_row + own;
  float value = 0.0f;
  if (own < slice->rows) {
    // Both products are linear in x: scaling them is scaling it.
    const float scale = args.input_scales ? args.input_scales[pair] : 1.0f;
    const float gate = scale * (sums[g][r] + sums[g + 4][r]) + bias_at(view->gate_bias, row);
    const float up = scale * (sums[g + 2][r] + sums[g + 6][r]) + bias_at(view->up_bias, row);
    value = gated(args.shape.activation, gate, up);
  }
  store_block(args.hidden, pair, col / 32, value);
}

/// The weighted biases of row `row` of the down matrices that a token meets on the GPU.
__device__ __forceinline__ float down_biases(const PairRouting& pairs, uint32_t token, uint32_t per_token,
                                             uint32_t row) {
  float sum = 0.0f;
  // Unrolled it takes so many registers that what the matrices need is spilled.
#pragma unroll 1
  for (uint32_t pair = token * per_token; pair < (token + 1) * per_token; ++pair) {
    const ExpertView* view = view_of(pairs, pair);
    if (view && view->down_bias)
      sum = fmaf(pairs.weights ? pairs.weights[pair] : 1.0f, view->down_bias[row], sum);
  }
  return sum;
}

template <DType F>
__global__ void __launch_bounds__(kWarps * 32) expert_down_kernel(ExpertGemvArgs args) {
  GPU_SHARED(float, sums, [kWarps][kGroupRows]);
  const uint32_t token = blockIdx.y, group = blockIdx.x, per_token = args.pairs.ids ? args.pairs.top_k : 1;
  const int warp = static_cast<int>(threadIdx.x >> 5);
  float total[1][kLaneRows<F>] = {};
  int done = 0;  // steps handed out so far; the warps take them in turn over all pairs and slices
  for (uint32_t k = 0; k < per_token; ++k) {
    const uint32_t pair = token * per_token + k;
    const ExpertView* view = view_of(args.pairs, pair);
    if (!view) continue;
    float acc[1][kLaneRows<F>] = {};
    for (uint32_t s = 0; s < view->num_slices; ++s) {
      const ExpertSlice& slice = view->slices[s];
      const size_t at = static_cast<size_t>(pair) * args.hidden.stride + slice.hidden_offset;
      const GemvInput x{args.hidden.f32 + at, args.hidden.q8 + at, args.hidden.q8_meta + at / kBlockColumns,
                        args.hidden.stride, 1};
      const WeightView w = slice_down(args.shape, slice);
      accumulate_group<F, 1>(w, group, x, (warp - done % kWarps + kWarps) % kWarps, kWarps, acc);
      done += gemv_steps<F>(slice.rows);
    }
    const float weight = args.pairs.weights ? args.pairs.weights[pair] : 1.0f;
#pragma unroll
    for (int r = 0; r < kLaneRows<F>; ++r) total[0][r] = fmaf(weight, acc[0][r], total[0][r]);
  }
  store_group_sums<F, 1>(total, sums[warp]);
  __syncthreads();
  const uint32_t row = group * kGroupRows + threadIdx.x;
  if (threadIdx.x >= kGroupRows || row >= args.shape.hidden_size) return;
  float y = 0.0f;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) y += sums[w][threadIdx.x];
  y += down_biases(args.pairs, token, per_token, row);
  float* out = args.out + static_cast<size_t>(token) * args.out_stride + row;
  *out = fmaf(args.multiplier, y, *out);
}

}  // namespace

cudaError_t expert_gemv(const ExpertGemvArgs& args, cudaStream_t stream) {
  const uint32_t pairs = args.pairs.tokens * (args.pairs.ids ? args.pairs.top_k : 1);
  const dim3 block(kWarps * 32), gate_grid(args.shape.hidden_cols / 32, pairs);
  const cudaError_t error = with_format(args.shape.gate_dtype, [&]<DType F>() {
    return gpu_launch("expert_gate_up", expert_gate_up_kernel<F>, gate_grid, block, 0, stream, args);
  });
  if (error != cudaSuccess) return error;
  const dim3 down_grid((args.shape.hidden_size + kGroupRows - 1) / kGroupRows, args.pairs.tokens);
  return with_format(args.shape.down_dtype, [&]<DType F>() {
    return gpu_launch("expert_down", expert_down_kernel<F>, down_grid, block, 0, stream, args);
  });
}

}  // namespace nearmoe::cuda
