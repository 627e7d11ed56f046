// Experts for many tokens (prefill, large batches) as grouped GEMMs: each block has one tile of 64 weight
// rows and up to 32 pairs of one expert; the pairs' input rows are gathered while they are loaded. Gate and
// up are multiplied side by side, so the activation needs no extra pass; the hidden rows are then prepared
// for the down GEMM.
#include "experts.cuh"
#include "gemm_core.cuh"
#include "kernels.h"

namespace nearmoe::cuda {
namespace {

constexpr int kTiles = 4;  // of 8 pairs
constexpr uint32_t kTilePairs = kTiles * 8;

/// What the input row of a tile's pair is multiplied with; so are the products, which are linear in it.
__device__ __forceinline__ float scale_of(const ExpertGemmArgs& args, const ExpertTile& tile, uint32_t own) {
  if (!args.input_scales) return 1.0f;
  const uint32_t pair = tile.first + own;
  return args.input_scales[args.lists ? args.lists[pair] : pair];
}

template <DType F>
__global__ void __launch_bounds__(kGemmThreads, 1) expert_gemm_gate_up_kernel(ExpertGemmArgs args) {
  using Tile = GemmTile<F, kTiles>;
  GPU_SHARED(Tile, shared, );
  GPU_SHARED(uint32_t, rows, [kTilePairs]);
  const ExpertTile tile = args.tiles[blockIdx.y];
  const ExpertView& view = args.views[tile.view];
  if (blockIdx.x * kGemmRows >= view.hidden_cols) return;
  if (threadIdx.x < kTilePairs) {
    uint32_t pair = tile.first + threadIdx.x;
    if (args.lists && threadIdx.x < tile.count) pair = args.lists[pair];
    rows[threadIdx.x] = threadIdx.x < tile.count ? pair / args.top_k : kNoRow;
  }
  __syncthreads();
  const uint32_t col = blockIdx.x * kGemmRows + (threadIdx.x >> 5) * kGroupRows;
  const ExpertSlice* slice = col < view.hidden_cols ? slice_of(view, col) : nullptr;
  const bool present = slice && col - slice->hidden_offset < slice->rows;
  // Warps without a row group of their own work on the first one and store zeros, or nothing.
  const uint32_t group = present ? (col - slice->hidden_offset) / kGroupRows : 0;
  const ExpertSlice& source = present ? *slice : view.slices[0];
  const WeightView w = slice_matrix(args.shape, source, source.gate);
  const size_t offset = static_cast<size_t>(group) * w.group_bytes;
  const uint8_t* const groups[2] = {source.gate + offset, source.up + offset};
  float acc[2][kTiles][4] = {};
  gemm_accumulate<F, kTiles, 2>(shared, groups, w, args.x, 0, rows, static_cast<int>(tile.count), acc);
  if (!slice) return;
  const int lane = static_cast<int>(threadIdx.x & 31), g = lane >> 2, t = lane & 3;
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t own = static_cast<uint32_t>(2 * g + (i >> 1)),
                     pair = static_cast<uint32_t>(8 * n + 2 * t + (i & 1));
      if (pair >= tile.count) continue;
      const uint32_t row = col - slice->hidden_offset + own;
      float value = 0.0f;
      if (row < slice->rows) {
        const float scale = scale_of(args, tile, pair);
        value = gated(args.shape.activation,
                      scale * acc[0][n][i] + bias_at(view.gate_bias, slice->first_row + row),
                      scale * acc[1][n][i] + bias_at(view.up_bias, slice->first_row + row));
      }
      args.hidden[static_cast<size_t>(tile.row + pair) * args.hidden_stride + col + own] = value;
    }
  }
}

template <DType F>
__global__ void __launch_bounds__(kGemmThreads, 1) expert_gemm_down_kernel(ExpertGemmArgs args) {
  using Tile = GemmTile<F, kTiles>;
  GPU_SHARED(Tile, shared, );
  GPU_SHARED(uint32_t, rows, [kTilePairs]);
  const ExpertTile tile = args.tiles[blockIdx.y];
  const ExpertView& view = args.views[tile.view];
  if (threadIdx.x < kTilePairs)
    rows[threadIdx.x] = threadIdx.x < tile.count ? tile.row + threadIdx.x : kNoRow;
  __syncthreads();
  const ActivationSinks& p = args.prepared;
  const Activations x{p.f32, p.high, p.low, p.q8, p.q8_meta, p.stride};
  const uint32_t groups_of_matrix = (args.shape.hidden_size + kGroupRows - 1) / kGroupRows;
  const uint32_t group = blockIdx.x * kGemmWarps + (threadIdx.x >> 5);
  float acc[1][kTiles][4] = {};
  for (uint32_t s = 0; s < view.num_slices; ++s) {
    const ExpertSlice& slice = view.slices[s];
    const WeightView w = slice_down(args.shape, slice);
    const uint8_t* const groups[1] = {w.data +
                                      static_cast<size_t>(min(group, groups_of_matrix - 1)) * w.group_bytes};
    gemm_accumulate<F, kTiles, 1>(shared, groups, w, x, slice.hidden_offset, rows,
                                  static_cast<int>(tile.count), acc);
  }
  const int lane = static_cast<int>(threadIdx.x & 31), g = lane >> 2, t = lane & 3;
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t row = group * kGroupRows + static_cast<uint32_t>(2 * g + (i >> 1));
      const uint32_t own = static_cast<uint32_t>(8 * n + 2 * t + (i & 1));
      if (row >= args.shape.hidden_size || own >= tile.count) continue;
      const uint32_t pair = args.lists ? args.lists[tile.first + own] : tile.first + own;
      args.outputs[static_cast<size_t>(pair) * args.output_stride + row] =
          acc[0][n][i] + bias_at(view.down_bias, row);
    }
  }
}

}  // namespace

cudaError_t expert_gemm(const ExpertGemmArgs& args, cudaStream_t stream) {
  const dim3 block(kGemmThreads),
      gate_grid((args.shape.hidden_cols + kGemmRows - 1) / kGemmRows, args.num_tiles);
  cudaError_t error = with_format(args.shape.gate_dtype, [&]<DType F>() {
    return gpu_launch("expert_gemm_gate_up", expert_gemm_gate_up_kernel<F>, gate_grid, block, 0, stream,
                      args);
  });
  if (error != cudaSuccess) return error;
  error = prepare({args.hidden, args.hidden_stride, args.num_rows, args.shape.hidden_cols, args.prepared},
                  stream);
  if (error != cudaSuccess) return error;
  const dim3 down_grid((args.shape.hidden_size + kGemmRows - 1) / kGemmRows, args.num_tiles);
  return with_format(args.shape.down_dtype, [&]<DType F>() {
    return gpu_launch("expert_gemm_down", expert_gemm_down_kernel<F>, down_grid, block, 0, stream, args);
  });
}

uint32_t expert_gemm_tile_tokens() { return kTilePairs; }

}  // namespace nearmoe::cuda
