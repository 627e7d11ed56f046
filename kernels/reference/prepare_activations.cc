// Activations for matmul: plain floats, or int8 in blocks of 32 with scale and sums (see activations.h).
#include <cmath>
#include <cstring>

#include "../activations.h"
#include "../half.h"
#include "../quant_format.h"
#include "reference.h"

namespace nearmoe::reference {

void quantise_row(const float* x, size_t cols, int8_t* values, std::byte* meta) {
  for (size_t first = 0; first < cols; first += kBlockCols, meta += sizeof(Q8Meta)) {
    const size_t present = cols - first < kBlockCols ? cols - first : kBlockCols;
    uint32_t largest = 0;  // compared as bits, so that NaN and infinity survive as the scale
    for (size_t i = 0; i < present; ++i) {
      const uint32_t magnitude = float_bits(x[first + i]) & 0x7fffffffu;
      largest = magnitude > largest ? magnitude : largest;
    }
    const float top = bits_float(largest);
    Q8Meta block{};
    const bool quantisable = top >= kQ8Smallest && top <= 0x1.fffffep+127f;
    block.scale = top < kQ8Smallest ? 0.0f : top / 127.0f;
    const float inverse = quantisable ? 127.0f / top : 0.0f;
    for (size_t i = 0; i < kBlockCols; ++i) {
      const float q = quantisable && i < present ? std::nearbyint(x[first + i] * inverse) : 0.0f;
      values[first + i] = static_cast<int8_t>(q);
      block.half[i / 16] += values[first + i];
    }
    block.sum = block.half[0] + block.half[1];
    block.scaled_sum = block.scale * static_cast<float>(block.sum);
    for (int h = 0; h < 2; ++h) block.scaled_half[h] = block.scale * static_cast<float>(block.half[h]);
    std::memcpy(meta, &block, sizeof block);
  }
}

void prepare_activations(ActFormat format, const float* x, size_t x_stride, size_t tokens, size_t cols,
                         std::byte* out) {
  const size_t stride = activation_stride(format, cols);
  for (size_t t = 0; t < tokens; ++t, x += x_stride, out += stride) {
    if (format == ActFormat::F32) {
      std::memcpy(out, x, cols * sizeof(float));
      continue;
    }
    std::memset(out, 0, stride);
    quantise_row(x, cols, reinterpret_cast<int8_t*>(out), out + q8_value_bytes(cols));
  }
}

}  // namespace nearmoe::reference
