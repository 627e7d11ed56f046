// matmul of a table that differs from its base table in the GEMM of block formats only (amx, i8mm): calls
// with few tokens and float formats go to the base table.
#pragma once

#include "../tables.h"
#include "quant_block.h"

namespace nearmoe {
namespace {

/// kGemm::run<Format>(w, x, y, ldy) computes calls of kGemm::kLeastTokens tokens or more.
template <class Gemm>
static void matmul_tiles(const OpTable& base, const PackedMatrix& w, const ActView& x, float* y, size_t ldy) {
  if (x.count < Gemm::kLeastTokens) return base.matmul(w, x, y, ldy);
  switch (w.dtype) {
    case DType::F32:
    case DType::F16:
    case DType::BF16:
      return base.matmul(w, x, y, ldy);
    case DType::Q8_0:
      return Gemm::template run<Q8_0Format>(w, x, y, ldy);
    case DType::Q4_0:
      return Gemm::template run<Q4_0Format>(w, x, y, ldy);
    case DType::Q4_1:
      return Gemm::template run<Q4_1Format>(w, x, y, ldy);
    case DType::Q5_0:
      return Gemm::template run<Q5_0Format>(w, x, y, ldy);
    case DType::Q5_1:
      return Gemm::template run<Q5_1Format>(w, x, y, ldy);
    case DType::Q2_K:
      return Gemm::template run<Q2KFormat>(w, x, y, ldy);
    case DType::Q3_K:
      return Gemm::template run<Q3KFormat>(w, x, y, ldy);
    case DType::Q4_K:
      return Gemm::template run<Q4KFormat>(w, x, y, ldy);
    case DType::Q5_K:
      return Gemm::template run<Q5KFormat>(w, x, y, ldy);
    case DType::Q6_K:
      return Gemm::template run<Q6KFormat>(w, x, y, ldy);
    case DType::IQ4_NL:
      return Gemm::template run<Iq4NlFormat>(w, x, y, ldy);
    case DType::IQ4_XS:
      return Gemm::template run<Iq4XsFormat>(w, x, y, ldy);
    case DType::MXFP4:
      return Gemm::template run<Mxfp4Format>(w, x, y, ldy);
  }
}

}  // namespace
}  // namespace nearmoe
