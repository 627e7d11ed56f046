// Scalar access to the values of a packed matrix, for the reference matmul and unpack_row.
#pragma once

#include <cstring>

#include "../half.h"
#include "../quant_format.h"

namespace nearmoe::reference {

inline float packed_float(const PackedMatrix& w, size_t row, size_t col) {
  const std::byte* group = w.data + row / kRowGroup * float_group_bytes(w.dtype, w.cols);
  const size_t lane = row % kRowGroup;
  if (w.dtype == DType::F32) {
    float value;
    std::memcpy(&value, group + (col * kRowGroup + lane) * sizeof value, sizeof value);
    return value;
  }
  const size_t index =
      w.dtype == DType::F16 ? col * kRowGroup + lane : (col / 2) * 2 * kRowGroup + 2 * lane + col % 2;
  uint16_t word;
  std::memcpy(&word, group + index * sizeof word, sizeof word);
  return w.dtype == DType::F16 ? f16_to_f32(word) : bf16_to_f32(word);
}

/// One block of one row: integer weight values with the scales and minima of both halves.
struct RowBlock {
  int values[kBlockCols];
  BlockScale scale;
};

inline RowBlock load_block(const PackedMatrix& w, const QuantFormat& format, const PackedLayout& layout,
                           size_t row, size_t b) {
  const auto* group = reinterpret_cast<const uint8_t*>(w.data) + row / kRowGroup * layout.group_bytes;
  const size_t place = layout.phase + b;
  uint8_t source[256] = {};  // the header of the source block; its codes are not needed
  load_header(format, group + packed_header_offset(layout, place / format.subs), row % kRowGroup, source);
  uint8_t codes[kBlockCols];
  load_codes(format, group + packed_codes_offset(layout, b), row % kRowGroup, codes);
  RowBlock out{};
  out.scale = block_scale(format.dtype, source, static_cast<uint32_t>(place % format.subs));
  for (uint32_t k = 0; k < kBlockCols; ++k) out.values[k] = code_value(format, codes[k]);
  return out;
}

}  // namespace nearmoe::reference
