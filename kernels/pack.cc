// Packing of weight rows from file layout into groups of 16 interleaved rows, and back. Called by the loader
// for each slice; values are moved bit for bit, never converted.
#include <cstring>

#include "ops.h"
#include "quant_format.h"

namespace nearmoe {
namespace {

const uint8_t* bytes_of(const std::byte* p) { return reinterpret_cast<const uint8_t*>(p); }
uint8_t* bytes_of(std::byte* p) { return reinterpret_cast<uint8_t*>(p); }

/// Index of an element of one packed float group: BF16 interleaves pairs of columns, the others single
/// columns.
size_t float_index(DType dtype, size_t row, size_t col) {
  if (dtype == DType::BF16) return (col / 2) * 2 * kRowGroup + 2 * row + col % 2;
  return col * kRowGroup + row;
}

bool finite_bits(DType dtype, uint32_t bits) {
  const uint32_t exponent = dtype == DType::F32 ? 0x7f800000u : dtype == DType::F16 ? 0x7c00u : 0x7f80u;
  return (bits & exponent) != exponent;
}

template <class Word>
bool pack_float(DType dtype, const uint8_t* src, size_t row_bytes, size_t rows, size_t col_begin, size_t cols,
                uint8_t* dst) {
  bool finite = true;
  for (size_t first = 0; first < rows; first += kRowGroup, dst += float_group_bytes(dtype, cols)) {
    const size_t present = rows - first < kRowGroup ? rows - first : kRowGroup;
    if (present < kRowGroup || cols % 2) std::memset(dst, 0, float_group_bytes(dtype, cols));
    for (size_t row = 0; row < present; ++row) {
      const uint8_t* from = src + (first + row) * row_bytes + col_begin * sizeof(Word);
      for (size_t col = 0; col < cols; ++col) {
        Word value;
        std::memcpy(&value, from + col * sizeof(Word), sizeof value);
        finite = finite && finite_bits(dtype, value);
        std::memcpy(dst + float_index(dtype, row, col) * sizeof(Word), &value, sizeof value);
      }
    }
  }
  return finite;
}

template <class Word>
void unpack_float(const PackedMatrix& w, uint8_t* dst) {
  const uint8_t* src = bytes_of(w.data);
  for (size_t row = 0; row < w.rows; ++row) {
    const uint8_t* group = src + row / kRowGroup * float_group_bytes(w.dtype, w.cols);
    for (size_t col = 0; col < w.cols; ++col, dst += sizeof(Word)) {
      std::memcpy(dst, group + float_index(w.dtype, row % kRowGroup, col) * sizeof(Word), sizeof(Word));
    }
  }
}

/// Source offset of 32 bytes or nibbles whose order in the file is the packed order, 0 where codes must be
/// rearranged.
size_t direct_offset(DType dtype, uint32_t sub) {
  Plane planes[3];
  const int count = source_planes(dtype, sub, planes);
  const bool bytes = count == 1 && planes[0].bits == 8;
  const bool nibbles = count == 2 && planes[0].count == 16 && planes[0].offset == planes[1].offset;
  return bytes || nibbles ? planes[0].offset : 0;
}

void pack_block(const QuantFormat& format, const uint8_t* source, uint32_t sub, size_t row, uint8_t* dst) {
  const size_t direct = direct_offset(format.dtype, sub);
  if (direct == 0) {
    uint8_t codes[kBlockCols];
    decode_codes(format, source, sub, codes);
    store_codes(format, codes, row, dst);
    return;
  }
  const uint32_t flip = 0x01010101u * format.code_xor;
  for (uint32_t j = 0; j < format.low_bits; ++j) {
    uint32_t word;
    std::memcpy(&word, source + direct + 4 * j, sizeof word);
    word ^= flip;
    std::memcpy(dst + 64 * j + 4 * row, &word, sizeof word);
  }
}

bool pack_quantised(const QuantFormat& format, const uint8_t* src, size_t row_bytes, size_t rows,
                    size_t col_begin, size_t cols, uint8_t* dst) {
  const PackedLayout layout = packed_layout(format, cols, col_begin);
  const size_t source_block = traits(format.dtype).block_bytes;
  const size_t records = (layout.superblocks + layout.record_supers - 1) / layout.record_supers;
  src += col_begin / (kBlockCols * format.subs) * source_block;
  bool finite = true;
  for (size_t first = 0; first < rows; first += kRowGroup, dst += layout.group_bytes) {
    if (rows - first < kRowGroup) std::memset(dst, 0, layout.group_bytes);
    for (size_t index = 0; index < records; ++index) {
      const Record record = packed_record(layout, index);
      // Only headers leave gaps, in a last record that is not full.
      std::memset(dst + record.offset, 0, record.codes - record.offset);
      for (size_t row = 0; row < kRowGroup && first + row < rows; ++row) {
        const uint8_t* from = src + (first + row) * row_bytes;
        for (size_t s = 0; s < record.supers; ++s) {
          const uint8_t* source = from + (record.first_super + s) * source_block;
          finite = finite && !bad_scale(format, source);
          store_header(format, source, row, dst + record.offset + s * layout.header_bytes);
        }
        for (size_t b = 0; b < record.blocks; ++b) {
          const size_t place = layout.phase + record.first_block + b;
          pack_block(format, from + place / format.subs * source_block,
                     static_cast<uint32_t>(place % format.subs), row,
                     dst + record.codes + b * layout.code_bytes);
        }
      }
    }
  }
  return finite;
}

}  // namespace

size_t packed_bytes(DType dtype, size_t rows, size_t cols, size_t col_begin) {
  const size_t groups = (rows + kRowGroup - 1) / kRowGroup;
  const QuantFormat* format = quant_format(dtype);
  return groups *
         (format ? packed_layout(*format, cols, col_begin).group_bytes : float_group_bytes(dtype, cols));
}

bool pack(DType dtype, const std::byte* src, size_t row_bytes, size_t rows, size_t col_begin, size_t cols,
          std::byte* dst) {
  const QuantFormat* format = quant_format(dtype);
  if (format) return pack_quantised(*format, bytes_of(src), row_bytes, rows, col_begin, cols, bytes_of(dst));
  if (dtype == DType::F32) {
    return pack_float<uint32_t>(dtype, bytes_of(src), row_bytes, rows, col_begin, cols, bytes_of(dst));
  }
  return pack_float<uint16_t>(dtype, bytes_of(src), row_bytes, rows, col_begin, cols, bytes_of(dst));
}

void unpack(const PackedMatrix& w, std::byte* dst) {
  const QuantFormat* format = quant_format(w.dtype);
  if (!format) {
    if (w.dtype == DType::F32) return unpack_float<uint32_t>(w, bytes_of(dst));
    return unpack_float<uint16_t>(w, bytes_of(dst));
  }
  const PackedLayout layout = packed_layout(*format, w.cols, w.col_begin);
  const size_t source_block = traits(w.dtype).block_bytes;
  for (size_t row = 0; row < w.rows; ++row) {
    const uint8_t* group = bytes_of(w.data) + row / kRowGroup * layout.group_bytes;
    uint8_t* to = bytes_of(dst) + row * layout.superblocks * source_block;
    std::memset(to, 0, layout.superblocks * source_block);
    for (size_t s = 0; s < layout.superblocks; ++s) {
      load_header(*format, group + packed_header_offset(layout, s), row % kRowGroup, to + s * source_block);
    }
    for (size_t b = 0; b < layout.blocks; ++b) {
      const size_t place = layout.phase + b;
      uint8_t codes[kBlockCols];
      load_codes(*format, group + packed_codes_offset(layout, b), row % kRowGroup, codes);
      encode_codes(*format, codes, static_cast<uint32_t>(place % format->subs),
                   to + place / format->subs * source_block);
    }
  }
}

}  // namespace nearmoe
