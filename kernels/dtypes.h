// The weight formats: one traits line per dtype. Included by kernels, the native runtime and the tests.
// Numbers of DType cross the JS/native wall (src/binding.ts has the same list; a test compares them).
#pragma once

#include <cstddef>
#include <cstdint>

namespace nearmoe {

enum class DType : uint8_t {
  F32 = 0,
  F16 = 1,
  BF16 = 2,
  Q8_0 = 3,
  Q4_0 = 4,
  Q4_1 = 5,
  Q5_0 = 6,
  Q5_1 = 7,
  Q2_K = 8,
  Q3_K = 9,
  Q4_K = 10,
  Q5_K = 11,
  Q6_K = 12,
  IQ4_NL = 13,
  IQ4_XS = 14,
  MXFP4 = 15,
};
inline constexpr size_t kNumDTypes = 16;

/// How a format wants its activations prepared.
enum class ActFormat : uint8_t {
  F32,  ///< plain float rows
  Q8,   ///< int8 blocks of 32 with a float scale and the block's integer sum
};

struct FormatTraits {
  DType dtype;
  const char* name;      ///< lower-case, as in options and reports ("q4_0")
  uint32_t block_cols;   ///< columns of one source block (1 for float formats)
  uint32_t block_bytes;  ///< bytes of one source block as stored in files, row-major
  uint32_t slice_cols;   ///< a matrix may be cut between columns at multiples of this
  ActFormat activation;
};

/// Traits of a dtype; the reference stays valid for the program's life.
const FormatTraits& traits(DType dtype);

/// Bytes of `rows` x `cols` values in the file's row-major block layout.
size_t source_bytes(DType dtype, size_t rows, size_t cols);

}  // namespace nearmoe
