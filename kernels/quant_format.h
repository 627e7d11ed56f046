// How the quantised formats store a block, in files and packed, as data: bit planes, header pieces, scales.
// The portable sources (pack, unpack, quantize, dequantize, reference kernels) read everything from here; the
// SIMD sources share the packed layout's offsets. A "block" is always 32 columns of one row; a "superblock"
// is one source block of `subs` blocks (1 for the 32-column formats, 8 for those of 256 columns).
//
// Packed layout of one group of 16 rows: the codes of all its blocks, then the headers of the superblocks it
// touches.
//   codes of a block: the low plane, then the high plane. Quad j holds columns 4j..4j+3; r is the row in its
//   group.
//     8 bits: 8 vectors of 64 bytes; vector j, byte 4r+i                     = code of column 4j+i
//     4 bits: 4 vectors;             vector j, byte 4r+i, low / high nibble  = columns 4j+i / 16+4j+i
//     2 bits: 2 vectors;             vector h, byte 4r+i, bits 2m..2m+1      = column 16h+4m+i
//     1 bit:  1 vector;              byte 4r+i, bit m                        = column 4m+i
//   header of a superblock: the source block's header pieces in order, each as 16 consecutive rows.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dtypes.h"
#include "ops.h"

namespace nearmoe {

inline constexpr uint32_t kBlockCols = 32;

/// Codes [first, first + count) of a block: `bits` bits at `shift` of byte offset + i, placed at `code_shift`
/// of the code. With bit_row, code i's bit is bit i of the 32-bit little-endian word at `offset` instead.
struct Plane {
  uint16_t offset;
  uint8_t first, count, shift, bits, code_shift;
  bool bit_row;
};

struct HeaderPiece {
  uint8_t offset, size;
};

struct QuantFormat {
  DType dtype;
  uint8_t subs;       ///< blocks in one source block
  uint8_t low_bits;   ///< packed low plane: 8, 4 or 2 bits a code
  uint8_t high_bits;  ///< packed high plane: 0, 1 or 2 bits a code
  uint8_t halves;     ///< scales (and minima) per block: 1, or 2 with one for each 16 columns
  bool has_min;       ///< value = scale * code + min, else scale * (code - zero)
  uint8_t code_xor;   ///< source byte ^ code_xor = code
  int16_t zero;
  const int8_t* lut;  ///< where not null: value = scale * lut[code]
  uint8_t num_pieces;
  HeaderPiece pieces[17];
};

/// Format of a quantised dtype (activation Q8), null for float dtypes.
const QuantFormat* quant_format(DType dtype);
/// Bit planes of block `sub` inside its source block; returns their number (at most 3).
int source_planes(DType dtype, uint32_t sub, Plane out[3]);
/// The 32 codes of block `sub` of a source block.
void decode_codes(const QuantFormat& format, const uint8_t* source, uint32_t sub, uint8_t codes[kBlockCols]);
/// Puts 32 codes into a source block whose bits for them are zero.
void encode_codes(const QuantFormat& format, const uint8_t codes[kBlockCols], uint32_t sub, uint8_t* source);

/// Scales and minima (0 where the format has none) of block `sub`, one for each half; both equal where halves
/// is 1.
struct BlockScale {
  float scale[2];
  float min[2];
};
BlockScale block_scale(DType dtype, const uint8_t* source, uint32_t sub);

static inline int code_value(const QuantFormat& format, uint8_t code) {
  return format.lut ? format.lut[code] : code - format.zero;
}

/// Sizes inside a packed quantised matrix.
struct PackedLayout {
  size_t blocks;         ///< blocks of a row
  size_t phase;          ///< blocks of the first superblock that precede the matrix
  size_t superblocks;    ///< superblocks touched
  size_t subs;           ///< blocks of a superblock
  size_t record_supers;  ///< superblocks of a full record
  size_t code_bytes;     ///< codes of one (group, block)
  size_t header_bytes;   ///< header of one (group, superblock)
  size_t group_bytes;    ///< of a row group, a multiple of kAlignment
};
PackedLayout packed_layout(const QuantFormat& format, size_t cols, size_t col_begin);

/// One record of a row group.
struct Record {
  size_t offset;  ///< from the start of the group
  size_t codes;   ///< offset of the first block's codes, also from the start of the group
  size_t first_super, supers;
  size_t first_block, blocks;
};
static constexpr Record packed_record(const PackedLayout& layout, size_t index) {
  const size_t full_blocks = layout.record_supers * layout.subs;
  const size_t full_bytes = layout.record_supers * layout.header_bytes + full_blocks * layout.code_bytes;
  Record out{};
  out.first_super = index * layout.record_supers;
  const size_t left = layout.superblocks - out.first_super;
  out.supers = left < layout.record_supers ? left : layout.record_supers;
  out.first_block = index == 0 ? 0 : index * full_blocks - layout.phase;
  const size_t end = (index + 1) * full_blocks - layout.phase;
  out.blocks = (end < layout.blocks ? end : layout.blocks) - out.first_block;
  // Full records but for the blocks that precede the matrix in the first one.
  out.offset = index * full_bytes - (index == 0 ? 0 : layout.phase * layout.code_bytes);
  out.codes = out.offset + (out.supers * layout.header_bytes + kAlignment - 1) / kAlignment * kAlignment;
  return out;
}

/// Offsets in a group: header of superblock s, codes of block b.
static constexpr size_t packed_header_offset(const PackedLayout& layout, size_t s) {
  const Record record = packed_record(layout, s / layout.record_supers);
  return record.offset + (s - record.first_super) * layout.header_bytes;
}
static constexpr size_t packed_codes_offset(const PackedLayout& layout, size_t b) {
  const Record record = packed_record(layout, (layout.phase + b) / (layout.record_supers * layout.subs));
  return record.codes + (b - record.first_block) * layout.code_bytes;
}

/// Bytes between row groups of a packed float matrix.
size_t float_group_bytes(DType dtype, size_t cols);

/// Reads and writes one row's codes of a packed (group, block).
void load_codes(const QuantFormat& format, const uint8_t* packed, size_t row, uint8_t codes[kBlockCols]);
void store_codes(const QuantFormat& format, const uint8_t codes[kBlockCols], size_t row, uint8_t* packed);
/// Moves one row's header between a source block and the packed header of its (group, superblock).
void load_header(const QuantFormat& format, const uint8_t* packed, size_t row, uint8_t* source);
void store_header(const QuantFormat& format, const uint8_t* source, size_t row, uint8_t* packed);

}  // namespace nearmoe
