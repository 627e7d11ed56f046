// The vector vocabulary of the SIMD sources: VF = 16 floats, VI = 16 int32, VB = 64 bytes, whatever registers
// an ISA has. One of the vec_<isa>.h files defines them; here are the parts written in their terms.
// Everything has internal linkage, since these headers are compiled once per ISA.
//
// Dot products take weights as bytes in "dot form": unsigned codes up to 127 as they are, and 8-bit codes
// (kWide) as unsigned bytes or, where kWideSigned is true, as signed bytes (code - 128). Shifts of VB work on
// bytes where kByteShifts is true, else on 16-bit words, and the caller masks what crosses a byte.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define NEARMOE_INLINE [[maybe_unused]] static inline __attribute__((always_inline))
#define NEARMOE_LAMBDA_INLINE __attribute__((always_inline))

#if defined(__AVX512F__)
#include "vec_avx512.h"
#elif defined(__AVX2__)
#include "vec_avx2.h"
#elif defined(__aarch64__)
#include "vec_neon.h"
#else
#error "vec.h: no vector ISA for this compilation"
#endif

namespace nearmoe {

/// Lanes [0, n) of p, zeros above; n = 16 reads no more than a plain load.
NEARMOE_INLINE VF f_load_up_to(const float* p, size_t n) { return n >= 16 ? f_load(p) : f_load_n(p, n); }
NEARMOE_INLINE void f_store_up_to(float* p, VF v, size_t n) {
  if (n >= 16) {
    f_store(p, v);
  } else {
    f_store_n(p, v, n);
  }
}

/// out[i] = f_reduce_add(v[i]) for i < kCount.
template <int kCount>
NEARMOE_INLINE void f_reduce_add_each(const VF* v, float* out) {
#if defined(__AVX512F__)
  if constexpr (kCount == 16) return f_store(out, f_reduce_add_16(v));
#endif
  for (int i = 0; i < kCount; ++i) out[i] = f_reduce_add(v[i]);
}

/// dot_quads for kTokens tokens whose activations lie `stride` bytes apart.
template <int kMaxCode, int kQuads, size_t kTokens>
NEARMOE_INLINE void dot_tokens(const VB* w, const int8_t* a, size_t stride, VI* acc) {
  if constexpr (kDotTokens == 1) {
    for (size_t t = 0; t < kTokens; ++t) acc[t] = dot_quads<kMaxCode, kQuads>(w, a + t * stride, acc[t]);
  } else {
#pragma GCC unroll 8
    for (int j = 0; j < kQuads; ++j) {
#pragma GCC unroll 4
      for (size_t t = 0; t < kTokens; ++t)
        acc[t] = dot_quads<kMaxCode, 1>(w + j, a + t * stride + 4 * j, acc[t]);
    }
  }
}

/// e^x within 1 ulp for x in [-87.3, 88.7] and clamped to the ends outside, so never infinite or zero.
/// Polynomial: own minimax fit of (e^r - 1 - r) / r^2 on [-ln 2 / 2, ln 2 / 2].
NEARMOE_INLINE VF f_exp(VF x) {
  x = f_min(f_set(88.7f), f_max(f_set(-87.3f), x));       // in this order NaN passes through
  const VF n = f_round(f_mul(x, f_set(0x1.715476p+0f)));  // log2(e)
  VF r = f_fma(n, f_set(-0x1.62e400p-1f), x);             // ln 2 in two parts; n times the first is exact
  r = f_fma(n, f_set(-0x1.7f7d1cp-20f), r);
  VF p = f_set(0x1.6a2404p-10f);
  p = f_fma(p, r, f_set(0x1.123a00p-7f));
  p = f_fma(p, r, f_set(0x1.5558f2p-5f));
  p = f_fma(p, r, f_set(0x1.555492p-3f));
  p = f_fma(p, r, f_set(0x1.fffffcp-2f));
  p = f_fma(f_mul(p, r), r, r);
  return f_mul_2n(f_add(p, f_set(1.0f)), n);
}

/// erf(x): x + x P(x^2) below 0.9375, 1 - exp(-|x| Q(|x|)) above; own minimax fits, error below 2e-7 of the
/// value.
NEARMOE_INLINE VF f_erf(VF x) {
  const VF magnitude = f_abs(x), square = f_mul(x, x);
  VF p = f_set(-0x1.34a2f6p-11f);
  p = f_fma(p, square, f_set(0x1.45eb10p-8f));
  p = f_fma(p, square, f_set(-0x1.b6539ep-6f));
  p = f_fma(p, square, f_set(0x1.ce16c0p-4f));
  p = f_fma(p, square, f_set(-0x1.8126d0p-2f));
  p = f_fma(p, square, f_set(0x1.06eba6p-3f));
  const VF small = f_fma(p, x, x);
  const VF t = f_min(f_set(4.0f), magnitude);
  VF q = f_set(-0x1.c209f6p-13f);
  q = f_fma(q, t, f_set(0x1.a60c84p-9f));
  q = f_fma(q, t, f_set(-0x1.774ae2p-6f));
  q = f_fma(q, t, f_set(0x1.af4146p-4f));
  q = f_fma(q, t, f_set(0x1.457a64p-1f));
  q = f_fma(q, t, f_set(0x1.20e6b0p+0f));
  const VF large = f_copysign(f_sub(f_set(1.0f), f_exp(f_neg(f_mul(q, t)))), x);
  return f_select_less(magnitude, f_set(0.9375f), small, large);
}

}  // namespace nearmoe
