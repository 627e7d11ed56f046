// Scalar conversions between binary32 and the 16-bit float formats, exact and round-to-nearest-even.
// Internal linkage on purpose: this header is included by sources compiled for one ISA each.
#pragma once

#include <cstdint>
#include <cstring>

namespace nearmoe {
namespace {

[[maybe_unused]] inline uint32_t float_bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

[[maybe_unused]] inline float bits_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

/// binary16 -> binary32, exact for every finite value and infinity; NaN stays NaN.
[[maybe_unused]] inline float f16_to_f32(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t exponent = (h >> 10) & 0x1fu;
  const uint32_t mantissa = h & 0x3ffu;
  if (exponent == 0) {
    // Zero and denormals: mantissa * 2^-24 is exact in binary32.
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return bits_float(float_bits(magnitude) | sign);
  }
  if (exponent == 0x1f)
    return bits_float(sign | 0x7f800000u | (mantissa << 13) | (mantissa ? 0x400000u : 0u));
  return bits_float(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

/// binary32 -> binary16, ties to even, overflow to infinity, NaN to a quiet NaN.
[[maybe_unused]] inline uint16_t f32_to_f16(float x) {
  const uint32_t bits = float_bits(x);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    return static_cast<uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
  }
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // rounds to 65536 or is larger
  if (magnitude < 0x38800000u) {
    // Below 2^-14: adding 0.5 aligns the mantissa to 2^-24 and rounds it to nearest even.
    const float aligned = bits_float(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (float_bits(aligned) - 0x3f000000u));
  }
  const uint32_t odd = (magnitude >> 13) & 1u;
  return static_cast<uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

[[maybe_unused]] inline float bf16_to_f32(uint16_t b) { return bits_float(static_cast<uint32_t>(b) << 16); }

/// binary32 -> bfloat16, ties to even, NaN to a quiet NaN.
[[maybe_unused]] inline uint16_t f32_to_bf16(float x) {
  const uint32_t bits = float_bits(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace
}  // namespace nearmoe
