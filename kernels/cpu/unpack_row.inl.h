// unpack_row: one row of a packed matrix as floats, for embeddings. Unpacks the row group's block and keeps
// one row.

#include "../half.h"
#include "quant_block.h"

namespace nearmoe {
namespace {

template <class Q>
static void unpack_blocks(const PackedMatrix& w, size_t row, float* out) {
  const PackedLayout layout = packed_layout(*quant_format(Q::kDType), w.cols, w.col_begin);
  const auto* group = reinterpret_cast<const uint8_t*>(w.data) + row / kRowGroup * layout.group_bytes;
  const size_t lane = row % kRowGroup;
  constexpr bool kSignedBytes = Q::kMaxCode > 127 && kWideSigned;
  VF scale[Q::kSubs * Q::kHalves], min[Q::kSubs * Q::kHalves];
  for (size_t b = 0; b < layout.blocks; ++b) {
    const size_t place = layout.phase + b, sub = place % Q::kSubs;
    if (b == 0 || sub == 0) Q::scales(group + packed_header_offset(layout, place / Q::kSubs), scale, min);
    VB w8[8];
    Q::codes(group + packed_codes_offset(layout, b), w8);
    alignas(64) uint8_t codes[8][64];
    for (int j = 0; j < 8; ++j) b_store(codes[j], w8[j]);
    for (size_t h = 0; h < 2; ++h) {
      float scales[16], mins[16] = {};
      f_store(scales, scale[sub * Q::kHalves + (Q::kHalves == 2 ? h : 0)]);
      if constexpr (Q::kHasMin) f_store(mins, min[sub * Q::kHalves + (Q::kHalves == 2 ? h : 0)]);
      for (size_t k = 16 * h; k < 16 * h + 16; ++k, ++out) {
        const uint8_t code = codes[k / 4][4 * lane + k % 4];
        const int value = kSignedBytes ? static_cast<int8_t>(code) : code - Q::kZero;
        *out = scales[lane] * static_cast<float>(value);
        if constexpr (Q::kHasMin) *out += mins[lane];
      }
    }
  }
}

static void unpack_row(const PackedMatrix& w, size_t row, float* out) {
  const auto* data = reinterpret_cast<const uint8_t*>(w.data);
  switch (w.dtype) {
    case DType::F32:
    case DType::F16:
    case DType::BF16: {
      const size_t width = w.dtype == DType::F32 ? 4 : 2;
      const uint8_t* group = data + row / kRowGroup * float_group_bytes(w.dtype, w.cols);
      for (size_t c = 0; c < w.cols; ++c) {
        const size_t index = w.dtype == DType::BF16 ? c / 2 * 32 + row % 16 * 2 + c % 2 : c * 16 + row % 16;
        if (width == 4) {
          std::memcpy(out + c, group + index * 4, 4);
        } else {
          uint16_t word;
          std::memcpy(&word, group + index * 2, 2);
          out[c] = w.dtype == DType::F16 ? f16_to_f32(word) : bf16_to_f32(word);
        }
      }
      return;
    }
    case DType::Q8_0:
      return unpack_blocks<Q8_0Format>(w, row, out);
    case DType::Q4_0:
      return unpack_blocks<Q4_0Format>(w, row, out);
    case DType::Q4_1:
      return unpack_blocks<Q4_1Format>(w, row, out);
    case DType::Q5_0:
      return unpack_blocks<Q5_0Format>(w, row, out);
    case DType::Q5_1:
      return unpack_blocks<Q5_1Format>(w, row, out);
    case DType::Q2_K:
      return unpack_blocks<Q2KFormat>(w, row, out);
    case DType::Q3_K:
      return unpack_blocks<Q3KFormat>(w, row, out);
    case DType::Q4_K:
      return unpack_blocks<Q4KFormat>(w, row, out);
    case DType::Q5_K:
      return unpack_blocks<Q5KFormat>(w, row, out);
    case DType::Q6_K:
      return unpack_blocks<Q6KFormat>(w, row, out);
    case DType::IQ4_NL:
      return unpack_blocks<Iq4NlFormat>(w, row, out);
    case DType::IQ4_XS:
      return unpack_blocks<Iq4XsFormat>(w, row, out);
    case DType::MXFP4:
      return unpack_blocks<Mxfp4Format>(w, row, out);
  }
}

}  // namespace
}  // namespace nearmoe
