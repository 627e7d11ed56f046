// Rows of a weight as a checkpoint stores them, in whichever of the ways: values in a format of
// kernels/dtypes.h, or codes and scales in two tensors. Made by WeightStore, read by pack tasks. Does not own
// the bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/ops.h"

namespace nearmoe {

/// Order = number in the load table.
enum class Encoding : uint8_t {
  Plain,       ///< as the file layout of the dtype
  Mxfp4Split,  ///< MXFP4 as the Hub has it: codes [rows][cols / 2], neighbours in a byte, and exponents
               ///< [rows][cols / 32]
  Fp8Blocks,   ///< float8 e4m3 [rows][cols] and a float factor for each 128 x 128 block
};
inline constexpr uint32_t kNumEncodings = 3;
/// Rows and columns that share a factor of Fp8Blocks.
inline constexpr uint32_t kFp8Block = 128;

struct SourceRows {
  Encoding encoding = Encoding::Plain;
  DType dtype = DType::F32;           ///< Mxfp4Split: MXFP4; Fp8Blocks: what its values become
  const std::byte* data = nullptr;    ///< row 0
  const std::byte* scales = nullptr;  ///< of the whole tensor, where the encoding has them
  uint32_t cols = 0;                  ///< of a whole source row
  uint32_t first_row = 0;             ///< of row 0 in its tensor
  uint32_t row_stride = 1;            ///< source rows from the beginning of one run of rows to the next
  uint32_t row_block = 1;             ///< neighbouring source rows of a run
  uint32_t skipped = 0;               ///< rows before row 0

  /// Where row `row` lies, in source rows from `data` on.
  size_t source_row(uint32_t row) const {
    return size_t{skipped + row} / row_block * row_stride + (skipped + row) % row_block;
  }
  const std::byte* row_data(uint32_t row) const;
  /// From one row to the next, where row_block is 1.
  size_t row_bytes() const;
  /// Values [begin, begin + n) of a row as floats; whole blocks of the format.
  void read(uint32_t row, size_t begin, size_t n, float* out) const;
  /// Mxfp4Split: columns [begin, begin + n) of a row in MXFP4's file layout; n is a multiple of 32.
  void read_mxfp4(uint32_t row, size_t begin, size_t n, std::byte* out) const;
  /// The same rows from `row` on.
  SourceRows from(uint32_t row) const;
};

/// Bytes of one stored row of `cols` values, without its scales.
size_t stored_row_bytes(Encoding encoding, DType dtype, size_t cols);
/// Bytes of the scales of a tensor of that many rows and columns; 0 for Plain.
size_t scale_bytes(Encoding encoding, size_t rows, size_t cols);

}  // namespace nearmoe
