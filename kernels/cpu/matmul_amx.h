// matmul of the amx table: tiles for several tokens of a block format, the avx512 table's matmul for the
// rest.
#pragma once

#include "../tables.h"
#include "gemm_amx.h"

namespace nearmoe {
namespace {

static void matmul(const PackedMatrix& w, const ActView& x, float* y, size_t ldy) {
  if (x.count < kAmxTokens) return kAvx512Ops.matmul(w, x, y, ldy);
  switch (w.dtype) {
    case DType::F32:
    case DType::F16:
    case DType::BF16:
      return kAvx512Ops.matmul(w, x, y, ldy);
    case DType::Q8_0:
      return gemm_amx<Q8_0Format>(w, x, y, ldy);
    case DType::Q4_0:
      return gemm_amx<Q4_0Format>(w, x, y, ldy);
    case DType::Q4_1:
      return gemm_amx<Q4_1Format>(w, x, y, ldy);
    case DType::Q5_0:
      return gemm_amx<Q5_0Format>(w, x, y, ldy);
    case DType::Q5_1:
      return gemm_amx<Q5_1Format>(w, x, y, ldy);
    case DType::Q2_K:
      return gemm_amx<Q2KFormat>(w, x, y, ldy);
    case DType::Q3_K:
      return gemm_amx<Q3KFormat>(w, x, y, ldy);
    case DType::Q4_K:
      return gemm_amx<Q4KFormat>(w, x, y, ldy);
    case DType::Q5_K:
      return gemm_amx<Q5KFormat>(w, x, y, ldy);
    case DType::Q6_K:
      return gemm_amx<Q6KFormat>(w, x, y, ldy);
    case DType::IQ4_NL:
      return gemm_amx<Iq4NlFormat>(w, x, y, ldy);
    case DType::IQ4_XS:
      return gemm_amx<Iq4XsFormat>(w, x, y, ldy);
    case DType::MXFP4:
      return gemm_amx<Mxfp4Format>(w, x, y, ldy);
  }
}

}  // namespace
}  // namespace nearmoe
