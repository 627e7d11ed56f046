// The block formats for SIMD: from packed bytes to weights in dot form (vec.h) and to scale and minimum
// vectors of 16 rows. One struct for each dtype, used by gemv.h and gemm.h. Layout: ../quant_format.h.
//
//   codes(p, w)                 the 8 quads of one (group, block)
//   scales(header, scale, min)  one superblock's [kSubs * kHalves] vectors; min holds the negated minimum of
//   K formats kZero                       what the dot form has too much: dot = sum(w * a) - kZero * sum(a)

#pragma once

#include "../quant_format.h"
#include "vec.h"

namespace nearmoe {
namespace {

constexpr int8_t kIq4Signed[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
constexpr int8_t kIq4Unsigned[16] = {1,    24,   45,   63,  79,  93,  106, 118,
                                     -127, -115, -103, -90, -75, -59, -39, -15};  // + 128 as bytes
constexpr int8_t kMxfp4Unsigned[16] = {16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4};  // + 16

NEARMOE_INLINE void plane4(const uint8_t* p, VB w[8]) {
  const VB nibble = b_set(15);
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const VB v = b_load(p + 64 * j);
    w[j] = b_and(v, nibble);
    w[j + 4] = kByteShifts ? b_shr(v, 4) : b_and(b_shr(v, 4), nibble);
  }
}

NEARMOE_INLINE void plane2(const uint8_t* p, VB w[8]) {
  const VB mask = b_set(3);
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j) {
    const VB v = b_load(p + 64 * (j / 4));
    w[j] = b_and(j % 4 ? b_shr(v, static_cast<unsigned>(2 * (j % 4))) : v, mask);
  }
}

/// Moves bits of a plane to bit kTarget of the codes.
template <int kFrom, int kTarget>
NEARMOE_INLINE VB move_bits(VB v, VB mask) {
  if constexpr (kFrom < kTarget) return b_and(b_shl(v, kTarget - kFrom), mask);
  if constexpr (kFrom > kTarget) return b_and(b_shr(v, kFrom - kTarget), mask);
  return b_and(v, mask);
}

template <int kTarget, int j = 0>
NEARMOE_INLINE void or_plane1(VB v, VB mask, VB w[8]) {
  if constexpr (j < 8) {
    w[j] = b_or(w[j], move_bits<j, kTarget>(v, mask));
    or_plane1<kTarget, j + 1>(v, mask, w);
  }
}

template <int kTarget, int j = 0>
NEARMOE_INLINE void or_plane2(const uint8_t* p, VB mask, VB w[8]) {
  if constexpr (j < 8) {
    w[j] = b_or(w[j], move_bits<2 * (j % 4), kTarget>(b_load(p + 64 * (j / 4)), mask));
    or_plane2<kTarget, j + 1>(p, mask, w);
  }
}

/// Byte `index` of each lane as a float.
NEARMOE_INLINE VF byte_at(VI v, unsigned index) {
  return f_from_int(i_and(i_shr(v, 8 * index), i_set(0xff)));
}

struct Q8_0Format {
  static constexpr DType kDType = DType::Q8_0;
  static constexpr int kSubs = 1, kHalves = 1, kMaxCode = 255, kZero = kWideSigned ? 0 : 128;
  static constexpr bool kHasMin = false;
  static constexpr size_t kCodeBytes = 512, kHeaderBytes = 32;
  NEARMOE_INLINE void codes(const uint8_t* p, VB w[8]) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      w[j] = b_load(p + 64 * j);
      if constexpr (kWideSigned) w[j] = b_xor(w[j], b_set(0x80));
    }
  }
  NEARMOE_INLINE void scales(const uint8_t* header, VF* scale, VF*) { scale[0] = f_from_f16(header); }
};

