// vec.h for AArch64: four 128-bit registers for each vector of 16. Dot products use SDOT where the build has
// it (tables dotprod and i8mm: Cortex-A76 and A78AE, Neoverse); without (table neon, plain Armv8.0) widening
// multiplies whose 16-bit sums are kept below saturation. Weights are signed bytes in every build. binary16
// conversions are part of Armv8.0; SVE is not used, its registers are as wide as these on current boxes.
#pragma once

#include <arm_neon.h>

namespace nearmoe {

struct VF {
  float32x4_t a, b, c, d;  ///< lanes 0..3, 4..7, 8..11, 12..15
};
struct VI {
  int32x4_t a, b, c, d;
};
struct VB {
  uint8x16_t a, b, c, d;
};

constexpr bool kWideSigned = true;
constexpr bool kByteShifts = true;
constexpr size_t kDotTokens = 1;
constexpr int kGemmTokens = 2;                     // of the table without SDOT; the others have gemm_neon.h
constexpr size_t kDeltaPanels = 1;                 // columns / 16 of a delta rule's state at a time
constexpr int kAttentionRows = 2;                  // query rows x 32 keys of accumulators
constexpr int kFloatGroups = 1, kFloatTokens = 4;  // float GEMM register tile

NEARMOE_INLINE VF f_set(float x) {
  const float32x4_t v = vdupq_n_f32(x);
  return {v, v, v, v};
}
NEARMOE_INLINE VF f_zero() { return f_set(0.0f); }
NEARMOE_INLINE VF f_load(const float* p) {
  return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
}
NEARMOE_INLINE void f_store(float* p, VF v) {
  vst1q_f32(p, v.a);
  vst1q_f32(p + 4, v.b);
  vst1q_f32(p + 8, v.c);
  vst1q_f32(p + 12, v.d);
}
/// Tails only: through memory.
NEARMOE_INLINE VF f_load_n(const float* p, size_t n) {
  float copy[16] = {};
  for (size_t i = 0; i < n; ++i) copy[i] = p[i];
  return f_load(copy);
}
NEARMOE_INLINE void f_store_n(float* p, VF v, size_t n) {
  float copy[16];
  f_store(copy, v);
  for (size_t i = 0; i < n; ++i) p[i] = copy[i];
}

// Applies an intrinsic to the four registers of each operand.
#define NEARMOE_EACH(op, x) \
  { op(x.a), op(x.b), op(x.c), op(x.d) }
#define NEARMOE_EACH2(op, x, y) \
  { op(x.a, y.a), op(x.b, y.b), op(x.c, y.c), op(x.d, y.d) }
#define NEARMOE_EACH3(op, x, y, z) \
  { op(x.a, y.a, z.a), op(x.b, y.b, z.b), op(x.c, y.c, z.c), op(x.d, y.d, z.d) }

NEARMOE_INLINE VF f_loaded(VF v) { return v; }
NEARMOE_INLINE VF f_add(VF a, VF b) { return NEARMOE_EACH2(vaddq_f32, a, b); }
NEARMOE_INLINE VF f_sub(VF a, VF b) { return NEARMOE_EACH2(vsubq_f32, a, b); }
NEARMOE_INLINE VF f_mul(VF a, VF b) { return NEARMOE_EACH2(vmulq_f32, a, b); }
NEARMOE_INLINE VF f_div(VF a, VF b) { return NEARMOE_EACH2(vdivq_f32, a, b); }
NEARMOE_INLINE VF f_fma(VF a, VF b, VF c) { return NEARMOE_EACH3(vfmaq_f32, c, a, b); }
/// The second operand where one is NaN, as on x86; FMAX and FMIN would give the NaN.
NEARMOE_INLINE float32x4_t max_lanes(float32x4_t a, float32x4_t b) {
  return vbslq_f32(vcgtq_f32(a, b), a, b);
}
NEARMOE_INLINE float32x4_t min_lanes(float32x4_t a, float32x4_t b) {
  return vbslq_f32(vcltq_f32(a, b), a, b);
}
NEARMOE_INLINE VF f_max(VF a, VF b) { return NEARMOE_EACH2(max_lanes, a, b); }
NEARMOE_INLINE VF f_min(VF a, VF b) { return NEARMOE_EACH2(min_lanes, a, b); }
NEARMOE_INLINE VF f_neg(VF a) { return NEARMOE_EACH(vnegq_f32, a); }
NEARMOE_INLINE VF f_abs(VF a) { return NEARMOE_EACH(vabsq_f32, a); }
NEARMOE_INLINE float32x4_t copysign_lanes(float32x4_t a, float32x4_t b) {
  return vbslq_f32(vdupq_n_u32(0x80000000u), b, a);
}
NEARMOE_INLINE VF f_copysign(VF a, VF b) { return NEARMOE_EACH2(copysign_lanes, a, b); }
NEARMOE_INLINE VF f_select_less(VF a, VF b, VF then, VF otherwise) {
  return {vbslq_f32(vcltq_f32(a.a, b.a), then.a, otherwise.a),
          vbslq_f32(vcltq_f32(a.b, b.b), then.b, otherwise.b),
          vbslq_f32(vcltq_f32(a.c, b.c), then.c, otherwise.c),
          vbslq_f32(vcltq_f32(a.d, b.d), then.d, otherwise.d)};
}
NEARMOE_INLINE VF f_round(VF a) { return NEARMOE_EACH(vrndnq_f32, a); }
/// Half of n at a time, so that both factors are normal numbers.
NEARMOE_INLINE float32x4_t mul_2n(float32x4_t a, float32x4_t n) {
  const int32x4_t whole = vcvtq_s32_f32(n), half = vshrq_n_s32(whole, 1), bias = vdupq_n_s32(127);
  const int32x4_t first = vshlq_n_s32(vaddq_s32(half, bias), 23);
  const int32x4_t second = vshlq_n_s32(vaddq_s32(vsubq_s32(whole, half), bias), 23);
  return vmulq_f32(vmulq_f32(a, vreinterpretq_f32_s32(first)), vreinterpretq_f32_s32(second));
}
NEARMOE_INLINE VF f_mul_2n(VF a, VF n) { return NEARMOE_EACH2(mul_2n, a, n); }
/// Lane i + lane i + 8, then 4, 2, 1: the order of reference/lanes.h.
NEARMOE_INLINE float f_reduce_add(VF v) {
  const float32x4_t four = vaddq_f32(vaddq_f32(v.a, v.c), vaddq_f32(v.b, v.d));
  const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
NEARMOE_INLINE float f_reduce_max(VF v) {
  return vmaxvq_f32(max_lanes(max_lanes(v.a, v.c), max_lanes(v.b, v.d)));
}
NEARMOE_INLINE VF f_from_int(VI v) { return NEARMOE_EACH(vcvtq_f32_s32, v); }
NEARMOE_INLINE VF f_from_f16(const void* p) {
  const auto* words = static_cast<const uint16_t*>(p);
  const float16x8_t low = vreinterpretq_f16_u16(vld1q_u16(words));
  const float16x8_t high = vreinterpretq_f16_u16(vld1q_u16(words + 8));
  return {vcvt_f32_f16(vget_low_f16(low)), vcvt_high_f32_f16(low), vcvt_f32_f16(vget_low_f16(high)),
          vcvt_high_f32_f16(high)};
}
/// Rounds to nearest even.
NEARMOE_INLINE void f_store_f16(uint16_t* p, VF v) {
  vst1q_u16(p, vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(v.a), v.b)));
  vst1q_u16(p + 8, vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(v.c), v.d)));
}
NEARMOE_INLINE VF f_bits(VI v) { return NEARMOE_EACH(vreinterpretq_f32_s32, v); }
NEARMOE_INLINE VI i_bits(VF v) { return NEARMOE_EACH(vreinterpretq_s32_f32, v); }
NEARMOE_INLINE VF f_from_bf16(const void* p) {
  const auto* words = static_cast<const uint16_t*>(p);
  const uint16x8_t low = vld1q_u16(words), high = vld1q_u16(words + 8);
  return {vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(low), 16)),
          vreinterpretq_f32_u32(vshll_high_n_u16(low, 16)),
          vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(high), 16)),
          vreinterpretq_f32_u32(vshll_high_n_u16(high, 16))};
}
NEARMOE_INLINE void f_to_f16(VF v, void* p) {
  auto* words = static_cast<uint16_t*>(p);
  vst1q_u16(words, vreinterpretq_u16_f16(vcombine_f16(vcvt_f16_f32(v.a), vcvt_f16_f32(v.b))));
  vst1q_u16(words + 8, vreinterpretq_u16_f16(vcombine_f16(vcvt_f16_f32(v.c), vcvt_f16_f32(v.d))));
}
NEARMOE_INLINE float32x4_t bf16_even_lanes(uint8x16_t v) {
  return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_u8(v), 16));
}
NEARMOE_INLINE float32x4_t bf16_odd_lanes(uint8x16_t v) {
  return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_u8(v), vdupq_n_u32(0xffff0000u)));
}
NEARMOE_INLINE VF f_bf16_even(VB v) { return NEARMOE_EACH(bf16_even_lanes, v); }
NEARMOE_INLINE VF f_bf16_odd(VB v) { return NEARMOE_EACH(bf16_odd_lanes, v); }

