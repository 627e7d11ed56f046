// Quantisation to the formats of 256-column superblocks: q4_k and q5_k (a scale and a minimum for each 32
// columns) and q6_k (a scale for each 16). gguf-py cannot write them; the fit is a weighted least squares for
// several assignments of codes, as llama.cpp does it for models without an importance matrix.
#include <cmath>
#include <cstring>

#include "half.h"
#include "quantize.h"

namespace nearmoe {
namespace {

constexpr uint32_t kSubs = 8;
constexpr uint32_t kLanes = 8;  // independent sums, which the compiler keeps in vectors
constexpr float kMaxLevel = 63.0f;

void write_f16(uint8_t* dst, float x) {
  const uint16_t word = f32_to_f16(x);
  std::memcpy(dst, &word, sizeof word);
}

/// Nearest integer for |x| < 2^22, ties to even, by the rounding of the addition.
float round_even(float x) { return (x + 0x1.8p23f) - 0x1.8p23f; }

float clamp(float x, float low, float high) { return x < low ? low : x > high ? high : x; }

float sum_of(const float lanes[kLanes]) {
  float sum = 0.0f;
  for (uint32_t l = 0; l < kLanes; ++l) sum += lanes[l];
  return sum;
}

struct ScaleMin {
  float scale = 0.0f, min = 0.0f;  // value = scale * code - min, both >= 0
};

/// 32 values with their weights and what sums over them do not depend on the codes.
struct WeightedBlock {
  const float* x;
  float weight[kBlockCols];
  float sw = 0, sx = 0, sxx = 0;
  float low = 0, high = 0;

  explicit WeightedBlock(const float* values) : x(values), high(values[0]) {
    float squares = 0.0f;
    for (size_t i = 0; i < kBlockCols; ++i) {
      low = std::fmin(low, x[i]);
      high = std::fmax(high, x[i]);
      squares += x[i] * x[i];
    }
    const float rms = std::sqrt(squares / static_cast<float>(kBlockCols));
    for (size_t i = 0; i < kBlockCols; ++i) {
      weight[i] = rms + std::fabs(x[i]);
      sw += weight[i];
      sx += weight[i] * x[i];
      sxx += weight[i] * x[i] * x[i];
    }
  }

