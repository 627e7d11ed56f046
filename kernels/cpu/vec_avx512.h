// vec.h for AVX-512 (F, BW, VL, DQ, VNNI): one register each. 2 x 512-bit multiply-adds a cycle on current
// servers.
#pragma once

#include <immintrin.h>

namespace nearmoe {

using VF = __m512;
using VI = __m512i;
using VB = __m512i;

constexpr bool kWideSigned = false;  // vpdpbusd takes any unsigned byte
constexpr bool kByteShifts = false;
constexpr int kGemmTokens = 16;     // tokens whose accumulators stay in registers beside 8 weight vectors
constexpr size_t kDotTokens = 4;    // dot product chains side by side
constexpr size_t kDeltaPanels = 4;  // columns / 16 of a delta rule's state at a time
constexpr int kAttentionRows = 8;   // query rows x 32 keys of accumulators
constexpr int kFloatGroups = 2, kFloatTokens = 12;  // float GEMM register tile

NEARMOE_INLINE __mmask16 first_lanes(size_t n) { return static_cast<__mmask16>((1u << n) - 1u); }

NEARMOE_INLINE VF f_zero() { return _mm512_setzero_ps(); }
NEARMOE_INLINE VF f_set(float x) { return _mm512_set1_ps(x); }
NEARMOE_INLINE VF f_load(const float* p) { return _mm512_loadu_ps(p); }
NEARMOE_INLINE void f_store(float* p, VF v) { _mm512_storeu_ps(p, v); }
NEARMOE_INLINE VF f_load_n(const float* p, size_t n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
NEARMOE_INLINE void f_store_n(float* p, VF v, size_t n) { _mm512_mask_storeu_ps(p, first_lanes(n), v); }
/// A value that several operations share: GCC would load it anew as a memory operand of each.
NEARMOE_INLINE VF f_loaded(VF v) {
  __asm__("" : "+v"(v));
  return v;
}
NEARMOE_INLINE VF f_add(VF a, VF b) { return _mm512_add_ps(a, b); }
NEARMOE_INLINE VF f_sub(VF a, VF b) { return _mm512_sub_ps(a, b); }
NEARMOE_INLINE VF f_mul(VF a, VF b) { return _mm512_mul_ps(a, b); }
NEARMOE_INLINE VF f_div(VF a, VF b) { return _mm512_div_ps(a, b); }
NEARMOE_INLINE VF f_fma(VF a, VF b, VF c) { return _mm512_fmadd_ps(a, b, c); }
/// The second operand where one is NaN.
NEARMOE_INLINE VF f_max(VF a, VF b) { return _mm512_max_ps(a, b); }
NEARMOE_INLINE VF f_min(VF a, VF b) { return _mm512_min_ps(a, b); }
NEARMOE_INLINE VF f_neg(VF a) { return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f)); }
NEARMOE_INLINE VF f_abs(VF a) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), a); }
/// Magnitude of a with the sign of b.
NEARMOE_INLINE VF f_copysign(VF a, VF b) {
  const VF sign = _mm512_set1_ps(-0.0f);
  return _mm512_or_ps(_mm512_andnot_ps(sign, a), _mm512_and_ps(sign, b));
}
NEARMOE_INLINE VF f_select_less(VF a, VF b, VF then, VF otherwise) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), otherwise, then);
}
NEARMOE_INLINE VF f_round(VF a) {
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/// a * 2^n for an integral n in [-126, 128].
NEARMOE_INLINE VF f_mul_2n(VF a, VF n) { return _mm512_scalef_ps(a, n); }
/// Lane i + lane i + 8, then 4, 2, 1: the order of reference/lanes.h.
NEARMOE_INLINE float f_reduce_add(VF v) {
  const __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  b = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
/// f_reduce_add of v[i] in lane i: halves of two vectors are added as one.
NEARMOE_INLINE VF f_reduce_add_16(const VF* v) {
  VF sums[4];
#pragma GCC unroll 4
  for (int m = 0; m < 4; ++m) {
    VF eights[2];
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const VF a = v[m + 8 * i], b = v[m + 8 * i + 4];
      eights[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    }
    sums[m] = _mm512_add_ps(_mm512_shuffle_f32x4(eights[0], eights[1], 0x88),
                            _mm512_shuffle_f32x4(eights[0], eights[1], 0xdd));
  }
  VF twos[2];
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const __m512d a = _mm512_castps_pd(sums[2 * i]), b = _mm512_castps_pd(sums[2 * i + 1]);
    twos[i] =
        _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
  }
  return _mm512_add_ps(_mm512_shuffle_ps(twos[0], twos[1], 0x88), _mm512_shuffle_ps(twos[0], twos[1], 0xdd));
}
NEARMOE_INLINE float f_reduce_max(VF v) { return _mm512_reduce_max_ps(v); }
NEARMOE_INLINE VF f_from_int(VI v) { return _mm512_cvtepi32_ps(v); }
NEARMOE_INLINE VF f_from_f16(const void* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
}
/// Rounds to nearest even.
NEARMOE_INLINE void f_store_f16(uint16_t* p, VF v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
NEARMOE_INLINE VF f_from_bf16(const void* p) {
  const __m256i words = _mm256_loadu_si256(static_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16));
}
NEARMOE_INLINE VF f_from_s8(const void* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))));
}
/// Even and odd words of 32 bfloat16 values.
NEARMOE_INLINE VF f_bf16_even(VB v) { return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16)); }
NEARMOE_INLINE VF f_bf16_odd(VB v) {
  return _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}
