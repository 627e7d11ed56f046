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

/// Four 32-bit words; a compiler's vector, so that one source serves every architecture's baseline.
using Words = uint32_t __attribute__((vector_size(16)));

Words load_words(const uint8_t* p) {
  Words words;
  std::memcpy(&words, p, sizeof words);
  return words;
}

/// Word j of four rows side by side at dst + 64 * j: a quarter of what a group of 16 rows has there.
void store_transposed(Words a, Words b, Words c, Words d, uint8_t* dst) {
  const Words low_ab = __builtin_shufflevector(a, b, 0, 4, 1, 5);
  const Words high_ab = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const Words low_cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
  const Words high_cd = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  const Words out[4] = {__builtin_shufflevector(low_ab, low_cd, 0, 1, 4, 5),
                        __builtin_shufflevector(low_ab, low_cd, 2, 3, 6, 7),
                        __builtin_shufflevector(high_ab, high_cd, 0, 1, 4, 5),
                        __builtin_shufflevector(high_ab, high_cd, 2, 3, 6, 7)};
  for (size_t j = 0; j < 4; ++j) std::memcpy(dst + 64 * j, &out[j], sizeof out[j]);
}

/// Moves `words` (a multiple of 4) 32-bit words of 16 rows: values of F32, pairs of columns of BF16. A cache
/// line of each row at a time, since rows often lie a power of two apart. False where one is not finite.
bool transpose_rows(DType dtype, const uint8_t* src, size_t row_bytes, size_t words, uint8_t* dst) {
  constexpr size_t kLineWords = 16;
  // One added to an exponent of only ones carries into the sign's place.
  const uint32_t exponents = dtype == DType::F32 ? 0x7f800000u : 0x7f807f80u;
  const uint32_t ones = dtype == DType::F32 ? 0x00800000u : 0x00800080u;
  const uint32_t carries = dtype == DType::F32 ? 0x80000000u : 0x80008000u;
  Words sums = {};
  for (size_t line = 0; line < words; line += kLineWords) {
    const size_t end = line + kLineWords < words ? line + kLineWords : words;
    for (size_t row = 0; row < kRowGroup; row += 4) {
      const uint8_t* from = src + row * row_bytes;
      for (size_t word = line; word < end; word += 4) {
        Words rows[4];
        for (size_t i = 0; i < 4; ++i) {
          rows[i] = load_words(from + i * row_bytes + 4 * word);
          sums |= (rows[i] & exponents) + ones;
        }
        store_transposed(rows[0], rows[1], rows[2], rows[3], dst + 64 * word + 4 * row);
      }
    }
  }
  return ((sums[0] | sums[1] | sums[2] | sums[3]) & carries) == 0;
}

