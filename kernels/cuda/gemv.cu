// Matrix times a few input rows (decode): q/k/v together, output projection, router, lm_head. One block for
// each group of 16 rows; its warps share the columns, and their sums are added in warp order.
#include "gemv_core.cuh"
#include "kernels.h"

namespace nearmoe::cuda {
namespace {

constexpr int kWarps = 8;

template <DType F, int TOK>
__global__ void __launch_bounds__(kWarps * 32) gemv_kernel(MatmulArgs args) {
  GPU_SHARED(float, sums, [kWarps][TOK * kGroupRows]);
  uint32_t group = blockIdx.x;
  uint32_t s = 0;
  while (group >= (args.segments[s].weight.rows + kGroupRows - 1) / kGroupRows) {
    group -= (args.segments[s].weight.rows + kGroupRows - 1) / kGroupRows;
    ++s;
  }
  const MatmulSegment& segment = args.segments[s];
  const uint32_t head = blockIdx.y, col = head * args.heads.x_cols;
  const GemvInput x{args.x.f32 + col, args.x.q8 + col, args.x.q8_meta + col / kBlockColumns, args.x.stride,
                    static_cast<int>(args.tokens)};
  WeightView w = segment.weight;
  w.data += head * args.heads.weight_bytes;
  const int warp = static_cast<int>(threadIdx.x >> 5);
  float acc[TOK][kLaneRows<F>] = {};
  accumulate_group<F, TOK>(w, group, x, warp, kWarps, acc);
  store_group_sums<F, TOK>(acc, sums[warp]);
  __syncthreads();
  const uint32_t token = threadIdx.x / kGroupRows, row = group * kGroupRows + threadIdx.x % kGroupRows;
  if (token >= args.tokens || row >= segment.weight.rows) return;
  float y = 0.0f;
#pragma unroll
  for (int i = 0; i < kWarps; ++i) y += sums[i][threadIdx.x];
  if (segment.bias) y += segment.bias[row];
  if (args.clip > 0.0f) y = fminf(fmaxf(y, -args.clip), args.clip);
  float* out = segment.y + static_cast<size_t>(token) * segment.y_stride + head * args.heads.y_cols + row;
  *out = args.add ? *out + args.multiplier * y : args.multiplier * y;
}

template <DType F>
cudaError_t launch(const MatmulArgs& args, cudaStream_t stream) {
  uint32_t groups = 0;
  for (uint32_t i = 0; i < args.num_segments; ++i)
    groups += (args.segments[i].weight.rows + kGroupRows - 1) / kGroupRows;
  const dim3 grid(groups, args.heads.count > 0 ? args.heads.count : 1), block(kWarps * 32);
  if (args.tokens == 1) return gpu_launch("gemv", gemv_kernel<F, 1>, grid, block, 0, stream, args);
  if (args.tokens == 2) return gpu_launch("gemv", gemv_kernel<F, 2>, grid, block, 0, stream, args);
  if (args.tokens <= 4) return gpu_launch("gemv", gemv_kernel<F, 4>, grid, block, 0, stream, args);
  return gpu_launch("gemv", gemv_kernel<F, 8>, grid, block, 0, stream, args);
}

}  // namespace

cudaError_t gemv(const MatmulArgs& args, cudaStream_t stream) {
  if (args.tokens == 0 || args.tokens > kGemvTokens) return cudaErrorInvalidValue;
  return with_format(args.dtype, [&]<DType F>() { return launch<F>(args, stream); });
}

}  // namespace nearmoe::cuda
