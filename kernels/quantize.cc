// Quantisation of float rows to file layout, for Hub checkpoints loaded with --quantize and for `convert`.
// q8_0 and q4_0 round as gguf-py does, bit for bit; q4_k searches scale and minimum of each 32 columns for
// the smallest weighted squared error. NaN and infinities end up in the scale, where pack() refuses them.
#include <cmath>
#include <cstring>

#include "half.h"
#include "ops.h"
#include "quant_format.h"

namespace nearmoe {
namespace {

void write_f16(uint8_t* dst, float x) {
  const uint16_t word = f32_to_f16(x);
  std::memcpy(dst, &word, sizeof word);
}

/// Largest magnitude; NaN counts as larger than infinity.
float max_magnitude(const float* x, size_t n) {
  uint32_t largest = 0;
  for (size_t i = 0; i < n; ++i) {
    const uint32_t magnitude = float_bits(x[i]) & 0x7fffffffu;
    largest = magnitude > largest ? magnitude : largest;
  }
  return bits_float(largest);
}

void quantize_q8_0(const float* x, uint8_t* dst) {
  const float d = max_magnitude(x, kBlockCols) / 127.0f;
  const float inverse = d == 0.0f ? 0.0f : 1.0f / d;
  write_f16(dst, d);
  for (size_t i = 0; i < kBlockCols; ++i) {
    const float q = std::isfinite(d) && std::isfinite(inverse) ? std::round(x[i] * inverse) : 0.0f;
    dst[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(q));
  }
}

uint8_t clamp_code(float q, float top) {
  return static_cast<uint8_t>(!(q > 0.0f) ? 0.0f : q > top ? top : q);
}

void quantize_q4_0(const float* x, uint8_t* dst) {
  float extreme = 0.0f;  // the value of largest magnitude, with its sign
  for (size_t i = 0; i < kBlockCols; ++i) {
    if (!(std::fabs(x[i]) <= std::fabs(extreme))) extreme = x[i];
  }
  const float d = extreme / -8.0f;
  const float inverse = d == 0.0f ? 0.0f : 1.0f / d;
  write_f16(dst, d);
  for (size_t i = 0; i < kBlockCols / 2; ++i) {
    const uint32_t low = clamp_code(std::trunc(x[i] * inverse + 8.5f), 15.0f);
    const uint32_t high = clamp_code(std::trunc(x[i + 16] * inverse + 8.5f), 15.0f);
    dst[2 + i] = static_cast<uint8_t>(low | (high << 4));
  }
}

struct ScaleMin {
  float scale, min;  // value = scale * code - min, both >= 0
};

/// Scale and minimum of 32 values: starts from the range, tries slightly larger and smaller steps, solves the
/// weighted least squares for each assignment of codes and keeps the best.
ScaleMin fit_scale_min(const float* x) {
  float low = 0.0f, high = x[0], square_sum = 0.0f;
  for (size_t i = 0; i < kBlockCols; ++i) {
    low = std::fmin(low, x[i]);
    high = std::fmax(high, x[i]);
    square_sum += x[i] * x[i];
  }
  if (high <= low) return {0.0f, -low};
  const float rms = std::sqrt(square_sum / static_cast<float>(kBlockCols));
  ScaleMin best{(high - low) / 15.0f, -low};
  float best_error = INFINITY;
  for (int step = -1; step <= 20; ++step) {
    // step -1 is the plain range; the others sweep the number of levels from 14 to 17.
    const float levels = step < 0 ? 15.0f : 14.0f + 0.15f * static_cast<float>(step);
    const float inverse = levels / (high - low);
    double sw = 0, sq = 0, sqq = 0, sx = 0, sqx = 0;
    for (size_t i = 0; i < kBlockCols; ++i) {
      const double weight = rms + std::fabs(x[i]);
      const double q = clamp_code(std::nearbyint((x[i] - low) * inverse), 15.0f);
      sw += weight;
      sq += weight * q;
      sqq += weight * q * q;
      sx += weight * x[i];
      sqx += weight * q * x[i];
    }
    const double determinant = sw * sqq - sq * sq;
    if (determinant <= 0) continue;
    double scale = (sw * sqx - sq * sx) / determinant;
    double min = (sq * sqx - sqq * sx) / determinant;
    if (min < 0) {  // the format's minimum is never positive: fit the scale alone
      min = 0;
      scale = sqx / sqq;
    }
    if (!(scale > 0)) continue;
    float error = 0.0f;
    for (size_t i = 0; i < kBlockCols; ++i) {
      const auto s = static_cast<float>(scale), m = static_cast<float>(min);
      const float q = clamp_code(std::nearbyint((x[i] + m) / s), 15.0f);
      const float difference = s * q - m - x[i];
      error += (rms + std::fabs(x[i])) * difference * difference;
    }
    if (error < best_error) {
      best_error = error;
      best = {static_cast<float>(scale), static_cast<float>(min)};
    }
  }
  return best;
}

void quantize_q4_k(const float* x, uint8_t* dst) {
  constexpr uint32_t kSubs = 8;
  std::memset(dst, 0, traits(DType::Q4_K).block_bytes);
  const float largest = max_magnitude(x, kSubs * kBlockCols);
  if (!std::isfinite(largest)) {
    write_f16(dst, largest);
    return;
  }
  ScaleMin fits[kSubs];
  float max_scale = 0.0f, max_min = 0.0f;
  for (uint32_t sub = 0; sub < kSubs; ++sub) {
    fits[sub] = fit_scale_min(x + sub * kBlockCols);
    max_scale = std::fmax(max_scale, fits[sub].scale);
    max_min = std::fmax(max_min, fits[sub].min);
  }
  write_f16(dst, max_scale / 63.0f);
  write_f16(dst + 2, max_min / 63.0f);
  for (uint32_t sub = 0; sub < kSubs; ++sub) {
    const auto level = [](float value, float top) -> uint32_t {
      return top > 0.0f ? static_cast<uint32_t>(clamp_code(std::nearbyint(63.0f * value / top), 63.0f)) : 0u;
    };
    const uint32_t scale = level(fits[sub].scale, max_scale), min = level(fits[sub].min, max_min);
    uint8_t* p = dst + 4;
    const auto merge = [](uint8_t* byte, uint32_t bits) { *byte = static_cast<uint8_t>(*byte | bits); };
    if (sub < 4) {
      merge(p + sub, scale);
      merge(p + sub + 4, min);
    } else {
      merge(p + sub + 4, (scale & 15u) | ((min & 15u) << 4));
      merge(p + sub - 4, (scale >> 4) << 6);
      merge(p + sub, (min >> 4) << 6);
    }
  }
  for (uint32_t sub = 0; sub < kSubs; ++sub) {
    const BlockScale stored = block_scale(DType::Q4_K, dst, sub);
    uint8_t codes[kBlockCols] = {};
    for (uint32_t i = 0; i < kBlockCols && stored.scale[0] > 0.0f; ++i) {
      codes[i] =
          clamp_code(std::nearbyint((x[sub * kBlockCols + i] - stored.min[0]) / stored.scale[0]), 15.0f);
    }
    encode_codes(*quant_format(DType::Q4_K), codes, sub, dst);
  }
}

}  // namespace

bool quantize(DType dtype, const float* src, size_t rows, size_t cols, std::byte* dst) {
  auto* out = reinterpret_cast<uint8_t*>(dst);
  const size_t n = rows * cols;
  const FormatTraits& format = traits(dtype);
  if (cols % format.block_cols != 0) return false;
  void (*quantize_block)(const float*, uint8_t*) = nullptr;
  switch (dtype) {
    case DType::F32:
      std::memcpy(out, src, n * sizeof(float));
      return true;
    case DType::F16:
      for (size_t i = 0; i < n; ++i) write_f16(out + 2 * i, src[i]);
      return true;
    case DType::BF16:
      for (size_t i = 0; i < n; ++i) {
        const uint16_t word = f32_to_bf16(src[i]);
        std::memcpy(out + 2 * i, &word, sizeof word);
      }
      return true;
    case DType::Q8_0:
      quantize_block = quantize_q8_0;
      break;
    case DType::Q4_0:
      quantize_block = quantize_q4_0;
      break;
    case DType::Q4_K:
      quantize_block = quantize_q4_k;
      break;
    default:
      return false;
  }
  for (size_t i = 0; i < n; i += format.block_cols, out += format.block_bytes) quantize_block(src + i, out);
  return true;
}

}  // namespace nearmoe