NEARMOE_INLINE VI i_set(int32_t x) {
  const int32x4_t v = vdupq_n_s32(x);
  return {v, v, v, v};
}
NEARMOE_INLINE VI i_zero() { return i_set(0); }
NEARMOE_INLINE VI i_load(const void* p) {
  const auto* bytes = static_cast<const uint8_t*>(p);
  return {vreinterpretq_s32_u8(vld1q_u8(bytes)), vreinterpretq_s32_u8(vld1q_u8(bytes + 16)),
          vreinterpretq_s32_u8(vld1q_u8(bytes + 32)), vreinterpretq_s32_u8(vld1q_u8(bytes + 48))};
}
NEARMOE_INLINE VI widen_words(uint16x8_t low, uint16x8_t high) {
  return {vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(low))), vreinterpretq_s32_u32(vmovl_high_u16(low)),
          vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(high))), vreinterpretq_s32_u32(vmovl_high_u16(high))};
}
NEARMOE_INLINE VI i_load_u16(const void* p) {
  const auto* words = static_cast<const uint16_t*>(p);
  return widen_words(vld1q_u16(words), vld1q_u16(words + 8));
}
NEARMOE_INLINE VI i_load_u8(const void* p) {
  const uint8x16_t bytes = vld1q_u8(static_cast<const uint8_t*>(p));
  return widen_words(vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes));
}
NEARMOE_INLINE VI i_load_s8(const void* p) {
  const int8x16_t bytes = vld1q_s8(static_cast<const int8_t*>(p));
  const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_high_s8(bytes);
  return {vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)),
          vmovl_high_s16(high)};
}
NEARMOE_INLINE VF f_from_s8(const void* p) { return f_from_int(i_load_s8(p)); }
NEARMOE_INLINE VI i_add(VI a, VI b) { return NEARMOE_EACH2(vaddq_s32, a, b); }
NEARMOE_INLINE VI i_and(VI a, VI b) { return NEARMOE_EACH2(vandq_s32, a, b); }
NEARMOE_INLINE VI i_or(VI a, VI b) { return NEARMOE_EACH2(vorrq_s32, a, b); }
NEARMOE_INLINE VI i_max(VI a, VI b) { return NEARMOE_EACH2(vmaxq_s32, a, b); }
// Shift counts are constants after inlining; negative counts of USHL shift right.
NEARMOE_INLINE int32x4_t shift_lanes(int32x4_t v, int32x4_t n) {
  return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(v), n));
}
NEARMOE_INLINE VI i_shl(VI v, unsigned n) {
  return NEARMOE_EACH2(shift_lanes, v, i_set(static_cast<int32_t>(n)));
}
NEARMOE_INLINE VI i_shr(VI v, unsigned n) {
  return NEARMOE_EACH2(shift_lanes, v, i_set(-static_cast<int32_t>(n)));
}
NEARMOE_INLINE VI i_nearest(VF v) { return NEARMOE_EACH(vcvtnq_s32_f32, v); }
NEARMOE_INLINE int32_t i_reduce_add(VI v) {
  return vaddvq_s32(vaddq_s32(vaddq_s32(v.a, v.b), vaddq_s32(v.c, v.d)));
}
NEARMOE_INLINE int32_t i_reduce_max(VI v) {
  return vmaxvq_s32(vmaxq_s32(vmaxq_s32(v.a, v.b), vmaxq_s32(v.c, v.d)));
}
NEARMOE_INLINE void i_store_s8(int8_t* p, VI v) {
  const int16x8_t low = vcombine_s16(vmovn_s32(v.a), vmovn_s32(v.b));
  const int16x8_t high = vcombine_s16(vmovn_s32(v.c), vmovn_s32(v.d));
  vst1q_s8(p, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
}

NEARMOE_INLINE VB b_load(const void* p) {
  const auto* bytes = static_cast<const uint8_t*>(p);
  return {vld1q_u8(bytes), vld1q_u8(bytes + 16), vld1q_u8(bytes + 32), vld1q_u8(bytes + 48)};
}
NEARMOE_INLINE void b_store(void* p, VB v) {
  auto* bytes = static_cast<uint8_t*>(p);
  vst1q_u8(bytes, v.a);
  vst1q_u8(bytes + 16, v.b);
  vst1q_u8(bytes + 32, v.c);
  vst1q_u8(bytes + 48, v.d);
}
NEARMOE_INLINE VB b_set(uint8_t x) {
  const uint8x16_t v = vdupq_n_u8(x);
  return {v, v, v, v};
}
NEARMOE_INLINE VB b_and(VB a, VB b) { return NEARMOE_EACH2(vandq_u8, a, b); }
NEARMOE_INLINE VB b_or(VB a, VB b) { return NEARMOE_EACH2(vorrq_u8, a, b); }
NEARMOE_INLINE VB b_xor(VB a, VB b) { return NEARMOE_EACH2(veorq_u8, a, b); }
NEARMOE_INLINE VB b_sub(VB a, VB b) { return NEARMOE_EACH2(vsubq_u8, a, b); }
/// Nothing crosses a byte.
NEARMOE_INLINE VB b_shl(VB v, unsigned n) {
  const int8x16_t count = vdupq_n_s8(static_cast<int8_t>(n));
  return {vshlq_u8(v.a, count), vshlq_u8(v.b, count), vshlq_u8(v.c, count), vshlq_u8(v.d, count)};
}
NEARMOE_INLINE VB b_shr(VB v, unsigned n) {
  const int8x16_t count = vdupq_n_s8(static_cast<int8_t>(-static_cast<int>(n)));
  return {vshlq_u8(v.a, count), vshlq_u8(v.b, count), vshlq_u8(v.c, count), vshlq_u8(v.d, count)};
}
/// table[index] for indices below 16.
NEARMOE_INLINE VB b_lut(const int8_t table[16], VB index) {
  const uint8x16_t entries = vreinterpretq_u8_s8(vld1q_s8(table));
  return {vqtbl1q_u8(entries, index.a), vqtbl1q_u8(entries, index.b), vqtbl1q_u8(entries, index.c),
          vqtbl1q_u8(entries, index.d)};
}

#if defined(__ARM_FEATURE_DOTPROD)
/// One quad: SDOT by element, whose lane must be a constant.
template <int kLane>
NEARMOE_INLINE VI dot_quad(VB w, int8x16_t a, VI acc) {
  return {vdotq_laneq_s32(acc.a, vreinterpretq_s8_u8(w.a), a, kLane),
          vdotq_laneq_s32(acc.b, vreinterpretq_s8_u8(w.b), a, kLane),
          vdotq_laneq_s32(acc.c, vreinterpretq_s8_u8(w.c), a, kLane),
          vdotq_laneq_s32(acc.d, vreinterpretq_s8_u8(w.d), a, kLane)};
}
template <int kMaxCode, int kQuads>
NEARMOE_INLINE VI dot_quads(const VB* w, const int8_t* a, VI acc) {
  static_assert(kQuads % 4 == 0);
#pragma GCC unroll 2
  for (int j = 0; j < kQuads; j += 4) {
    const int8x16_t sixteen = vld1q_s8(a + 4 * j);
    acc = dot_quad<0>(w[j], sixteen, acc);
    acc = dot_quad<1>(w[j + 1], sixteen, acc);
    acc = dot_quad<2>(w[j + 2], sixteen, acc);
    acc = dot_quad<3>(w[j + 3], sixteen, acc);
  }
  return acc;
}
#else
/// Adds kQuads quads of 4 rows to 4 sums, kRun quads at a time in 16 bits.
template <int kRun, int kQuads, uint8x16_t VB::*kPart>
NEARMOE_INLINE int32x4_t dot_rows(const VB* w, const int8_t* a, int32x4_t acc) {
  int32x4_t low = vdupq_n_s32(0), high = low;  // two sums of a row side by side
#pragma GCC unroll 8
  for (int first = 0; first < kQuads; first += kRun) {
    int16x8_t words[2] = {vdupq_n_s16(0), vdupq_n_s16(0)};
#pragma GCC unroll 8
    for (int j = first; j < first + kRun; ++j) {
      int32_t word;
      std::memcpy(&word, a + 4 * j, sizeof word);
      const int8x16_t quad = vreinterpretq_s8_s32(vdupq_n_s32(word)),
                      codes = vreinterpretq_s8_u8(w[j].*kPart);
      words[0] = vmlal_s8(words[0], vget_low_s8(codes), vget_low_s8(quad));
      words[1] = vmlal_high_s8(words[1], codes, quad);
    }
    low = vpadalq_s16(low, words[0]);
    high = vpadalq_s16(high, words[1]);
  }
  return vaddq_s32(acc, vpaddq_s32(low, high));
}
template <int kMaxCode, int kQuads>
NEARMOE_INLINE VI dot_quads(const VB* w, const int8_t* a, VI acc) {
  // One product of a quad meets each 16-bit lane; activations are at most 127 in magnitude.
  constexpr int kMost = kMaxCode > 127 ? 2 : kMaxCode <= 31 ? 8 : kMaxCode <= 63 ? 4 : 2;
  static_assert((kMaxCode > 127 ? 128 : kMaxCode) * 127 * kMost < 32768);
  constexpr int kRun = kMost < kQuads ? kMost : kQuads;
  return {dot_rows<kRun, kQuads, &VB::a>(w, a, acc.a), dot_rows<kRun, kQuads, &VB::b>(w, a, acc.b),
          dot_rows<kRun, kQuads, &VB::c>(w, a, acc.c), dot_rows<kRun, kQuads, &VB::d>(w, a, acc.d)};
}
#endif

NEARMOE_INLINE void prefetch(const void* p) { __builtin_prefetch(p); }
/// For what is read a few microseconds later: into the second level, past the first one's few line buffers.
NEARMOE_INLINE void prefetch_far(const void* p) { __builtin_prefetch(p, 0, 2); }

}  // namespace nearmoe