template <class Word>
bool pack_float(DType dtype, const uint8_t* src, size_t row_bytes, size_t rows, size_t col_begin, size_t cols,
                uint8_t* dst) {
  bool finite = true;
  src += col_begin * sizeof(Word);
  // What is moved four words at a time; F16 interleaves single columns, which are no words.
  const size_t quick = dtype == DType::F16 ? 0 : cols * sizeof(Word) / 16 * (16 / sizeof(Word));
  for (size_t first = 0; first < rows; first += kRowGroup, dst += float_group_bytes(dtype, cols)) {
    const uint8_t* from = src + first * row_bytes;
    const size_t present = rows - first < kRowGroup ? rows - first : kRowGroup;
    if (present < kRowGroup || cols % 2) std::memset(dst, 0, float_group_bytes(dtype, cols));
    const size_t done = present < kRowGroup ? 0 : quick;
    finite &= transpose_rows(dtype, from, row_bytes, done * sizeof(Word) / 4, dst);
    // Few columns at a time keep what is written in the first cache.
    constexpr size_t kTile = 32;
    for (size_t tile = done; tile < cols; tile += kTile) {
      for (size_t row = 0; row < present; ++row) {
        for (size_t col = tile; col < cols && col < tile + kTile; ++col) {
          Word value;
          std::memcpy(&value, from + row * row_bytes + col * sizeof(Word), sizeof value);
          finite &= finite_bits(dtype, value);
          std::memcpy(dst + float_index(dtype, row, col) * sizeof(Word), &value, sizeof value);
        }
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

/// How the low plane of a block lies in its source, as far as it can be moved without taking codes apart.
enum class LowPlane : uint8_t {
  Bytes,    ///< 32 bytes
  Nibbles,  ///< 16 bytes, columns i and 16 + i in one, as packed
  Shifted,  ///< 32 bytes, each with the column's nibble at `shift`
  Other,
};

struct BlockPlan {
  LowPlane low = LowPlane::Other;
  uint32_t offset = 0, shift = 0;
  bool has_high = false;
  Plane high = {};
};

BlockPlan plan_of(const QuantFormat& format, uint32_t sub) {
  Plane planes[3];
  const int count = source_planes(format.dtype, sub, planes);
  BlockPlan plan;
  plan.offset = planes[0].offset;
  plan.shift = planes[0].shift;
  if (planes[0].bits == 8) plan.low = LowPlane::Bytes;
  if (planes[0].bits == 4) plan.low = planes[0].count == 16 ? LowPlane::Nibbles : LowPlane::Shifted;
  plan.has_high = format.high_bits > 0;
  if (plan.has_high) plan.high = planes[count - 1];
  return plan;
}

/// 16 bytes of a packed 4-bit plane of one row.
Words nibble_words(const BlockPlan& plan, const uint8_t* source) {
  const Words first = load_words(source + plan.offset);
  if (plan.low == LowPlane::Nibbles) return first;
  const Words second = load_words(source + plan.offset + 16);
  return plan.shift == 0 ? (first & 0x0f0f0f0fu) | ((second << 4) & 0xf0f0f0f0u)
                         : ((first >> 4) & 0x0f0f0f0fu) | (second & 0xf0f0f0f0u);
}

uint32_t word_at(const uint8_t* p) {
  uint32_t word;
  std::memcpy(&word, p, sizeof word);
  return word;
}

/// High plane of one row of a block: see quant_format.h.
void pack_high(const BlockPlan& plan, uint32_t bits, const uint8_t* source, size_t row, uint8_t* dst) {
  const uint8_t* from = source + plan.high.offset;
  uint32_t words[2] = {0, 0};
  for (uint32_t quad = 0; quad < kBlockCols / 4; ++quad) {
    if (bits == 2) {
      words[quad / 4] |= ((word_at(from + 4 * quad) >> plan.high.shift) & 0x03030303u) << (2 * (quad % 4));
    } else if (plan.high.bit_row) {
      // Four bits to the lowest bits of four bytes.
      words[0] |= ((((word_at(from) >> (4 * quad)) & 15u) * 0x00204081u) & 0x01010101u) << quad;
    } else {
      words[0] |= ((word_at(from + 4 * quad) >> plan.high.shift) & 0x01010101u) << quad;
    }
  }
  std::memcpy(dst + 4 * row, &words[0], sizeof words[0]);
  if (bits == 2) std::memcpy(dst + 64 + 4 * row, &words[1], sizeof words[1]);
}

/// One block of `rows` rows (at most a group); dst is zero where rows are missing.
void pack_block(const QuantFormat& format, const BlockPlan& plan, const uint8_t* source, size_t row_bytes,
                uint32_t sub, size_t rows, uint8_t* dst) {
  if (plan.low == LowPlane::Other) {
    for (size_t row = 0; row < rows; ++row) {
      uint8_t codes[kBlockCols];
      decode_codes(format, source + row * row_bytes, sub, codes);
      store_codes(format, codes, row, dst);
    }
    return;
  }
  const uint32_t flip = 0x01010101u * format.code_xor;
  for (size_t row = 0; row < rows; row += 4) {
    const auto words = [&](size_t i, size_t half) -> Words {
      if (row + i >= rows) return Words{};
      const uint8_t* from = source + (row + i) * row_bytes;
      return plan.low == LowPlane::Bytes ? load_words(from + plan.offset + 16 * half) ^ flip
                                         : nibble_words(plan, from);
    };
    store_transposed(words(0, 0), words(1, 0), words(2, 0), words(3, 0), dst + 4 * row);
    if (plan.low == LowPlane::Bytes)
      store_transposed(words(0, 1), words(1, 1), words(2, 1), words(3, 1), dst + 256 + 4 * row);
  }
  for (size_t row = 0; plan.has_high && row < rows; ++row)
    pack_high(plan, format.high_bits, source + row * row_bytes, row, dst + 64u * format.low_bits);
}

/// The header pieces of up to 16 rows of one superblock, each piece as consecutive rows.
void pack_header(const QuantFormat& format, const uint8_t* source, size_t row_bytes, size_t rows,
                 uint8_t* dst) {
  for (size_t p = 0; p < format.num_pieces; ++p) {
    const HeaderPiece piece = format.pieces[p];
    const uint8_t* from = source + piece.offset;
    const auto move = [&]<size_t kSize>() {
      for (size_t row = 0; row < rows; ++row) std::memcpy(dst + row * kSize, from + row * row_bytes, kSize);
    };
    if (piece.size == 1) move.template operator()<1>();
    if (piece.size == 2) move.template operator()<2>();
    if (piece.size == 4) move.template operator()<4>();
    dst += kRowGroup * piece.size;
  }
}

/// Whether the scales in a packed header are finite. Of the 2-byte pieces the first, and the second where the
/// format has minima, are binary16 numbers.
bool finite_scales(const QuantFormat& format, const uint8_t* header) {
  bool bad = false;
  if (format.dtype == DType::MXFP4) {
    for (size_t row = 0; row < kRowGroup; ++row) bad |= header[row] == 0xff;
    return !bad;
  }
  const size_t numbers = format.has_min ? 2 * kRowGroup : kRowGroup;
  for (size_t i = 0; i < numbers; ++i) {
    uint16_t number;
    std::memcpy(&number, header + i * sizeof number, sizeof number);
    bad |= !finite_bits(DType::F16, number);
  }
  return !bad;
}

bool pack_quantised(const QuantFormat& format, const uint8_t* src, size_t row_bytes, size_t rows,
                    size_t col_begin, size_t cols, uint8_t* dst) {
  const PackedLayout layout = packed_layout(format, cols, col_begin);
  const size_t source_block = traits(format.dtype).block_bytes;
  const size_t records = (layout.superblocks + layout.record_supers - 1) / layout.record_supers;
  src += col_begin / (kBlockCols * format.subs) * source_block;
  BlockPlan plans[8];
  for (uint32_t sub = 0; sub < format.subs; ++sub) plans[sub] = plan_of(format, sub);
  bool finite = true;
  for (size_t first = 0; first < rows; first += kRowGroup, dst += layout.group_bytes) {
    const size_t present = rows - first < kRowGroup ? rows - first : kRowGroup;
    const uint8_t* from = src + first * row_bytes;
    if (present < kRowGroup) std::memset(dst, 0, layout.group_bytes);
    for (size_t index = 0; index < records; ++index) {
      const Record record = packed_record(layout, index);
      // Only headers leave gaps, in a last record that is not full.
      std::memset(dst + record.offset, 0, record.codes - record.offset);
      for (size_t s = 0; s < record.supers; ++s) {
        const uint8_t* source = from + (record.first_super + s) * source_block;
        uint8_t* header = dst + record.offset + s * layout.header_bytes;
        pack_header(format, source, row_bytes, present, header);
        finite &= finite_scales(format, header);
      }
      for (size_t b = 0; b < record.blocks; ++b) {
        const size_t place = layout.phase + record.first_block + b;
        const auto sub = static_cast<uint32_t>(place % format.subs);
        pack_block(format, plans[sub], from + place / format.subs * source_block, row_bytes, sub, present,
                   dst + record.codes + b * layout.code_bytes);
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
