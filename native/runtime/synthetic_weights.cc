#include "synthetic_weights.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <vector>

namespace nearmoe {
namespace {

// Primes, so that rows of a matrix differ. A router of 64 rows of 2048 floats goes through the latter twice.
constexpr size_t kPatternBlocks = 4099, kPatternFloats = 65537;

/// Where a block's float16 scales lie, and the size that makes its values about 0.02.
struct Scales {
  std::array<int, 2> offsets;  ///< -1: none
  float value;
};

Scales scales_of(DType dtype) {
  switch (dtype) {
    case DType::Q8_0:
      return {{0, -1}, 0.0003F};
    case DType::Q4_0:
    case DType::Q5_0:
    case DType::IQ4_NL:
      return {{0, -1}, dtype == DType::IQ4_NL ? 0.0003F : 0.004F};
    case DType::Q4_1:
    case DType::Q5_1:
      return {{0, 2}, 0.004F};
    case DType::Q2_K:
      return {{80, 82}, 0.002F};
    case DType::Q3_K:
      return {{108, -1}, 0.0005F};
    case DType::Q4_K:
    case DType::Q5_K:
      return {{0, 2}, 0.0002F};
    case DType::Q6_K:
      return {{208, -1}, 0.00002F};
    case DType::IQ4_XS:
      return {{0, -1}, 0.00002F};
    default:
      return {{-1, -1}, 0};
  }
}

uint64_t next_random(uint64_t& state) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

/// A float in [-0.035, 0.035), standard deviation 0.02.
float next_value(uint64_t& state) {
  return (static_cast<float>(next_random(state) >> 40) / static_cast<float>(1U << 24) - 0.5F) * 0.07F;
}

std::vector<std::byte> pattern_of(DType dtype, bool vector) {
  const FormatTraits& format = traits(dtype);
  std::vector<std::byte> pattern((format.block_cols == 1 ? kPatternFloats : kPatternBlocks) *
                                 format.block_bytes);
  uint64_t state = 0x9E3779B97F4A7C15ULL;
  if (format.block_cols == 1) {
    std::vector<float> values(kPatternFloats);
    for (float& value : values) value = vector ? 1.0F : next_value(state);
    quantize(dtype, values.data(), 1, kPatternFloats, pattern.data());
    return pattern;
  }
  for (std::byte& byte : pattern) byte = static_cast<std::byte>(next_random(state) >> 32);
  const Scales scales = scales_of(dtype);
  std::array<std::byte, 2> half{};
  quantize(DType::F16, &scales.value, 1, 1, half.data());
  for (size_t block = 0; block < kPatternBlocks; ++block) {
    std::byte* at = pattern.data() + block * format.block_bytes;
    // Codes have a mean: without blocks of both signs it adds up to states that are alike for all tokens.
    half[1] ^= static_cast<std::byte>(next_random(state) >> 63 << 7);
    for (const int offset : scales.offsets) {
      if (offset >= 0) std::memcpy(at + offset, half.data(), half.size());
    }
    if (dtype == DType::MXFP4) at[0] = std::byte{120};  // 2^(120 - 127)
  }
  return pattern;
}

}  // namespace

void fill_synthetic(DType dtype, bool vector, uint64_t place, std::byte* out, size_t bytes) {
  const std::vector<std::byte> pattern = pattern_of(dtype, vector);
  // Any start that scatters: with the same one everywhere, all layers were alike and all routers chose alike.
  uint64_t state = place * 0x9E3779B97F4A7C15ULL + 1;
  const size_t block_bytes = traits(dtype).block_bytes;
  size_t from = next_random(state) % (pattern.size() / block_bytes) * block_bytes;
  for (size_t done = 0; done < bytes; from = 0) {
    const size_t count = std::min(pattern.size() - from, bytes - done);
    std::memcpy(out + done, pattern.data() + from, count);
    done += count;
  }
}

}  // namespace nearmoe
