// The traits table: one line per weight format. Included by nobody; everybody reaches it through traits().
#include "dtypes.h"

namespace nearmoe {
namespace {

constexpr FormatTraits kTraits[kNumDTypes] = {
    {DType::F32, "f32", 1, 4, 1, ActFormat::F32},
    {DType::F16, "f16", 1, 2, 1, ActFormat::F32},
    {DType::BF16, "bf16", 1, 2, 1, ActFormat::F32},
    {DType::Q8_0, "q8_0", 32, 34, 32, ActFormat::Q8},
    {DType::Q4_0, "q4_0", 32, 18, 32, ActFormat::Q8},
    {DType::Q4_1, "q4_1", 32, 20, 32, ActFormat::Q8},
    {DType::Q5_0, "q5_0", 32, 22, 32, ActFormat::Q8},
    {DType::Q5_1, "q5_1", 32, 24, 32, ActFormat::Q8},
    {DType::Q2_K, "q2_k", 256, 84, 32, ActFormat::Q8},
    {DType::Q3_K, "q3_k", 256, 110, 32, ActFormat::Q8},
    {DType::Q4_K, "q4_k", 256, 144, 32, ActFormat::Q8},
    {DType::Q5_K, "q5_k", 256, 176, 32, ActFormat::Q8},
    {DType::Q6_K, "q6_k", 256, 210, 32, ActFormat::Q8},
    {DType::IQ4_NL, "iq4_nl", 32, 18, 32, ActFormat::Q8},
    {DType::IQ4_XS, "iq4_xs", 256, 136, 32, ActFormat::Q8},
    {DType::MXFP4, "mxfp4", 32, 17, 32, ActFormat::Q8},
};

}  // namespace

const FormatTraits& traits(DType dtype) { return kTraits[static_cast<size_t>(dtype)]; }

size_t source_bytes(DType dtype, size_t rows, size_t cols) {
  const FormatTraits& format = traits(dtype);
  return rows * ((cols + format.block_cols - 1) / format.block_cols) * format.block_bytes;
}

}  // namespace nearmoe
