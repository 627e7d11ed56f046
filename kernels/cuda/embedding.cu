// Embedding gather: rows of a packed matrix as floats. A row's quads lie 64 bytes apart, so a gathered row
// costs about eight times its bytes; it is one row a token.
#include "formats.cuh"
#include "kernels.h"

namespace nearmoe::cuda {
namespace {

constexpr int kThreads = 256;

/// Value [row][col] of a packed matrix, the same bits as kernels/reference/unpack_row.cc gives.
template <DType F>
__device__ float weight_value(const WeightView& w, uint32_t row, uint32_t col) {
  const uint8_t* group = w.data + static_cast<size_t>(row / kGroupRows) * w.group_bytes;
  const uint32_t r = row % kGroupRows;
  if constexpr (F == DType::F32) {
    return __ldg(reinterpret_cast<const float*>(group) + col * kGroupRows + r);
  } else if constexpr (F == DType::F16) {
    return half_bits_to_float(__ldg(reinterpret_cast<const unsigned short*>(group) + col * kGroupRows + r));
  } else if constexpr (F == DType::BF16) {
    const uint32_t index = (col / 2) * 2 * kGroupRows + 2 * r + col % 2;
    return bf16_bits_to_float(__ldg(reinterpret_cast<const unsigned short*>(group) + index));
  } else {
    const uint32_t block = col / kBlockColumns, k = col % kBlockColumns, lane = 4 * r + k % 4;
    const BlockPlace place = place_block<F>(group, w, static_cast<int>(block));
    const uint8_t* codes = place.codes;
    unsigned code;
    if constexpr (Format<F>::kLowBits == 8) {
      code = __ldg(codes + (k / 4) * 64 + lane);
    } else {
      code = (__ldg(codes + (k % 16 / 4) * 64 + lane) >> (k < 16 ? 0 : 4)) & 15u;
      if constexpr (Format<F>::kHighBits == 2) {
        code |= (__ldg(codes + 256 + (k / 16) * 64 + lane) >> (2 * (k % 16 / 4)) & 3u) << 4;
      }
    }
    const BlockScale s =
        Format<F>::block_scale(place.header, static_cast<int>(r), place.sub, static_cast<int>(k / 16));
    const float product =
        __fmul_rn(s.scale, static_cast<float>(static_cast<signed char>(Format<F>::to_signed(code) & 0xffu)));
    return Format<F>::kHasMin ? __fadd_rn(product, s.min) : product;
  }
}

template <DType F>
__global__ void __launch_bounds__(kThreads) embedding_kernel(EmbeddingArgs args) {
  const uint32_t token = blockIdx.y, col = blockIdx.x * kThreads + threadIdx.x;
  if (col >= args.out_stride) return;
  const auto row = static_cast<uint32_t>(args.token_ids[token]);
  const float value =
      col < args.weight.cols ? args.multiplier * weight_value<F>(args.weight, row, col) : 0.0f;
  args.out[static_cast<size_t>(token) * args.out_stride + col] = value;
}

}  // namespace

cudaError_t embedding(const EmbeddingArgs& args, cudaStream_t stream) {
  const dim3 grid((args.out_stride + kThreads - 1) / kThreads, args.tokens);
  return with_format(args.dtype, [&]<DType F>() {
    return gpu_launch("embedding", embedding_kernel<F>, grid, dim3(kThreads), 0, stream, args);
  });
}

}  // namespace nearmoe::cuda
