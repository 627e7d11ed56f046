// vec.h for AVX2 with FMA and F16C: two or four 256-bit registers for each vector of 16. With AVX-VNNI, dot
// products use vpdpbusd; without, vpmaddubsw with 16-bit sums kept below saturation.
#pragma once

#include <immintrin.h>

namespace nearmoe {

struct VF {
  __m256 lo, hi;
};
struct VI {
  __m256i lo, hi;
};
using VB = VI;

#if defined(__AVXVNNI__)
constexpr bool kWideSigned = false;
constexpr size_t kDotTokens = 2;
#else
constexpr bool kWideSigned = true;  // 255 * 127 * 2 would saturate 16 bits
constexpr size_t kDotTokens = 1;
#endif
constexpr bool kByteShifts = false;
constexpr int kGemmTokens = 4;
constexpr size_t kDeltaPanels = 1;  // columns / 16 of a delta rule's state at a time
constexpr int kAttentionRows = 2;
constexpr int kFloatGroups = 1, kFloatTokens = 4;

/// All bits set in the first n of 8 lanes.
NEARMOE_INLINE __m256i first_lanes(size_t n) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lane);
}

NEARMOE_INLINE VF f_zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
NEARMOE_INLINE VF f_set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
NEARMOE_INLINE VF f_load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
NEARMOE_INLINE void f_store(float* p, VF v) {
  _mm256_storeu_ps(p, v.lo);
  _mm256_storeu_ps(p + 8, v.hi);
}
NEARMOE_INLINE VF f_load_n(const float* p, size_t n) {
  return {_mm256_maskload_ps(p, first_lanes(n)), _mm256_maskload_ps(p + 8, first_lanes(n < 8 ? 0 : n - 8))};
}
NEARMOE_INLINE void f_store_n(float* p, VF v, size_t n) {
  _mm256_maskstore_ps(p, first_lanes(n), v.lo);
  _mm256_maskstore_ps(p + 8, first_lanes(n < 8 ? 0 : n - 8), v.hi);
}
NEARMOE_INLINE VF f_loaded(VF v) { return v; }
NEARMOE_INLINE VF f_add(VF a, VF b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
NEARMOE_INLINE VF f_sub(VF a, VF b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
NEARMOE_INLINE VF f_mul(VF a, VF b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
NEARMOE_INLINE VF f_div(VF a, VF b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
NEARMOE_INLINE VF f_fma(VF a, VF b, VF c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
NEARMOE_INLINE VF f_max(VF a, VF b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
NEARMOE_INLINE VF f_min(VF a, VF b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
NEARMOE_INLINE VF f_neg(VF a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_xor_ps(a.lo, sign), _mm256_xor_ps(a.hi, sign)};
}
NEARMOE_INLINE VF f_abs(VF a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}
NEARMOE_INLINE VF f_copysign(VF a, VF b) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_or_ps(_mm256_andnot_ps(sign, a.lo), _mm256_and_ps(sign, b.lo)),
          _mm256_or_ps(_mm256_andnot_ps(sign, a.hi), _mm256_and_ps(sign, b.hi))};
}
NEARMOE_INLINE VF f_select_less(VF a, VF b, VF then, VF otherwise) {
  return {_mm256_blendv_ps(otherwise.lo, then.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
          _mm256_blendv_ps(otherwise.hi, then.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ))};
}
NEARMOE_INLINE VF f_round(VF a) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.lo, kNearest), _mm256_round_ps(a.hi, kNearest)};
}
/// Half of n at a time, so that both factors are normal numbers.
NEARMOE_INLINE __m256 mul_2n(__m256 a, __m256 n) {
  const __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256i first = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
  const __m256i second = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23);
  return _mm256_mul_ps(_mm256_mul_ps(a, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second));
}
NEARMOE_INLINE VF f_mul_2n(VF a, VF n) { return {mul_2n(a.lo, n.lo), mul_2n(a.hi, n.hi)}; }
NEARMOE_INLINE float f_reduce_add(VF v) {
  const __m256 a = _mm256_add_ps(v.lo, v.hi);
  __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  b = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
NEARMOE_INLINE float f_reduce_max(VF v) {
  const __m256 a = _mm256_max_ps(v.lo, v.hi);
  __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  b = _mm_max_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}
NEARMOE_INLINE VF f_from_int(VI v) { return {_mm256_cvtepi32_ps(v.lo), _mm256_cvtepi32_ps(v.hi)}; }
NEARMOE_INLINE __m128i load_128(const void* p, size_t index) {
  return _mm_loadu_si128(static_cast<const __m128i*>(p) + index);
}
NEARMOE_INLINE __m128i load_64(const void* p, size_t index) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(static_cast<const char*>(p) + 8 * index));
}
NEARMOE_INLINE VF f_from_f16(const void* p) {
  return {_mm256_cvtph_ps(load_128(p, 0)), _mm256_cvtph_ps(load_128(p, 1))};
}
/// Rounds to nearest even.
NEARMOE_INLINE void f_store_f16(uint16_t* p, VF v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v.lo, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(v.hi, _MM_FROUND_TO_NEAREST_INT));
}
NEARMOE_INLINE __m256 widen_bf16(__m128i v) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}
NEARMOE_INLINE VF f_from_bf16(const void* p) {
  return {widen_bf16(load_128(p, 0)), widen_bf16(load_128(p, 1))};
}
NEARMOE_INLINE VF f_from_s8(const void* p) {
  return f_from_int({_mm256_cvtepi8_epi32(load_64(p, 0)), _mm256_cvtepi8_epi32(load_64(p, 1))});
}
NEARMOE_INLINE VF f_bf16_even(VB v) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(v.lo, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(v.hi, 16))};
}
NEARMOE_INLINE VF f_bf16_odd(VB v) {
  const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  return {_mm256_castsi256_ps(_mm256_and_si256(v.lo, high)),
          _mm256_castsi256_ps(_mm256_and_si256(v.hi, high))};
}
NEARMOE_INLINE void f_to_f16(VF v, void* p) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  _mm_storeu_si128(static_cast<__m128i*>(p), _mm256_cvtps_ph(v.lo, kNearest));
  _mm_storeu_si128(static_cast<__m128i*>(p) + 1, _mm256_cvtps_ph(v.hi, kNearest));
}