  /// Codes for scale and minimum, and the sums of weight * code, weight * code^2, weight * code * x.
  void sums(float inverse, float min, float top, float* sq, float* sqq, float* sqx) const {
    float q[kLanes] = {}, qq[kLanes] = {}, qx[kLanes] = {};
    for (uint32_t i = 0; i < kBlockCols; i += kLanes) {
      for (uint32_t l = 0; l < kLanes; ++l) {
        const float code = clamp(round_even((x[i + l] + min) * inverse), 0.0f, top);
        const float weighted = weight[i + l] * code;
        q[l] += weighted;
        qq[l] += weighted * code;
        qx[l] += weighted * x[i + l];
      }
    }
    *sq = sum_of(q);
    *sqq = sum_of(qq);
    *sqx = sum_of(qx);
  }
};

/// Starts from the range of the block and sweeps the number of levels that it is spread over, from one less
/// than there are to two more; the last ones cut off outliers.
ScaleMin fit_scale_min(const float* x, float top) {
  const WeightedBlock block(x);
  if (block.high <= block.low) return {0.0f, -block.low};
  ScaleMin best{(block.high - block.low) / top, -block.low};
  float best_error = INFINITY;
  constexpr int kSteps = 20;
  for (int step = 0; step <= kSteps; ++step) {
    const float levels = top - 1.0f + 0.15f * static_cast<float>(step);
    float sq, sqq, sqx;
    block.sums(levels / (block.high - block.low), -block.low, top, &sq, &sqq, &sqx);
    const float determinant = block.sw * sqq - sq * sq;
    if (!(determinant > 0.0f)) continue;
    float scale = (block.sw * sqx - sq * block.sx) / determinant;
    float min = (sq * sqx - sqq * block.sx) / determinant;
    if (min < 0.0f) {  // the format's minimum is never positive: fit the scale alone
      min = 0.0f;
      scale = sqx / sqq;
    }
    if (!(scale > 0.0f)) continue;
    const float error = block.sxx + scale * scale * sqq + min * min * block.sw - 2.0f * scale * sqx +
                        2.0f * min * block.sx - 2.0f * scale * min * sq;
    if (error < best_error) {
      best_error = error;
      best = {scale, min};
    }
  }
  return best;
}

/// 6-bit scale and minimum of block `sub` into the twelve bytes that hold eight of each.
void merge_levels(uint8_t* p, uint32_t sub, uint32_t scale, uint32_t min) {
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

/// Scale of 16 values for codes -32..31: least squares with the squares of the values as weights.
float fit_scale(const float* x) {
  constexpr uint32_t kCols = 16;
  float extreme = 0.0f;
  for (uint32_t i = 0; i < kCols; ++i) {
    if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
  }
  if (extreme == 0.0f) return 0.0f;
  float best = 0.0f, scale = extreme / -32.0f;
  for (int step = -9; step <= 9; ++step) {
    const float inverse = -(32.0f + 0.1f * static_cast<float>(step)) / extreme;
    float qx[kLanes] = {}, qq[kLanes] = {};
    for (uint32_t i = 0; i < kCols; i += kLanes) {
      for (uint32_t l = 0; l < kLanes; ++l) {
        const float value = x[i + l];
        const float code = clamp(round_even(value * inverse), -32.0f, 31.0f);
        qx[l] += value * value * code * value;
        qq[l] += value * value * code * code;
      }
    }
    const float sqx = sum_of(qx), sqq = sum_of(qq);
    if (sqq > 0.0f && sqx * sqx > best * sqq) {
      best = sqx * sqx / sqq;
      scale = sqx / sqq;
    }
  }
  return scale;
}

}  // namespace

void quantize_scale_min(const QuantFormat& format, const float* x, uint8_t* dst) {
  const auto top = static_cast<float>((1 << (format.low_bits + format.high_bits)) - 1);
  ScaleMin fits[kSubs];
  float max_scale = 0.0f, max_min = 0.0f;
  for (uint32_t sub = 0; sub < kSubs; ++sub) {
    fits[sub] = fit_scale_min(x + sub * kBlockCols, top);
    max_scale = std::fmax(max_scale, fits[sub].scale);
    max_min = std::fmax(max_min, fits[sub].min);
  }
  write_f16(dst, max_scale / kMaxLevel);
  write_f16(dst + 2, max_min / kMaxLevel);
  const auto level = [](float value, float largest) -> uint32_t {
    return largest > 0.0f ? static_cast<uint32_t>(round_even(kMaxLevel * value / largest)) : 0u;
  };
  for (uint32_t sub = 0; sub < kSubs; ++sub)
    merge_levels(dst + 4, sub, level(fits[sub].scale, max_scale), level(fits[sub].min, max_min));
  for (uint32_t sub = 0; sub < kSubs; ++sub) {
    const BlockScale stored = block_scale(format.dtype, dst, sub);
    uint8_t codes[kBlockCols] = {};
    for (uint32_t i = 0; i < kBlockCols && stored.scale[0] > 0.0f; ++i) {
      const float steps = (x[sub * kBlockCols + i] - stored.min[0]) / stored.scale[0];
      codes[i] = static_cast<uint8_t>(round_even(clamp(steps, 0.0f, top)));
    }
    encode_codes(format, codes, sub, dst);
  }
}

void quantize_q6_k(const QuantFormat& format, const float* x, uint8_t* dst) {
  constexpr uint32_t kHalves = 2 * kSubs, kCols = kBlockCols / 2, kScales = 192, kScale = 208;
  float scales[kHalves], extreme = 0.0f;
  for (uint32_t half = 0; half < kHalves; ++half) {
    scales[half] = fit_scale(x + half * kCols);
    if (std::fabs(scales[half]) > std::fabs(extreme)) extreme = scales[half];
  }
  // The largest scale becomes -128, the end of the range that has one level more.
  write_f16(dst + kScale, extreme / -128.0f);
  for (uint32_t half = 0; half < kHalves && extreme != 0.0f; ++half) {
    const float level = clamp(round_even(-128.0f * scales[half] / extreme), -128.0f, 127.0f);
    dst[kScales + half] = static_cast<uint8_t>(static_cast<int8_t>(level));
  }
  for (uint32_t sub = 0; sub < kSubs; ++sub) {
    const BlockScale stored = block_scale(format.dtype, dst, sub);
    uint8_t codes[kBlockCols];
    for (uint32_t i = 0; i < kBlockCols; ++i) {
      const float scale = stored.scale[i / kCols];
      const float steps = scale == 0.0f ? 0.0f : x[sub * kBlockCols + i] / scale;
      codes[i] = static_cast<uint8_t>(round_even(clamp(steps, -32.0f, 31.0f)) + 32.0f);
    }
    encode_codes(format, codes, sub, dst);
  }
}

}  // namespace nearmoe
