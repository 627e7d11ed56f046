#include "convert_rows.h"

#include <algorithm>
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "kernels/ops.h"
#include "split.h"

namespace nearmoe {
namespace {

/// Rows that go through floats together.
constexpr size_t kTileRows = 16;

/// pack() refuses what is not finite in any format, so its answer is the check; `packed` is its scratch.
bool is_finite(DType dtype, const std::byte* rows_in, size_t rows, size_t cols,
               std::vector<std::byte>& packed) {
  packed.resize(packed_bytes(dtype, rows, cols));
  return pack(dtype, rows_in, source_bytes(dtype, 1, cols), rows, 0, cols, packed.data());
}

}  // namespace

Status convert_rows(const SourceRows& source, DType to, size_t rows, std::byte* dst, uint32_t threads) {
  const size_t cols = source.cols;
  if (cols == 0 || cols % traits(source.dtype).block_cols != 0 || cols % traits(to).block_cols != 0 ||
      !can_quantize(to)) {
    return Status::error(Code::InvalidArgument, std::string("rows of ") + traits(source.dtype).name +
                                                    " cannot be converted to " + traits(to).name);
  }
  std::atomic<bool> finite{true};
  const size_t to_bytes = source_bytes(to, 1, cols);
  const bool keeps_codes = source.encoding == Encoding::Mxfp4Split && to == DType::MXFP4;
  auto convert = [&](size_t begin, size_t end) {
    std::vector<float> values(kTileRows * cols);
    std::vector<std::byte> packed;
    for (size_t row = begin; row < end && finite.load(std::memory_order_relaxed); row += kTileRows) {
      const size_t count = std::min(kTileRows, end - row);
      std::byte* out = dst + row * to_bytes;
      for (size_t i = 0; i < count; ++i) {
        const auto at = static_cast<uint32_t>(row + i);
        if (keeps_codes)
          source.read_mxfp4(at, 0, cols, out + i * to_bytes);
        else
          source.read(at, 0, cols, values.data() + i * cols);
      }
      if (!keeps_codes) quantize(to, values.data(), count, cols, out);
      if (!is_finite(to, out, count, cols, packed)) finite.store(false, std::memory_order_relaxed);
    }
  };
  std::vector<std::thread> helpers;
  const std::vector<Range> parts = split(static_cast<uint32_t>(rows), threads, kTileRows);
  for (size_t i = 1; i < parts.size(); ++i) {
    if (parts[i].size() > 0) helpers.emplace_back(convert, parts[i].begin, parts[i].end);
  }
  convert(parts[0].begin, parts[0].end);
  for (std::thread& helper : helpers) helper.join();
  if (finite.load()) return {};
  return Status::error(Code::WeightValue,
                       std::string("a value is NaN, infinite or too large for ") + traits(to).name);
}

}  // namespace nearmoe
