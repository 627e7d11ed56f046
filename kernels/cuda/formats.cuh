// The weight formats as GPU threads read them. The packed layout (kernels/quant_format.h) was made for 16
// rows side by side: a quad of 4 bytes holds 4 columns of one row, 16 rows make 64 consecutive bytes. So a
// warp's 16-byte loads cover 512 consecutive bytes in GEMV, and a lane's 8-byte load is exactly its rows'
// part of a tensor-core A fragment in GEMM (rows 2g and 2g + 1 in place of g and g + 8, which only renames
// output rows).
//
// Format<F> for quantised formats: how codes become signed bytes, and where a block's scales and minima are.
#pragma once

#include "kernels.h"

namespace nearmoe::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kGroupRows = 16;
constexpr int kBlockColumns = 32;

__device__ __forceinline__ float half_bits_to_float(unsigned bits) {
#if defined(__CUDACC__)
  return __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
#else
  return static_cast<float>(std::bit_cast<cpu_half>(static_cast<uint16_t>(bits)));
#endif
}

__device__ __forceinline__ float bf16_bits_to_float(unsigned bits) { return __uint_as_float(bits << 16); }

/// bf16 nearest to x, as bits.
__device__ __forceinline__ unsigned float_to_bf16_bits(float x) {
#if defined(__CUDACC__)
  return __bfloat16_as_ushort(__float2bfloat16_rn(x));
#else
  return __float2bfloat16_rn(x).bits;
#endif
}

/// Two floats as bf16 pair (x in the low half), and what is left of them as another pair.
__device__ __forceinline__ void split_pair(float x, float y, unsigned& high, unsigned& low) {
  const unsigned hx = float_to_bf16_bits(x), hy = float_to_bf16_bits(y);
  high = hx | hy << 16;
  low = float_to_bf16_bits(x - bf16_bits_to_float(hx)) | float_to_bf16_bits(y - bf16_bits_to_float(hy)) << 16;
}

/// Scale and minimum of one row's block; value = scale * code + min.
struct BlockScale {
  float scale, min;
};

template <DType F>
struct Format {
  static constexpr bool kQuantised = false, kHasMin = false;
};

/// Four nibbles in the low halves of four bytes -> bytes of a 16-entry table given as four words.
__device__ __forceinline__ unsigned look_up(unsigned nibbles, unsigned t0, unsigned t1, unsigned t2,
                                            unsigned t3) {
  unsigned selector = nibbles & 0x07070707u;
  selector = (selector | selector >> 4) & 0x00ff00ffu;
  selector = (selector | selector >> 8) & 0xffffu;
  const unsigned upper = ((nibbles >> 3) & 0x01010101u) * 0xffu;
  return (__byte_perm(t0, t1, selector) & ~upper) | (__byte_perm(t2, t3, selector) & upper);
}

/// 8-bit codes with 128 added; one f16 scale a block.
template <>
struct Format<DType::Q8_0> {
  static constexpr bool kQuantised = true;
  static constexpr int kLowBits = 8, kHighBits = 0, kSubs = 1, kHalves = 1, kHeaderBytes = 32,
                       kRecordSupers = 2;
  static constexpr bool kHasMin = false;
  static __device__ __forceinline__ unsigned to_signed(unsigned codes) { return codes ^ 0x80808080u; }
  static __device__ __forceinline__ BlockScale block_scale(const uint8_t* header, int row, int, int) {
    return {half_bits_to_float(__ldg(reinterpret_cast<const unsigned short*>(header) + row)), 0.0f};
  }
};

/// 4-bit codes, value = scale * (code - 8).
template <>
struct Format<DType::Q4_0> {
  static constexpr bool kQuantised = true;
  static constexpr int kLowBits = 4, kHighBits = 0, kSubs = 1, kHalves = 1, kHeaderBytes = 32,
                       kRecordSupers = 2;
  static constexpr bool kHasMin = false;
  // code + 0x78 never carries; flipping the top bit then subtracts 128.
  static __device__ __forceinline__ unsigned to_signed(unsigned codes) {
    return (codes + 0x78787878u) ^ 0x80808080u;
  }
  static __device__ __forceinline__ BlockScale block_scale(const uint8_t* header, int row, int, int) {
    return {half_bits_to_float(__ldg(reinterpret_cast<const unsigned short*>(header) + row)), 0.0f};
  }
};

/// 4-bit e2m1 codes, doubled to be integers; scale 2^(e - 128).
template <>
struct Format<DType::MXFP4> {
  static constexpr bool kQuantised = true;
  static constexpr int kLowBits = 4, kHighBits = 0, kSubs = 1, kHalves = 1, kHeaderBytes = 16,
                       kRecordSupers = 4;
  static constexpr bool kHasMin = false;
  static __device__ __forceinline__ unsigned to_signed(unsigned codes) {
    return look_up(codes, 0x03020100u, 0x0c080604u, 0xfdfeff00u, 0xf4f8fafcu);
  }
  static __device__ __forceinline__ BlockScale block_scale(const uint8_t* header, int row, int, int) {
    const unsigned e = __ldg(header + row);
    return {__uint_as_float(e < 2 ? 0x00200000u << e : (e - 1) << 23),
            0.0f};  // the two smallest are denormal
  }
};

