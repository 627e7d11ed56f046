#include "pack_task.h"

#include <algorithm>
#include <vector>

namespace nearmoe {
namespace {

bool pack_converted(const PackTask& task) {
  const SourceRows& source = task.source;
  // Whole blocks of both formats around the slice's columns; one size divides the other.
  const size_t block = std::max(traits(task.held).block_cols, traits(source.dtype).block_cols);
  const size_t begin = task.col_begin / block * block;
  const size_t end = (task.col_begin + task.cols + block - 1) / block * block;
  const size_t present = std::min<size_t>(end, source.cols) - begin;
  const size_t width = end - begin;
  const size_t held_bytes = source_bytes(task.held, 1, width);
  std::vector<float> values(kRowGroup * width);
  std::vector<std::byte> quantised(kRowGroup * held_bytes);
  std::byte* dst = task.dst;
  const size_t group_bytes = packed_bytes(task.held, kRowGroup, task.cols, task.col_begin);
  for (uint32_t first = 0; first < task.rows; first += kRowGroup, dst += group_bytes) {
    const uint32_t rows = std::min(kRowGroup, task.rows - first);
    for (uint32_t row = 0; row < rows; ++row)
      source.read(first + row, begin, present, values.data() + row * width);
    if (!quantize(task.held, values.data(), rows, width, quantised.data())) return false;
    if (!pack(task.held, quantised.data(), held_bytes, rows, task.col_begin - begin, task.cols, dst))
      return false;
  }
  return true;
}

/// MXFP4 whose codes and scales lie apart, code for code.
bool pack_mxfp4_split(const PackTask& task) {
  const size_t row_bytes = source_bytes(DType::MXFP4, 1, task.cols);
  std::vector<std::byte> rows(kRowGroup * row_bytes);
  std::byte* dst = task.dst;
  const size_t group_bytes = packed_bytes(DType::MXFP4, kRowGroup, task.cols, 0);
  for (uint32_t first = 0; first < task.rows; first += kRowGroup, dst += group_bytes) {
    const uint32_t count = std::min(kRowGroup, task.rows - first);
    for (uint32_t row = 0; row < count; ++row)
      task.source.read_mxfp4(first + row, task.col_begin, task.cols, rows.data() + row * row_bytes);
    if (!pack(DType::MXFP4, rows.data(), row_bytes, count, 0, task.cols, dst)) return false;
  }
  return true;
}

/// Rows that lie in runs, as they are stored.
bool pack_gathered(const PackTask& task) {
  const SourceRows& source = task.source;
  const size_t row_bytes = source_bytes(source.dtype, 1, source.cols);
  std::vector<std::byte> rows(kRowGroup * row_bytes);
  std::byte* dst = task.dst;
  const size_t group_bytes = packed_bytes(task.held, kRowGroup, task.cols, task.col_begin);
  for (uint32_t first = 0; first < task.rows; first += kRowGroup, dst += group_bytes) {
    const uint32_t count = std::min(kRowGroup, task.rows - first);
    for (uint32_t row = 0; row < count; ++row)
      std::copy_n(source.row_data(first + row), row_bytes, rows.data() + row * row_bytes);
    if (!pack(task.held, rows.data(), row_bytes, count, task.col_begin, task.cols, dst)) return false;
  }
  return true;
}

/// A slice of a matrix stored as [cols][rows], a few rows at a time: of each source row a piece.
bool pack_transposed(const PackTask& task) {
  const SourceRows& source = task.source;
  const uint32_t step = std::max<uint32_t>(4 * kRowGroup, traits(source.dtype).block_cols);
  const size_t block = traits(task.held).block_cols;
  const size_t begin = task.col_begin / block * block;
  const size_t end = (task.col_begin + task.cols + block - 1) / block * block;
  const size_t present = std::min<size_t>(end, task.matrix_cols);
  const size_t width = end - begin;
  const size_t held_bytes = source_bytes(task.held, 1, width);
  std::vector<float> column(step), values(step * width);
  std::vector<std::byte> held(step * held_bytes);
  std::byte* dst = task.dst;
  for (uint32_t first = 0; first < task.rows; first += step) {
    const uint32_t rows = std::min(step, task.rows - first);
    for (size_t c = begin; c < present; ++c) {
      source.read(static_cast<uint32_t>(c), task.row_begin + first, rows, column.data());
      for (size_t r = 0; r < rows; ++r) values[r * width + c - begin] = column[r];
    }
    if (!quantize(task.held, values.data(), rows, width, held.data())) return false;
    if (!pack(task.held, held.data(), held_bytes, rows, task.col_begin - begin, task.cols, dst)) return false;
    dst += packed_bytes(task.held, step, task.cols, task.col_begin);
  }
  return true;
}

}  // namespace

bool run_pack_task(const PackTask& task) {
  const SourceRows& source = task.source;
  if (task.transposed) return pack_transposed(task);
  if (source.encoding == Encoding::Mxfp4Split && task.held == DType::MXFP4) return pack_mxfp4_split(task);
  if (source.encoding != Encoding::Plain || task.held != source.dtype) return pack_converted(task);
  if (source.row_block > 1) return pack_gathered(task);
  return pack(task.held, source.row_data(0), source.row_bytes(), task.rows, task.col_begin, task.cols,
              task.dst);
}

}  // namespace nearmoe
