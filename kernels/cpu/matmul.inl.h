// matmul: chooses the path by format and token count. One token goes straight over the packed bytes, more
// tokens through panels; all paths give the same bits for a token.

#include "float_matmul.h"
#if defined(__ARM_FEATURE_DOTPROD)
#include "gemm_neon.h"
#else
#include "gemm.h"
#endif
#include "gemv.h"

namespace nearmoe {
namespace {

template <DType kDType>
static void matmul_float(const PackedMatrix& w, const ActView& x, float* y, size_t ldy) {
  if (x.count == 1) {
    float_gemv<kDType>(w, token_row(x, 0), y);
  } else {
    float_gemm<kDType>(w, x, y, ldy);
  }
}

template <class Q>
static void matmul_blocks(const PackedMatrix& w, const ActView& x, float* y, size_t ldy) {
  const PackedLayout layout = packed_layout(*quant_format(Q::kDType), w.cols, w.col_begin);
  if (x.count == 1) {
    gemv<Q>(w, layout, token_row(x, 0), y);
  } else {
    gemm<Q>(w, layout, x, y, ldy);
  }
}

static void matmul(const PackedMatrix& w, const ActView& x, float* y, size_t ldy) {
  switch (w.dtype) {
    case DType::F32:
      return matmul_float<DType::F32>(w, x, y, ldy);
    case DType::F16:
      return matmul_float<DType::F16>(w, x, y, ldy);
    case DType::BF16:
      return matmul_float<DType::BF16>(w, x, y, ldy);
    case DType::Q8_0:
      return matmul_blocks<Q8_0Format>(w, x, y, ldy);
    case DType::Q4_0:
      return matmul_blocks<Q4_0Format>(w, x, y, ldy);
    case DType::Q4_1:
      return matmul_blocks<Q4_1Format>(w, x, y, ldy);
    case DType::Q5_0:
      return matmul_blocks<Q5_0Format>(w, x, y, ldy);
    case DType::Q5_1:
      return matmul_blocks<Q5_1Format>(w, x, y, ldy);
    case DType::Q2_K:
      return matmul_blocks<Q2KFormat>(w, x, y, ldy);
    case DType::Q3_K:
      return matmul_blocks<Q3KFormat>(w, x, y, ldy);
    case DType::Q4_K:
      return matmul_blocks<Q4KFormat>(w, x, y, ldy);
    case DType::Q5_K:
      return matmul_blocks<Q5KFormat>(w, x, y, ldy);
    case DType::Q6_K:
      return matmul_blocks<Q6KFormat>(w, x, y, ldy);
    case DType::IQ4_NL:
      return matmul_blocks<Iq4NlFormat>(w, x, y, ldy);
    case DType::IQ4_XS:
      return matmul_blocks<Iq4XsFormat>(w, x, y, ldy);
    case DType::MXFP4:
      return matmul_blocks<Mxfp4Format>(w, x, y, ldy);
  }
}

}  // namespace
}  // namespace nearmoe
