// Values from one file layout to another, for `convert`: the only place where weights are converted without
// being loaded. Called by the addon; blocks. Knows nothing of files.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/dtypes.h"
#include "source_rows.h"
#include "status.h"

namespace nearmoe {

/// Converts the first `rows` rows of `source`, shared out to `threads` threads that live for this call. dst:
/// source_bytes(to, rows, source.cols). Codes and scales of MXFP4 keep their bits in MXFP4. InvalidArgument
/// where the columns are no whole blocks of either format or `to` cannot be written; WeightValue where a
/// value is NaN or infinite, or too large for `to`.
Status convert_rows(const SourceRows& source, DType to, size_t rows, std::byte* dst, uint32_t threads);

}  // namespace nearmoe
