// Arithmetic, bit and atomic intrinsics for the CPU emulation, as the CUDA manual defines them; approximate
// functions are exact ones here. Atomics are relaxed as on the device, and order memory once the thread has
// fenced.
#pragma once

#include <math.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "block_scheduler.h"

namespace gpu_host {

// The memory order is a constant in each branch: compilers take a variable one as sequentially consistent.
template <class T, class F>
inline T read_modify_write(T* p, F f) {
  std::atomic_ref<T> a(*p);
  T old = a.load(std::memory_order_relaxed);
  if (is_fenced()) {
    while (!a.compare_exchange_weak(old, f(old), std::memory_order_acq_rel, std::memory_order_relaxed)) {
    }
  } else {
    while (!a.compare_exchange_weak(old, f(old), std::memory_order_relaxed, std::memory_order_relaxed)) {
    }
  }
  return old;
}

template <class T>
using Same = std::type_identity_t<T>;

}  // namespace gpu_host

// NOLINTBEGIN: the names are CUDA's.
inline void __threadfence() { gpu_host::set_fenced(); }
inline void __threadfence_block() { gpu_host::set_fenced(); }

template <class T>
inline T atomicAdd(T* p, gpu_host::Same<T> v) {
  return gpu_host::read_modify_write(p, [=](T old) { return static_cast<T>(old + v); });
}
template <class T>
inline T atomicExch(T* p, gpu_host::Same<T> v) {
  return gpu_host::read_modify_write(p, [=](T) { return v; });
}
template <class T>
inline T atomicMax(T* p, gpu_host::Same<T> v) {
  return gpu_host::read_modify_write(p, [=](T old) { return old > v ? old : v; });
}

#define __expf(x) expf(x)
#define __logf(x) logf(x)
inline float __fdividef(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline int __float_as_int(float f) { return std::bit_cast<int>(f); }
inline float __int_as_float(int i) { return std::bit_cast<float>(i); }
inline unsigned __float_as_uint(float f) { return std::bit_cast<unsigned>(f); }
inline float __uint_as_float(unsigned i) { return std::bit_cast<float>(i); }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __float2int_rn(float f) { return static_cast<int>(nearbyintf(f)); }
inline float __int2float_rn(int i) { return static_cast<float>(i); }
template <class T>
inline T __ldg(const T* p) {
  return *p;
}
template <class T>
inline T __ldcs(const T* p) {
  return *p;
}
template <class T>
inline T min(T a, gpu_host::Same<T> b) {
  return b < a ? b : a;
}
template <class T>
inline T max(T a, gpu_host::Same<T> b) {
  return a < b ? b : a;
}

/// c + dot product of four signed bytes.
inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 32; i += 8) c += static_cast<int8_t>(a >> i) * static_cast<int8_t>(b >> i);
  return c;
}

/// Per-byte a - b, wrapping.
inline unsigned __vsub4(unsigned a, unsigned b) {
  unsigned r = 0;
  for (int i = 0; i < 32; i += 8) r |= ((((a >> i) & 0xffu) - ((b >> i) & 0xffu)) & 0xffu) << i;
  return r;
}

/// Byte i of the result is the byte of {b, a} (b above a) that nibble i of `selector` names; bit 3 would
/// replicate a sign.
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const uint64_t bytes = uint64_t{b} << 32 | a;
  unsigned r = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned s = (selector >> (4 * i)) & 15u;
    unsigned byte = static_cast<unsigned>(bytes >> (8 * (s & 7u))) & 0xffu;
    if (s & 8u) byte = byte & 0x80u ? 0xffu : 0u;
    r |= byte << (8 * i);
  }
  return r;
}
// NOLINTEND