/// 4-bit codes in superblocks of 8 blocks with 6-bit scales and minima.
template <>
struct Format<DType::Q4_K> {
  static constexpr bool kQuantised = true;
  static constexpr int kLowBits = 4, kHighBits = 0, kSubs = 8, kHalves = 1, kHeaderBytes = 256,
                       kRecordSupers = 1;
  static constexpr bool kHasMin = true;
  static __device__ __forceinline__ unsigned to_signed(unsigned codes) { return codes; }
  static __device__ __forceinline__ BlockScale block_scale(const uint8_t* header, int row, int sub, int) {
    const auto* factors = reinterpret_cast<const unsigned short*>(header);
    const auto* words = reinterpret_cast<const unsigned*>(header + 64);
    const float d = half_bits_to_float(__ldg(factors + row)),
                d_min = half_bits_to_float(__ldg(factors + 16 + row));
    const int shift = 8 * (sub & 3);
    const unsigned w0 = __ldg(words + row) >> shift, w1 = __ldg(words + 16 + row) >> shift;
    unsigned scale = w0 & 63u, min = w1 & 63u;
    if (sub >= 4) {
      const unsigned w2 = __ldg(words + 32 + row) >> shift;
      scale = (w2 & 15u) | (w0 >> 2 & 0x30u);
      min = (w2 >> 4 & 15u) | (w1 >> 2 & 0x30u);
    }
    // Both products are exact: 11 bits times 6 bits.
    return {d * static_cast<float>(scale), -(d_min * static_cast<float>(min))};
  }
};

/// 6-bit codes (4 low, 2 high) with a scale for each 16 columns, value = scale * (code - 32).
template <>
struct Format<DType::Q6_K> {
  static constexpr bool kQuantised = true;
  static constexpr int kLowBits = 4, kHighBits = 2, kSubs = 8, kHalves = 2, kHeaderBytes = 288,
                       kRecordSupers = 2;
  static constexpr bool kHasMin = false;
  static __device__ __forceinline__ unsigned to_signed(unsigned codes) {
    return (codes + 0x60606060u) ^ 0x80808080u;
  }
  static __device__ __forceinline__ BlockScale block_scale(const uint8_t* header, int row, int sub,
                                                           int half) {
    const float d = half_bits_to_float(__ldg(reinterpret_cast<const unsigned short*>(header) + row));
    const auto scale = static_cast<signed char>(__ldg(header + 32 + 16 * (2 * sub + half) + row));
    return {d * static_cast<float>(scale), 0.0f};
  }
};

/// Bytes of one group's codes of a block.
template <DType F>
constexpr int kCodeBytes = 64 * (Format<F>::kLowBits + Format<F>::kHighBits);

/// Where a group keeps one block: its codes, the header of its superblock, and its place in that superblock.
struct BlockPlace {
  const uint8_t* codes;
  const uint8_t* header;
  int sub;
};

/// The same arithmetic as packed_record of kernels/quant_format.h: a group is a sequence of records, each the
/// headers of kRecordSupers superblocks (fewer in the last one, filled up to 64 bytes) and then the codes of
/// their blocks.
template <DType F>
__device__ __forceinline__ BlockPlace place_block(const uint8_t* group, const WeightView& w, int b) {
  using Q = Format<F>;
  constexpr int kRecordBlocks = Q::kRecordSupers * Q::kSubs;
  constexpr int kRecordBytes = Q::kRecordSupers * Q::kHeaderBytes + kRecordBlocks * kCodeBytes<F>;
  const int phase = Q::kSubs == 1 ? 0 : static_cast<int>(w.phase);
  const int place = phase + b, record = place / kRecordBlocks;
  const uint8_t* start =
      group + static_cast<ptrdiff_t>(record) * kRecordBytes - (record > 0 ? phase * kCodeBytes<F> : 0);
  const int supers = min(static_cast<int>(w.superblocks) - record * Q::kRecordSupers, Q::kRecordSupers);
  const int first_block = record > 0 ? record * kRecordBlocks - phase : 0;
  const int super = place / Q::kSubs - record * Q::kRecordSupers;
  return {start + (supers * Q::kHeaderBytes + 63) / 64 * 64 + (b - first_block) * kCodeBytes<F>,
          start + super * Q::kHeaderBytes, Q::kSubs == 1 ? 0 : place % Q::kSubs};
}

/// Calls f with the format as a template argument; cudaErrorInvalidValue where the GPU has no kernels for it.
template <class Function>
cudaError_t with_format(DType dtype, Function&& f) {
  switch (dtype) {
    case DType::F32:
      return f.template operator()<DType::F32>();
    case DType::F16:
      return f.template operator()<DType::F16>();
    case DType::BF16:
      return f.template operator()<DType::BF16>();
    case DType::Q8_0:
      return f.template operator()<DType::Q8_0>();
    case DType::Q4_0:
      return f.template operator()<DType::Q4_0>();
    case DType::Q4_K:
      return f.template operator()<DType::Q4_K>();
    case DType::Q6_K:
      return f.template operator()<DType::Q6_K>();
    case DType::MXFP4:
      return f.template operator()<DType::MXFP4>();
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace nearmoe::cuda
