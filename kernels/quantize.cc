// Quantisation of float rows to file layout, for checkpoints loaded with `quantize` and for `convert`: the
// formats of 32-column blocks; those of 256 columns are in quantize_k.cc. All but iq4_nl, which gguf-py
// cannot write, round as gguf-py does, bit for bit. A block with NaN or infinity gets a scale that pack()
// refuses.
#include <cmath>
#include <cstring>

#include "half.h"
#include "ops.h"
#include "quant_format.h"
#include "quantize.h"

namespace nearmoe {
namespace {

void write_f16(uint8_t* dst, float x) {
  const uint16_t word = f32_to_f16(x);
  std::memcpy(dst, &word, sizeof word);
}

uint8_t clamp_code(float q, float top) {
  return static_cast<uint8_t>(!(q > 0.0f) ? 0.0f : q > top ? top : q);
}

/// Nearest integer, halves away from zero; |x| < 2^30. (std::round is a call on the baseline ISA.)
int round_away(float x) {
  const float magnitude = std::fabs(x);
  const int whole = static_cast<int>(magnitude);
  const int rounded = whole + (magnitude - static_cast<float>(whole) >= 0.5f ? 1 : 0);
  return x < 0.0f ? -rounded : rounded;
}

void quantize_q8_0(const float* x, uint8_t* dst) {
  const float d = max_magnitude(x, kBlockCols) / 127.0f;
  const float inverse = d == 0.0f ? 0.0f : 1.0f / d;
  write_f16(dst, d);
  const bool usable = std::isfinite(d) && std::isfinite(inverse);
  for (size_t i = 0; i < kBlockCols; ++i) {
    dst[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(usable ? round_away(x[i] * inverse) : 0));
  }
}

/// q4_0 and q5_0: the value of largest magnitude becomes code 0, so that the side it is on gets one level
/// more.
void quantize_symmetric(const QuantFormat& format, const float* x, uint8_t* dst) {
  float extreme = 0.0f;
  for (size_t i = 0; i < kBlockCols; ++i) {
    if (!(std::fabs(x[i]) <= std::fabs(extreme))) extreme = x[i];
  }
  const auto zero = static_cast<float>(format.zero);
  const float d = extreme / -zero;
  const float inverse = d == 0.0f ? 0.0f : 1.0f / d;
  write_f16(dst, d);
  uint8_t codes[kBlockCols];
  for (size_t i = 0; i < kBlockCols; ++i)
    codes[i] = clamp_code(std::trunc(x[i] * inverse + (zero + 0.5f)), 2.0f * zero - 1.0f);
  encode_codes(format, codes, 0, dst);
}

/// q4_1 and q5_1: the range of the block in equal steps.
void quantize_range(const QuantFormat& format, const float* x, uint8_t* dst) {
  float low = x[0], high = x[0];
  for (size_t i = 1; i < kBlockCols; ++i) {
    low = x[i] < low ? x[i] : low;
    high = x[i] > high ? x[i] : high;
  }
  const auto top = static_cast<float>((1 << (format.low_bits + format.high_bits)) - 1);
  const float d = (high - low) / top;
  const float inverse = d == 0.0f ? 0.0f : 1.0f / d;
  write_f16(dst, d);
  write_f16(dst + 2, low);
  uint8_t codes[kBlockCols];
  for (size_t i = 0; i < kBlockCols; ++i)
    codes[i] = clamp_code(std::trunc((x[i] - low) * inverse + 0.5f), top);
  encode_codes(format, codes, 0, dst);
}

/// The code whose value in the format's table is nearest; of equally near ones the lowest.
uint8_t nearest_code(const int8_t* table, float x) {
  uint8_t best = 0;
  float best_distance = INFINITY;
  for (uint8_t code = 0; code < 16; ++code) {
    const float distance = std::fabs(static_cast<float>(table[code]) - x);
    if (distance < best_distance) {
      best_distance = distance;
      best = code;
    }
  }
  return best;
}

/// The power of two as OCP's microscaling formats choose it: the largest value's exponent less that of 4.0.
void quantize_mxfp4(const QuantFormat& format, const float* x, uint8_t* dst) {
  const float largest = max_magnitude(x, kBlockCols);
  const int exponent = static_cast<int>((float_bits(largest) >> 23) & 0xffu) - 2;
  dst[0] = static_cast<uint8_t>(exponent > 0 ? exponent : 0);
  const float d = block_scale(DType::MXFP4, dst, 0).scale[0];
  uint8_t codes[kBlockCols];
  for (size_t i = 0; i < kBlockCols; ++i) {
    codes[i] = 0;
    float best = INFINITY;
    for (uint8_t code = 0; code < 16; ++code) {
      const float distance = std::fabs(d * static_cast<float>(format.lut[code]) - x[i]);
      if (distance < best) {
        best = distance;
        codes[i] = code;
      }
    }
  }
  encode_codes(format, codes, 0, dst);
}

/// Tries scales around the one that puts the extreme value on the table's end, solves the weighted least
/// squares for each assignment of codes and keeps the best.
void quantize_iq4_nl(const QuantFormat& format, const float* x, uint8_t* dst) {
  float extreme = 0.0f;
  for (size_t i = 0; i < kBlockCols; ++i) {
    if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
  }
  float scale = 0.0f, best = 0.0f;
  for (int step = -7; step <= 7 && extreme != 0.0f; ++step) {
    const float inverse = static_cast<float>(format.lut[0] + step) / extreme;
    float sqx = 0.0f, sqq = 0.0f;
    for (size_t i = 0; i < kBlockCols; ++i) {
      const auto q = static_cast<float>(format.lut[nearest_code(format.lut, x[i] * inverse)]);
      const float weight = x[i] * x[i];
      sqx += weight * q * x[i];
      sqq += weight * q * q;
    }
    // What the best scale for these codes takes off the squared error is sqx^2 / sqq.
    if (sqq > 0.0f && sqx * sqx > best * sqq) {
      scale = sqx / sqq;
      best = sqx * sqx / sqq;
    }
  }
  write_f16(dst, scale);
  const float stored = block_scale(DType::IQ4_NL, dst, 0).scale[0];
  const float inverse = stored == 0.0f ? 0.0f : 1.0f / stored;
  uint8_t codes[kBlockCols];
  for (size_t i = 0; i < kBlockCols; ++i) codes[i] = nearest_code(format.lut, x[i] * inverse);
  encode_codes(format, codes, 0, dst);
}

bool quantize_float(DType dtype, const float* src, size_t n, uint8_t* out) {
  if (dtype == DType::F32) {
    std::memcpy(out, src, n * sizeof(float));
    return true;
  }
  for (size_t i = 0; i < n; ++i) {
    const uint16_t word = dtype == DType::F16 ? f32_to_f16(src[i]) : f32_to_bf16(src[i]);
    std::memcpy(out + 2 * i, &word, sizeof word);
  }
  return true;
}

void (*block_quantizer(DType dtype))(const QuantFormat&, const float*, uint8_t*) {
  switch (dtype) {
    case DType::Q8_0:
      return [](const QuantFormat&, const float* x, uint8_t* dst) { quantize_q8_0(x, dst); };
    case DType::Q4_0:
    case DType::Q5_0:
      return quantize_symmetric;
    case DType::Q4_1:
    case DType::Q5_1:
      return quantize_range;
    case DType::Q4_K:
    case DType::Q5_K:
      return quantize_scale_min;
    case DType::Q6_K:
      return quantize_q6_k;
    case DType::IQ4_NL:
      return quantize_iq4_nl;
    case DType::MXFP4:
      return quantize_mxfp4;
    default:
      return nullptr;
  }
}

/// A block of zeros whose scale is infinite.
void refuse_block(const QuantFormat& format, uint8_t* dst) {
  std::memset(dst, 0, traits(format.dtype).block_bytes);
  if (format.dtype == DType::MXFP4)
    dst[0] = 0xff;
  else
    write_f16(dst + format.pieces[0].offset, INFINITY);
}

}  // namespace

float max_magnitude(const float* x, size_t n) {
  uint32_t largest = 0;
  for (size_t i = 0; i < n; ++i) {
    const uint32_t magnitude = float_bits(x[i]) & 0x7fffffffu;
    largest = magnitude > largest ? magnitude : largest;
  }
  return bits_float(largest);
}

bool can_quantize(DType dtype) { return quant_format(dtype) == nullptr || block_quantizer(dtype) != nullptr; }

bool quantize(DType dtype, const float* src, size_t rows, size_t cols, std::byte* dst) {
  auto* out = reinterpret_cast<uint8_t*>(dst);
  const FormatTraits& traits_of = traits(dtype);
  if (!can_quantize(dtype) || cols % traits_of.block_cols != 0) return false;
  const QuantFormat* format = quant_format(dtype);
  if (format == nullptr) return quantize_float(dtype, src, rows * cols, out);
  const auto quantize_block = block_quantizer(dtype);
  for (size_t i = 0; i < rows * cols; i += traits_of.block_cols, out += traits_of.block_bytes) {
    std::memset(out, 0, traits_of.block_bytes);
    if (std::isfinite(max_magnitude(src + i, traits_of.block_cols)))
      quantize_block(*format, src + i, out);
    else
      refuse_block(*format, out);
  }
  return true;
}

}  // namespace nearmoe
