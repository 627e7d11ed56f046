#include "pack_task.h"

#include <algorithm>
#include <vector>

namespace nearmoe {
namespace {

bool pack_converted(const PackTask& task) {
  const size_t block = traits(task.held).block_cols;
  const size_t source_block = traits(task.dtype).block_cols;
  // Whole blocks of both formats around the slice's columns.
  const size_t begin = task.col_begin / block * block / source_block * source_block;
  const size_t end = (task.col_begin + task.cols + block - 1) / block * block;
  const size_t present = std::min<size_t>(end, task.source_cols) - begin;
  const size_t width = end - begin;
  const size_t held_bytes = source_bytes(task.held, 1, width);
  std::vector<float> values(kRowGroup * width);
  std::vector<std::byte> quantised(kRowGroup * held_bytes);
  const std::byte* src = task.src + source_bytes(task.dtype, 1, begin);
  std::byte* dst = task.dst;
  const size_t group_bytes = packed_bytes(task.held, kRowGroup, task.cols, task.col_begin);
  for (uint32_t first = 0; first < task.rows; first += kRowGroup, dst += group_bytes) {
    const uint32_t rows = std::min(kRowGroup, task.rows - first);
    for (uint32_t row = 0; row < rows; ++row, src += task.row_bytes)
      dequantize(task.dtype, src, values.data() + row * width, present);
    if (!quantize(task.held, values.data(), rows, width, quantised.data())) return false;
    if (!pack(task.held, quantised.data(), held_bytes, rows, task.col_begin - begin, task.cols, dst))
      return false;
  }
  return true;
}

bool pack_transposed(const PackTask& task) {
  const size_t rows = task.rows, cols = task.cols;
  std::vector<float> source(rows), values(rows * cols);
  for (size_t c = 0; c < cols; ++c) {
    dequantize(task.dtype, task.src + c * task.row_bytes, source.data(), rows);
    for (size_t r = 0; r < rows; ++r) values[r * cols + c] = source[r];
  }
  const size_t held_bytes = source_bytes(task.held, 1, cols);
  std::vector<std::byte> held(rows * held_bytes);
  return quantize(task.held, values.data(), rows, cols, held.data()) &&
         pack(task.held, held.data(), held_bytes, rows, 0, cols, task.dst);
}

}  // namespace

bool run_pack_task(const PackTask& task) {
  if (task.transposed) return pack_transposed(task);
  if (task.held != task.dtype) return pack_converted(task);
  return pack(task.dtype, task.src, task.row_bytes, task.rows, task.col_begin, task.cols, task.dst);
}

}  // namespace nearmoe
