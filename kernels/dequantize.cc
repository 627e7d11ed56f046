// Conversion of weights from file layout to floats; the same products and sums as gguf-py's `gguf.quants`, so
// results agree bit for bit. Called by the loader for small tensors and by tests.
#include <cstring>

#include "half.h"
#include "ops.h"
#include "quant_format.h"

namespace nearmoe {
namespace {

uint16_t word_at(const uint8_t* src, size_t i) {
  uint16_t word;
  std::memcpy(&word, src + 2 * i, sizeof word);
  return word;
}

}  // namespace

void dequantize(DType dtype, const std::byte* src, float* dst, size_t n) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(src);
  const QuantFormat* format = quant_format(dtype);
  if (!format) {
    if (dtype == DType::F32) std::memcpy(dst, src, n * sizeof(float));
    if (dtype == DType::F16) {
      for (size_t i = 0; i < n; ++i) dst[i] = f16_to_f32(word_at(bytes, i));
    }
    if (dtype == DType::BF16) {
      for (size_t i = 0; i < n; ++i) dst[i] = bf16_to_f32(word_at(bytes, i));
    }
    return;
  }
  const size_t source_block = traits(dtype).block_bytes;
  for (size_t b = 0; b < n / kBlockCols; ++b, dst += kBlockCols) {
    const uint8_t* source = bytes + b / format->subs * source_block;
    const auto sub = static_cast<uint32_t>(b % format->subs);
    uint8_t codes[kBlockCols];
    decode_codes(*format, source, sub, codes);
    const BlockScale scale = block_scale(dtype, source, sub);
    for (uint32_t k = 0; k < kBlockCols; ++k) {
      const float product = scale.scale[k / 16] * static_cast<float>(code_value(*format, codes[k]));
      dst[k] = format->has_min ? product + scale.min[k / 16] : product;
    }
  }
}

}  // namespace nearmoe
