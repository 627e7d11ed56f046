// Writing activations in the forms that matrix kernels read: float, bf16 pair, int8 blocks. A warp writes one
// block of 32 columns at a time, lane by column, so that an int8 block's maximum and sum are warp reductions.
#pragma once

#include "reduce.cuh"

namespace nearmoe::cuda {

/// Blocks whose largest magnitude is below this become zero, as in kernels/activations.h.
constexpr float kSmallestQ8 = 0x1p-119f;
constexpr float kLargestFloat = 0x1.fffffep+127f;

/// Quantises the warp's 32 values; every lane gets its code, and {scale, scale * sum} in `meta`.
__device__ __forceinline__ int quantise_block(float x, float2& meta) {
  unsigned top = __float_as_uint(x) & 0x7fffffffu;  // as bits, so that NaN and infinity survive as the scale
#pragma unroll
  for (int offset = 16; offset; offset >>= 1) top = max(top, __shfl_xor_sync(kAllLanes, top, offset));
  const float largest = __uint_as_float(top);
  const bool quantisable = largest >= kSmallestQ8 && largest <= kLargestFloat;
  const float scale = largest < kSmallestQ8 ? 0.0f : __fdiv_rn(largest, 127.0f);
  const int code = quantisable ? __float2int_rn(__fmul_rn(x, __fdiv_rn(127.0f, largest))) : 0;
  int sum = code;
#pragma unroll
  for (int offset = 16; offset; offset >>= 1) sum += __shfl_xor_sync(kAllLanes, sum, offset);
  meta = make_float2(scale, __fmul_rn(scale, __int2float_rn(sum)));
  return code;
}

/// Stores the lane's value of column 32 * block + lane of a row in all forms. Called by whole warps.
__device__ __forceinline__ void store_block(const ActivationSinks& out, size_t row, unsigned block, float x) {
  const unsigned lane = threadIdx.x & 31;
  const size_t at = row * out.stride + 32 * block + lane;
  if (out.f32) out.f32[at] = x;
  if (out.high) {
    const unsigned high = float_to_bf16_bits(x);
    out.high[at] = static_cast<uint16_t>(high);
    out.low[at] = static_cast<uint16_t>(float_to_bf16_bits(x - bf16_bits_to_float(high)));
  }
  if (out.q8) {
    float2 meta;
    out.q8[at] = static_cast<int8_t>(quantise_block(x, meta));
    if (lane == 0) out.q8_meta[row * (out.stride / 32) + block] = meta;
  }
}

}  // namespace nearmoe::cuda
