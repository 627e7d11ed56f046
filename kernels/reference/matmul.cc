// y = W x over packed weights. Float formats: one fma chain per (row, token) in column order. Block formats:
// the exact integer dot product of each block (or half block), one fma for its scale and, where the format
// has minima, one more.
#include <cmath>
#include <cstring>

#include "../activations.h"
#include "packed_values.h"
#include "reference.h"

namespace nearmoe::reference {
namespace {

const std::byte* token_row(const ActView& x, size_t t) {
  return x.data + (x.index ? x.index[t] : t) * x.stride;
}

void matmul_float(const PackedMatrix& w, const ActView& x, float* y, size_t ldy) {
  for (size_t n = 0; n < w.rows; ++n) {
    for (size_t t = 0; t < x.count; ++t) {
      const std::byte* row = token_row(x, t);
      float acc = 0.0f;
      for (size_t c = 0; c < w.cols; ++c) {
        float value;
        std::memcpy(&value, row + c * sizeof value, sizeof value);
        acc = std::fma(packed_float(w, n, c), value, acc);
      }
      y[t * ldy + n] = acc;
    }
  }
}

float add_block(const RowBlock& block, const QuantFormat& format, const int8_t* a, const Q8Meta& meta,
                float acc) {
  const uint32_t width = kBlockCols / format.halves;
  for (uint32_t h = 0; h < format.halves; ++h) {
    int32_t dot = 0;
    for (uint32_t k = h * width; k < (h + 1) * width; ++k) dot += block.values[k] * a[k];
    acc = std::fma(static_cast<float>(dot), block.scale.scale[h] * meta.scale, acc);
    if (format.has_min) {
      acc = std::fma(block.scale.min[h], format.halves == 1 ? meta.scaled_sum : meta.scaled_half[h], acc);
    }
  }
  return acc;
}

void matmul_quantised(const PackedMatrix& w, const QuantFormat& format, const ActView& x, float* y,
                      size_t ldy) {
  const PackedLayout layout = packed_layout(format, w.cols, w.col_begin);
  for (size_t n = 0; n < w.rows; ++n) {
    for (size_t t = 0; t < x.count; ++t) y[t * ldy + n] = 0.0f;
    for (size_t b = 0; b < layout.blocks; ++b) {
      const RowBlock block = load_block(w, format, layout, n, b);
      for (size_t t = 0; t < x.count; ++t) {
        const std::byte* row = token_row(x, t);
        Q8Meta meta;
        std::memcpy(&meta, row + q8_value_bytes(w.cols) + b * sizeof meta, sizeof meta);
        const auto* values = reinterpret_cast<const int8_t*>(row) + b * kBlockCols;
        y[t * ldy + n] = add_block(block, format, values, meta, y[t * ldy + n]);
      }
    }
  }
}

}  // namespace

void matmul(const PackedMatrix& w, const ActView& x, float* y, size_t ldy) {
  const QuantFormat* format = quant_format(w.dtype);
  if (format) {
    matmul_quantised(w, *format, x, y, ldy);
  } else {
    matmul_float(w, x, y, ldy);
  }
}

}  // namespace nearmoe::reference
