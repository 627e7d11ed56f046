// One row of a packed matrix as floats; the same bits as dequantize gives for the source row.
#include "packed_values.h"
#include "reference.h"

namespace nearmoe::reference {

void unpack_row(const PackedMatrix& w, size_t row, float* out) {
  const QuantFormat* format = quant_format(w.dtype);
  if (!format) {
    for (size_t c = 0; c < w.cols; ++c) out[c] = packed_float(w, row, c);
    return;
  }
  const PackedLayout layout = packed_layout(*format, w.cols, w.col_begin);
  for (size_t b = 0; b < layout.blocks; ++b, out += kBlockCols) {
    const RowBlock block = load_block(w, *format, layout, row, b);
    for (uint32_t k = 0; k < kBlockCols; ++k) {
      const float product = block.scale.scale[k / 16] * static_cast<float>(block.values[k]);
      out[k] = format->has_min ? product + block.scale.min[k / 16] : product;
    }
  }
}

}  // namespace nearmoe::reference