NEARMOE_INLINE VI i_zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
NEARMOE_INLINE VI i_set(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
NEARMOE_INLINE VI i_load(const void* p) {
  const auto* words = static_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(words), _mm256_loadu_si256(words + 1)};
}
NEARMOE_INLINE VI i_load_u8(const void* p) {
  return {_mm256_cvtepu8_epi32(load_64(p, 0)), _mm256_cvtepu8_epi32(load_64(p, 1))};
}
NEARMOE_INLINE VI i_load_s8(const void* p) {
  return {_mm256_cvtepi8_epi32(load_64(p, 0)), _mm256_cvtepi8_epi32(load_64(p, 1))};
}
NEARMOE_INLINE VI i_load_u16(const void* p) {
  return {_mm256_cvtepu16_epi32(load_128(p, 0)), _mm256_cvtepu16_epi32(load_128(p, 1))};
}
NEARMOE_INLINE VI i_add(VI a, VI b) { return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)}; }
NEARMOE_INLINE VI i_and(VI a, VI b) { return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)}; }
NEARMOE_INLINE VI i_or(VI a, VI b) { return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)}; }
NEARMOE_INLINE VI i_max(VI a, VI b) { return {_mm256_max_epi32(a.lo, b.lo), _mm256_max_epi32(a.hi, b.hi)}; }
NEARMOE_INLINE VI i_shr(VI a, unsigned n) {
  const auto count = static_cast<int>(n);
  return {_mm256_srli_epi32(a.lo, count), _mm256_srli_epi32(a.hi, count)};
}
NEARMOE_INLINE VI i_shl(VI a, unsigned n) {
  const auto count = static_cast<int>(n);
  return {_mm256_slli_epi32(a.lo, count), _mm256_slli_epi32(a.hi, count)};
}
NEARMOE_INLINE VI i_bits(VF v) { return {_mm256_castps_si256(v.lo), _mm256_castps_si256(v.hi)}; }
NEARMOE_INLINE VF f_bits(VI v) { return {_mm256_castsi256_ps(v.lo), _mm256_castsi256_ps(v.hi)}; }
NEARMOE_INLINE VI i_nearest(VF v) { return {_mm256_cvtps_epi32(v.lo), _mm256_cvtps_epi32(v.hi)}; }
NEARMOE_INLINE int32_t i_reduce_add(VI v) {
  const __m256i a = _mm256_add_epi32(v.lo, v.hi);
  __m128i b = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  b = _mm_add_epi32(b, _mm_shuffle_epi32(b, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(b, _mm_shuffle_epi32(b, 0xb1)));
}
NEARMOE_INLINE int32_t i_reduce_max(VI v) {
  const __m256i a = _mm256_max_epi32(v.lo, v.hi);
  __m128i b = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  b = _mm_max_epi32(b, _mm_shuffle_epi32(b, 0x4e));
  return _mm_cvtsi128_si32(_mm_max_epi32(b, _mm_shuffle_epi32(b, 0xb1)));
}
NEARMOE_INLINE void i_store_s8(int8_t* p, VI v) {
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(v.lo, v.hi), 0xd8);
  const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(words, words), 0xd8);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(bytes));
}

