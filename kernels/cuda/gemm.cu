// Matrix times many input rows (prefill, large batches): q/k/v together, output projection, router, lm_head.
// A block makes a tile of 64 weight rows by 64 input rows.
#include "gemm_core.cuh"
#include "kernels.h"

namespace nearmoe::cuda {
namespace {

constexpr int kTiles = 8;  // of 8 input rows

__host__ __device__ constexpr uint32_t row_blocks(uint32_t rows) {
  return (rows + kGemmRows - 1) / kGemmRows;
}

template <DType F>
__global__ void __launch_bounds__(kGemmThreads, 1) gemm_kernel(MatmulArgs args) {
  using Tile = GemmTile<F, kTiles>;
  GPU_SHARED(Tile, tile, );
  GPU_SHARED(uint32_t, rows, [kTiles * 8]);
  uint32_t block = blockIdx.x, s = 0;
  for (; block >= row_blocks(args.segments[s].weight.rows); ++s)
    block -= row_blocks(args.segments[s].weight.rows);
  const MatmulSegment& segment = args.segments[s];
  const WeightView& w = segment.weight;
  const uint32_t first_token = blockIdx.y * kTiles * 8;
  const int used = static_cast<int>(min(args.tokens - first_token, static_cast<uint32_t>(kTiles * 8)));
  if (threadIdx.x < kTiles * 8) {
    rows[threadIdx.x] = static_cast<int>(threadIdx.x) < used ? first_token + threadIdx.x : kNoRow;
  }
  __syncthreads();
  const uint32_t groups = (w.rows + kGroupRows - 1) / kGroupRows;
  const uint32_t group = block * kGemmWarps + (threadIdx.x >> 5);
  // Warps beyond the matrix work on its last group and store nothing.
  const uint32_t head = blockIdx.z;
  const uint8_t* const data[1] = {w.data + head * args.heads.weight_bytes +
                                  static_cast<size_t>(min(group, groups - 1)) * w.group_bytes};
  float acc[1][kTiles][4] = {};
  gemm_accumulate<F, kTiles, 1>(tile, data, w, args.x, head * args.heads.x_cols, rows, used, acc);
  const int lane = static_cast<int>(threadIdx.x & 31), g = lane >> 2, t = lane & 3;
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t row = group * kGroupRows + static_cast<uint32_t>(2 * g + (i >> 1));
      const int token = 8 * n + 2 * t + (i & 1);
      if (row >= w.rows || token >= used) continue;
      float y = acc[0][n][i];
      if (segment.bias) y += segment.bias[row];
      if (args.clip > 0.0f) y = fminf(fmaxf(y, -args.clip), args.clip);
      float* out = segment.y +
                   static_cast<size_t>(first_token + static_cast<uint32_t>(token)) * segment.y_stride +
                   head * args.heads.y_cols + row;
      *out = args.add ? *out + args.multiplier * y : args.multiplier * y;
    }
  }
}

}  // namespace

cudaError_t gemm(const MatmulArgs& args, cudaStream_t stream) {
  uint32_t blocks = 0;
  for (uint32_t i = 0; i < args.num_segments; ++i) blocks += row_blocks(args.segments[i].weight.rows);
  const dim3 grid(blocks, (args.tokens + kTiles * 8 - 1) / (kTiles * 8),
                  args.heads.count > 0 ? args.heads.count : 1);
  return with_format(args.dtype, [&]<DType F>() {
    return gpu_launch("gemm", gemm_kernel<F>, grid, dim3(kGemmThreads), 0, stream, args);
  });
}

}  // namespace nearmoe::cuda
