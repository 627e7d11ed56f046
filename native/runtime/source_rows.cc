#include "source_rows.h"

#include <cmath>
#include <cstring>

#include "kernels/quant_format.h"

namespace nearmoe {
namespace {

constexpr size_t kMxfp4Bytes = 1 + kBlockCols / 2;

/// One float8 with 4 bits of exponent (bias 7) and 3 of mantissa; it has no infinity, and 0x7f is NaN.
float from_e4m3(uint8_t code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                  : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  if ((code & 0x7f) == 0x7f) magnitude = NAN;
  return (code & 0x80) != 0 ? -magnitude : magnitude;
}

/// All 256 of them.
struct E4m3Table {
  float values[256];
  E4m3Table() {
    for (int code = 0; code < 256; ++code) values[code] = from_e4m3(static_cast<uint8_t>(code));
  }
};

}  // namespace

size_t stored_row_bytes(Encoding encoding, DType dtype, size_t cols) {
  switch (encoding) {
    case Encoding::Mxfp4Split:
      return cols / 2;
    case Encoding::Fp8Blocks:
      return cols;
    case Encoding::Plain:
      break;
  }
  return source_bytes(dtype, 1, cols);
}

size_t scale_bytes(Encoding encoding, size_t rows, size_t cols) {
  const auto blocks = [](size_t n) { return (n + kFp8Block - 1) / kFp8Block; };
  switch (encoding) {
    case Encoding::Mxfp4Split:
      return rows * cols / kBlockCols;
    case Encoding::Fp8Blocks:
      return blocks(rows) * blocks(cols) * sizeof(float);
    case Encoding::Plain:
      break;
  }
  return 0;
}

size_t SourceRows::row_bytes() const { return row_stride * stored_row_bytes(encoding, dtype, cols); }

SourceRows SourceRows::from(uint32_t row) const {
  SourceRows later = *this;
  later.skipped += row;
  return later;
}

const std::byte* SourceRows::row_data(uint32_t row) const {
  return data + source_row(row) * stored_row_bytes(encoding, dtype, cols);
}

void SourceRows::read_mxfp4(uint32_t row, size_t begin, size_t n, std::byte* out) const {
  const size_t tensor_row = first_row + source_row(row);
  const std::byte* codes = row_data(row);
  for (size_t at = begin; at < begin + n; at += kBlockCols, out += kMxfp4Bytes) {
    out[0] = scales[tensor_row * (cols / kBlockCols) + at / kBlockCols];
    const auto* pairs = reinterpret_cast<const uint8_t*>(codes + at / 2);
    for (size_t i = 0; i < kBlockCols / 2; ++i) {
      // The file layout has value i beside value i + 16.
      const auto code = [&](size_t j) { return static_cast<uint32_t>(pairs[j / 2] >> (j % 2 * 4)) & 15U; };
      out[1 + i] = static_cast<std::byte>(code(i) | code(i + kBlockCols / 2) << 4);
    }
  }
}

void SourceRows::read(uint32_t row, size_t begin, size_t n, float* out) const {
  if (encoding == Encoding::Plain) {
    dequantize(dtype, row_data(row) + source_bytes(dtype, 1, begin), out, n);
    return;
  }
  if (encoding == Encoding::Mxfp4Split) {
    std::byte block[kMxfp4Bytes];
    for (size_t at = 0; at < n; at += kBlockCols) {
      read_mxfp4(row, begin + at, kBlockCols, block);
      dequantize(DType::MXFP4, block, out + at, kBlockCols);
    }
    return;
  }
  static const E4m3Table table;
  const size_t tensor_row = first_row + source_row(row);
  const size_t block_cols = (cols + kFp8Block - 1) / kFp8Block;
  const auto* codes = reinterpret_cast<const uint8_t*>(row_data(row));
  for (size_t i = 0; i < n; ++i) {
    float scale;
    const size_t block = tensor_row / kFp8Block * block_cols + (begin + i) / kFp8Block;
    std::memcpy(&scale, scales + block * sizeof scale, sizeof scale);
    out[i] = table.values[codes[begin + i]] * scale;
  }
}

}  // namespace nearmoe