NEARMOE_INLINE VB b_load(const void* p) { return i_load(p); }
NEARMOE_INLINE void b_store(void* p, VB v) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), v.lo);
  _mm256_storeu_si256(static_cast<__m256i*>(p) + 1, v.hi);
}
NEARMOE_INLINE VB b_set(uint8_t x) {
  const __m256i v = _mm256_set1_epi8(static_cast<char>(x));
  return {v, v};
}
NEARMOE_INLINE VB b_and(VB a, VB b) { return i_and(a, b); }
NEARMOE_INLINE VB b_or(VB a, VB b) { return i_or(a, b); }
NEARMOE_INLINE VB b_xor(VB a, VB b) { return {_mm256_xor_si256(a.lo, b.lo), _mm256_xor_si256(a.hi, b.hi)}; }
NEARMOE_INLINE VB b_sub(VB a, VB b) { return {_mm256_sub_epi8(a.lo, b.lo), _mm256_sub_epi8(a.hi, b.hi)}; }
NEARMOE_INLINE VB b_shr(VB a, unsigned n) {
  const auto count = static_cast<int>(n);
  return {_mm256_srli_epi16(a.lo, count), _mm256_srli_epi16(a.hi, count)};
}
NEARMOE_INLINE VB b_shl(VB a, unsigned n) {
  const auto count = static_cast<int>(n);
  return {_mm256_slli_epi16(a.lo, count), _mm256_slli_epi16(a.hi, count)};
}
NEARMOE_INLINE VB b_lut(const int8_t table[16], VB index) {
  const __m256i entries = _mm256_broadcastsi128_si256(load_128(table, 0));
  return {_mm256_shuffle_epi8(entries, index.lo), _mm256_shuffle_epi8(entries, index.hi)};
}

#if defined(__AVXVNNI__)
template <int kMaxCode, int kQuads>
NEARMOE_INLINE VI dot_quads(const VB* w, const int8_t* a, VI acc) {
#pragma GCC unroll 8
  for (int j = 0; j < kQuads; ++j) {
    int32_t word;
    std::memcpy(&word, a + 4 * j, sizeof word);
    const __m256i quad = _mm256_set1_epi32(word);
    acc.lo = _mm256_dpbusd_avx_epi32(acc.lo, w[j].lo, quad);
    acc.hi = _mm256_dpbusd_avx_epi32(acc.hi, w[j].hi, quad);
  }
  return acc;
}
#else
/// 16-bit sums of kRun quads stay exact as long as kMaxCode * 127 * 2 * kRun < 32768; kMaxCode 255 stands for
/// signed weights, whose magnitude is multiplied with the activation of the flipped sign (at most 128 * 127 *
/// 2).
template <int kMaxCode, int kQuads>
NEARMOE_INLINE VI dot_quads(const VB* w, const int8_t* a, VI acc) {
  constexpr int kRun = kMaxCode > 127 ? 1 : kMaxCode <= 15 ? 8 : kMaxCode <= 31 ? 4 : kMaxCode <= 63 ? 2 : 1;
  static_assert(kMaxCode > 127 || kMaxCode * 127 * 2 * kRun < 32768);
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i lo = _mm256_setzero_si256(), hi = _mm256_setzero_si256();
#pragma GCC unroll 8
  for (int j = 0; j < kQuads; ++j) {
    int32_t word;
    std::memcpy(&word, a + 4 * j, sizeof word);
    const __m256i quad = _mm256_set1_epi32(word);
    if constexpr (kMaxCode > 127) {
      lo = _mm256_maddubs_epi16(_mm256_abs_epi8(w[j].lo), _mm256_sign_epi8(quad, w[j].lo));
      hi = _mm256_maddubs_epi16(_mm256_abs_epi8(w[j].hi), _mm256_sign_epi8(quad, w[j].hi));
    } else {
      lo = _mm256_add_epi16(lo, _mm256_maddubs_epi16(w[j].lo, quad));
      hi = _mm256_add_epi16(hi, _mm256_maddubs_epi16(w[j].hi, quad));
    }
    if ((j + 1) % kRun == 0 || j + 1 == kQuads) {
      acc.lo = _mm256_add_epi32(acc.lo, _mm256_madd_epi16(lo, ones));
      acc.hi = _mm256_add_epi32(acc.hi, _mm256_madd_epi16(hi, ones));
      lo = hi = _mm256_setzero_si256();
    }
  }
  return acc;
}
#endif

NEARMOE_INLINE void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
/// For what is read a few microseconds later: into the second level, past the first one's few line buffers.
NEARMOE_INLINE void prefetch_far(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }

}  // namespace nearmoe
