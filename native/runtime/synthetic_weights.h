// Made-up weights of any format, for benchmarks of model shapes without a file.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/ops.h"

namespace nearmoe {

/// Fills `bytes` (whole blocks of dtype, file layout) with values of a trained matrix's size. Norm weights
/// (`vector`) become 1. Deterministic; blocks repeat after a while, and `place` (the tensor's offset) says
/// where among them the tensor begins.
void fill_synthetic(DType dtype, bool vector, uint64_t place, std::byte* out, size_t bytes);

}  // namespace nearmoe