template <DType kType, bool kMin, int kHigh>
struct NibbleFormat {
  static constexpr DType kDType = kType;
  static constexpr int kSubs = 1, kHalves = 1, kMaxCode = kHigh ? 31 : 15;
  static constexpr int kZero = kMin ? 0 : kHigh ? 16 : 8;
  static constexpr bool kHasMin = kMin;
  static constexpr size_t kCodeBytes = kHigh ? 320 : 256, kHeaderBytes = kMin ? 64 : 32;
  NEARMOE_INLINE void codes(const uint8_t* p, VB w[8]) {
    plane4(p, w);
    if constexpr (kHigh != 0) or_plane1<4>(b_load(p + 256), b_set(16), w);
  }
  NEARMOE_INLINE void scales(const uint8_t* header, VF* scale, VF* min) {
    scale[0] = f_from_f16(header);
    if constexpr (kMin) min[0] = f_from_f16(header + 32);
  }
};
using Q4_0Format = NibbleFormat<DType::Q4_0, false, 0>;
using Q4_1Format = NibbleFormat<DType::Q4_1, true, 0>;
using Q5_0Format = NibbleFormat<DType::Q5_0, false, 1>;
using Q5_1Format = NibbleFormat<DType::Q5_1, true, 1>;

NEARMOE_INLINE void iq4_codes(const uint8_t* p, VB w[8]) {
  plane4(p, w);
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j) w[j] = b_lut(kWideSigned ? kIq4Signed : kIq4Unsigned, w[j]);
}

struct Iq4NlFormat {
  static constexpr DType kDType = DType::IQ4_NL;
  static constexpr int kSubs = 1, kHalves = 1, kMaxCode = 255, kZero = kWideSigned ? 0 : 128;
  static constexpr bool kHasMin = false;
  static constexpr size_t kCodeBytes = 256, kHeaderBytes = 32;
  NEARMOE_INLINE void codes(const uint8_t* p, VB w[8]) { iq4_codes(p, w); }
  NEARMOE_INLINE void scales(const uint8_t* header, VF* scale, VF*) { scale[0] = f_from_f16(header); }
};

struct Iq4XsFormat {
  static constexpr DType kDType = DType::IQ4_XS;
  static constexpr int kSubs = 8, kHalves = 1, kMaxCode = 255, kZero = kWideSigned ? 0 : 128;
  static constexpr bool kHasMin = false;
  static constexpr size_t kCodeBytes = 256, kHeaderBytes = 128;
  NEARMOE_INLINE void codes(const uint8_t* p, VB w[8]) { iq4_codes(p, w); }
  NEARMOE_INLINE void scales(const uint8_t* header, VF* scale, VF*) {
    const VF d = f_from_f16(header);
    const VI high = i_load_u16(header + 32), low = i_load(header + 64);
#pragma GCC unroll 8
    for (unsigned s = 0; s < 8; ++s) {
      const VI bits =
          i_or(i_and(i_shr(low, 4 * s), i_set(15)), i_shl(i_and(i_shr(high, 2 * s), i_set(3)), 4));
      scale[s] = f_mul(d, f_from_int(i_add(bits, i_set(-32))));
    }
  }
};

struct Mxfp4Format {
  static constexpr DType kDType = DType::MXFP4;
  static constexpr int kSubs = 1, kHalves = 1, kMaxCode = 31, kZero = 16;
  static constexpr bool kHasMin = false;
  static constexpr size_t kCodeBytes = 256, kHeaderBytes = 16;
  NEARMOE_INLINE void codes(const uint8_t* p, VB w[8]) {
    plane4(p, w);
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) w[j] = b_lut(kMxfp4Unsigned, w[j]);
  }
  NEARMOE_INLINE void scales(const uint8_t* header, VF* scale, VF*) {
    // Half of 2^(e - 127), exact down to e = 0, whose power is below the normal numbers.
    const VI bits = i_max(i_shl(i_load_u8(header), 23), i_set(0x00400000));
    scale[0] = f_mul(f_bits(bits), f_set(0.5f));
  }
};

