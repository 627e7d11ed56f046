// Layout of prepared activations (written by prepare_activations, read by matmul). F32 rows are plain floats;
// a Q8 row is its int8 values, then one Q8Meta for each block of 32 columns. Included by every kernel source.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops.h"

namespace nearmoe {

/// What a block of 32 quantised activations is multiplied with besides the weights. Sums are of the int8
/// values; `half` is the sum over columns 0..15 and 16..31; scaled = scale * float(sum), rounded once.
struct Q8Meta {
  float scale;
  float scaled_sum;
  float scaled_half[2];
  int32_t sum;
  int32_t half[2];
  int32_t unused;
};
static_assert(sizeof(Q8Meta) == 32);

/// Blocks whose largest magnitude is below this are taken as zero: their scale would not be a normal number.
inline constexpr float kQ8Smallest = 0x1p-119f;

/// Bytes of the int8 values of a row, filled up with zeros.
static constexpr size_t q8_value_bytes(size_t cols) {
  return (cols + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace nearmoe
