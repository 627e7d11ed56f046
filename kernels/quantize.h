// What the two halves of the quantiser share: quantize.cc chooses, quantize_k.cc fits the 256-column formats.
// Not part of the kernels' contract (that is ops.h); nobody else includes it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant_format.h"

namespace nearmoe {

/// Largest magnitude; NaN counts as larger than infinity.
float max_magnitude(const float* x, size_t n);

/// q4_k and q5_k: one superblock of 256 finite values into a zeroed block.
void quantize_scale_min(const QuantFormat& format, const float* x, uint8_t* dst);
/// q6_k: the same with 16 symmetric blocks of 16 values.
void quantize_q6_k(const QuantFormat& format, const float* x, uint8_t* dst);

}  // namespace nearmoe