/// Q4_K and Q5_K: 6-bit scales and minima, eight of each in three words of a row.
template <DType kType, int kHigh>
struct ScaleMinFormat {
  static constexpr DType kDType = kType;
  static constexpr int kSubs = 8, kHalves = 1, kMaxCode = kHigh ? 31 : 15, kZero = 0;
  static constexpr bool kHasMin = true;
  static constexpr size_t kCodeBytes = kHigh ? 320 : 256, kHeaderBytes = 256;
  NEARMOE_INLINE void codes(const uint8_t* p, VB w[8]) {
    plane4(p, w);
    if constexpr (kHigh != 0) or_plane1<4>(b_load(p + 256), b_set(16), w);
  }
  NEARMOE_INLINE void scales(const uint8_t* header, VF* scale, VF* min) {
    const VF d = f_from_f16(header), dmin = f_neg(f_from_f16(header + 32));
    const VI a = i_load(header + 64), b = i_load(header + 128), c = i_load(header + 192);
    const VI low6 = i_set(0x3f3f3f3f), low4 = i_set(0x0f0f0f0f), high2 = i_set(0x30303030);
    const VI scale_words[2] = {i_and(a, low6), i_or(i_and(c, low4), i_and(i_shr(a, 2), high2))};
    const VI min_words[2] = {i_and(b, low6), i_or(i_and(i_shr(c, 4), low4), i_and(i_shr(b, 2), high2))};
#pragma GCC unroll 8
    for (unsigned s = 0; s < 8; ++s) {
      scale[s] = f_mul(d, byte_at(scale_words[s / 4], s % 4));
      min[s] = f_mul(dmin, byte_at(min_words[s / 4], s % 4));
    }
  }
};
using Q4KFormat = ScaleMinFormat<DType::Q4_K, 0>;
using Q5KFormat = ScaleMinFormat<DType::Q5_K, 1>;

struct Q6KFormat {
  static constexpr DType kDType = DType::Q6_K;
  static constexpr int kSubs = 8, kHalves = 2, kMaxCode = 63, kZero = 32;
  static constexpr bool kHasMin = false;
  static constexpr size_t kCodeBytes = 384, kHeaderBytes = 288;
  NEARMOE_INLINE void codes(const uint8_t* p, VB w[8]) {
    plane4(p, w);
    or_plane2<4>(p + 256, b_set(0x30), w);
  }
  NEARMOE_INLINE void scales(const uint8_t* header, VF* scale, VF*) {
    const VF d = f_from_f16(header);
#pragma GCC unroll 16
    for (int h = 0; h < 16; ++h) scale[h] = f_mul(d, f_from_s8(header + 32 + 16 * h));
  }
};

struct Q3KFormat {
  static constexpr DType kDType = DType::Q3_K;
  static constexpr int kSubs = 8, kHalves = 2, kMaxCode = 15, kZero = 4;
  static constexpr bool kHasMin = false;
  static constexpr size_t kCodeBytes = 192, kHeaderBytes = 224;
  NEARMOE_INLINE void codes(const uint8_t* p, VB w[8]) {
    plane2(p, w);
    or_plane1<2>(b_load(p + 128), b_set(4), w);
  }
  NEARMOE_INLINE void scales(const uint8_t* header, VF* scale, VF*) {
    const VF d = f_from_f16(header);
    const VI a = i_load(header + 32), b = i_load(header + 96), c = i_load(header + 160);
    const VI low4 = i_set(0x0f0f0f0f), low2 = i_set(0x03030303);
#pragma GCC unroll 16
    for (unsigned h = 0; h < 16; ++h) {
      const VI low = i_and(i_shr((h / 4) % 2 ? b : a, h < 8 ? 0 : 4), low4);
      const VI high = i_shl(i_and(i_shr(c, 2 * (h / 4)), low2), 4);
      scale[h] = f_mul(d, f_sub(byte_at(i_or(low, high), h % 4), f_set(32.0f)));
    }
  }
};

struct Q2KFormat {
  static constexpr DType kDType = DType::Q2_K;
  static constexpr int kSubs = 8, kHalves = 2, kMaxCode = 15, kZero = 0;
  static constexpr bool kHasMin = true;
  static constexpr size_t kCodeBytes = 128, kHeaderBytes = 320;
  NEARMOE_INLINE void codes(const uint8_t* p, VB w[8]) { plane2(p, w); }
  NEARMOE_INLINE void scales(const uint8_t* header, VF* scale, VF* min) {
    const VF d = f_from_f16(header), dmin = f_neg(f_from_f16(header + 32));
#pragma GCC unroll 16
    for (unsigned h = 0; h < 16; ++h) {
      const VI words = i_load(header + 64 + 64 * (h / 4));
      const unsigned shift = 8 * (h % 4);
      scale[h] = f_mul(d, f_from_int(i_and(i_shr(words, shift), i_set(15))));
      min[h] = f_mul(dmin, f_from_int(i_and(i_shr(words, shift + 4), i_set(15))));
    }
  }
};

}  // namespace
}  // namespace nearmoe