NEARMOE_INLINE void f_to_f16(VF v, void* p) {
  _mm256_storeu_si256(static_cast<__m256i*>(p),
                      _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

NEARMOE_INLINE VI i_zero() { return _mm512_setzero_si512(); }
NEARMOE_INLINE VI i_set(int32_t x) { return _mm512_set1_epi32(x); }
NEARMOE_INLINE VI i_load(const void* p) { return _mm512_loadu_si512(p); }
NEARMOE_INLINE VI i_load_u8(const void* p) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
}
NEARMOE_INLINE VI i_load_s8(const void* p) {
  return _mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
}
NEARMOE_INLINE VI i_load_u16(const void* p) {
  return _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
}
NEARMOE_INLINE VI i_add(VI a, VI b) { return _mm512_add_epi32(a, b); }
NEARMOE_INLINE VI i_and(VI a, VI b) { return _mm512_and_si512(a, b); }
NEARMOE_INLINE VI i_or(VI a, VI b) { return _mm512_or_si512(a, b); }
NEARMOE_INLINE VI i_max(VI a, VI b) { return _mm512_max_epi32(a, b); }
NEARMOE_INLINE VI i_shr(VI a, unsigned n) { return _mm512_srli_epi32(a, n); }
NEARMOE_INLINE VI i_shl(VI a, unsigned n) { return _mm512_slli_epi32(a, n); }
NEARMOE_INLINE VI i_bits(VF v) { return _mm512_castps_si512(v); }
NEARMOE_INLINE VF f_bits(VI v) { return _mm512_castsi512_ps(v); }
NEARMOE_INLINE VI i_nearest(VF v) { return _mm512_cvtps_epi32(v); }
NEARMOE_INLINE int32_t i_reduce_add(VI v) { return _mm512_reduce_add_epi32(v); }
NEARMOE_INLINE int32_t i_reduce_max(VI v) { return _mm512_reduce_max_epi32(v); }
NEARMOE_INLINE void i_store_s8(int8_t* p, VI v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v));
}

NEARMOE_INLINE VB b_load(const void* p) { return _mm512_loadu_si512(p); }
NEARMOE_INLINE void b_store(void* p, VB v) { _mm512_storeu_si512(p, v); }
NEARMOE_INLINE VB b_set(uint8_t x) { return _mm512_set1_epi8(static_cast<char>(x)); }
NEARMOE_INLINE VB b_and(VB a, VB b) { return _mm512_and_si512(a, b); }
NEARMOE_INLINE VB b_or(VB a, VB b) { return _mm512_or_si512(a, b); }
NEARMOE_INLINE VB b_xor(VB a, VB b) { return _mm512_xor_si512(a, b); }
NEARMOE_INLINE VB b_sub(VB a, VB b) { return _mm512_sub_epi8(a, b); }
NEARMOE_INLINE VB b_shr(VB a, unsigned n) { return _mm512_srli_epi16(a, n); }
NEARMOE_INLINE VB b_shl(VB a, unsigned n) { return _mm512_slli_epi16(a, n); }
/// table[index] for indices below 16.
NEARMOE_INLINE VB b_lut(const int8_t table[16], VB index) {
  const __m128i entries = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(entries), index);
}

struct Quad {
  int8_t bytes[4];
};

/// acc + the dot products of kQuads weight vectors with kQuads * 4 activations, per row; codes are at most
/// kMaxCode.
template <int kMaxCode, int kQuads>
NEARMOE_INLINE VI dot_quads(const VB* w, const int8_t* a, VI acc) {
#pragma GCC unroll 8
  for (int j = 0; j < kQuads; ++j) {
    // The broadcast as part of the instruction: a load of its own costs 14% of the GEMM, and GCC 12 never
    // folds it.
    __asm__("vpdpbusd %2%{1to16%}, %1, %0"
            : "+v"(acc)
            : "v"(w[j]), "m"(*reinterpret_cast<const Quad*>(a + 4 * j)));
  }
  return acc;
}

NEARMOE_INLINE void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
/// For what is read a few microseconds later: into the second level, past the first one's few line buffers.
NEARMOE_INLINE void prefetch_far(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }

}  // namespace nearmoe
