// Values from one file layout to another, for `convert`: the only place where weights are converted without
// being loaded. Called by the addon; blocks. Knows nothing of files.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/dtypes.h"
#include "status.h"

namespace nearmoe {

/// Converts `rows` x `cols` values, rows shared out to `threads` threads that live for this call. dst:
/// source_bytes(to, rows, cols). InvalidArgument where the columns are no whole blocks of either format or
/// `to` cannot be written; WeightValue where a value is NaN or infinite, or too large for `to`.
Status convert_rows(DType from, const std::byte* src, DType to, size_t rows, size_t cols, std::byte* dst,
                    uint32_t threads);

}  // namespace nearmoe
