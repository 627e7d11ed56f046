// CUDA's vector and 16-bit float types for the CPU emulation. Arithmetic on 16-bit floats goes through float.
#pragma once

#include <bit>
#include <cstdint>

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __grid_constant__

// binary16 for conversions: GCC 12 has no _Float16 in C++ on AArch64.
#if defined(__aarch64__)
using cpu_half = __fp16;
#else
using cpu_half = _Float16;
#endif

// NOLINTBEGIN: the names are CUDA's.
#define GPU_VECTOR_TYPES(T, N, ALIGN2, ALIGN4)                 \
  struct alignas(ALIGN2) N##2 { T x, y; };                     \
  struct N##3 { T x, y, z; };                                  \
  struct alignas(ALIGN4) N##4 { T x, y, z, w; };               \
  inline N##2 make_##N##2(T x, T y) { return {x, y}; }         \
  inline N##3 make_##N##3(T x, T y, T z) { return {x, y, z}; } \
  inline N##4 make_##N##4(T x, T y, T z, T w) { return {x, y, z, w}; }
GPU_VECTOR_TYPES(float, float, 8, 16)
GPU_VECTOR_TYPES(int, int, 8, 16)
GPU_VECTOR_TYPES(unsigned, uint, 8, 16)
GPU_VECTOR_TYPES(signed char, char, 2, 4)
GPU_VECTOR_TYPES(unsigned char, uchar, 2, 4)
GPU_VECTOR_TYPES(unsigned short, ushort, 4, 8)
#undef GPU_VECTOR_TYPES

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

struct __half {
  cpu_half value;
  __half() = default;
  __half(float f) : value(static_cast<cpu_half>(f)) {}
  operator float() const { return static_cast<float>(value); }
};

struct __nv_bfloat16 {
  uint16_t bits;
  __nv_bfloat16() = default;
  __nv_bfloat16(float f) {
    const uint32_t u = std::bit_cast<uint32_t>(f);
    bits = f != f ? uint16_t{0x7fff} : static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  operator float() const { return std::bit_cast<float>(uint32_t{bits} << 16); }
};

struct alignas(4) __half2 {
  __half x, y;
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
using half = __half;
using half2 = __half2;

inline float __half2float(__half h) { return h; }
inline __half __float2half_rn(float f) { return __half(f); }
inline float2 __half22float2(__half2 h) { return {h.x, h.y}; }
inline __half2 __floats2half2_rn(float a, float b) { return {__half(a), __half(b)}; }
inline __half2 __halves2half2(__half a, __half b) { return {a, b}; }
inline float __bfloat162float(__nv_bfloat16 b) { return b; }
inline __nv_bfloat16 __float2bfloat16_rn(float f) { return __nv_bfloat16(f); }
inline float2 __bfloat1622float2(__nv_bfloat162 b) { return {b.x, b.y}; }
inline __nv_bfloat162 __floats2bfloat162_rn(float a, float b) { return {__nv_bfloat16(a), __nv_bfloat16(b)}; }
// NOLINTEND
