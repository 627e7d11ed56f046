// Tensor-core and asynchronous-copy primitives: PTX on the device, emulated on the CPU. The only inline PTX
// of the project. What sm_75 does in place of later instructions is in mma_turing.h, and runs in the
// emulation as well: there the emulated device's compute capability decides, on a device the target. Fragment
// layouts are those of the PTX ISA ("Matrix Fragments for mma.m16n8k16 / m16n8k32"); with g = lane / 4 and t
// = lane % 4:
//   A (16 x K): register i holds row g + 8 * (i & 1), values of K from (i >> 1) * K/2 + t * n on, n = 2
//   (bf16, f16) or 4 (s8) B (K x 8):  register i holds column g, values of K from i * K/2 + t * n on C (16 x
//   8): value i is row g + 8 * (i >> 1), column 2 * t + (i & 1)
#pragma once

#include "gpu_rt.h"

#if defined(__CUDACC__)

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define GPU_AMPERE 1
#else
#define GPU_AMPERE 0
#endif

/// d += a (16 x 16) * b (16 x 8), bf16 in, float out. Not for sm_75, where the caller picks another kernel.
__device__ __forceinline__ void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if GPU_AMPERE
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();
#endif
}

/// The same with f16 in.
__device__ __forceinline__ void mma_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if GPU_AMPERE
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();
#endif
}

/// True, behind a trap, where mma_bf16 is missing: a kernel that is nothing without it returns at once and
/// takes no registers there.
__device__ __forceinline__ bool lacks_mma_bf16() {
#if GPU_AMPERE
  return false;
#else
  __trap();
  return true;
#endif
}

/// d += a (8 x 16) * b (16 x 8), signed bytes in, int out: what sm_75 has.
__device__ __forceinline__ void mma_s8_m8n8k16(int& d0, int& d1, unsigned a, unsigned b) {
  asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
               : "+r"(d0), "+r"(d1)
               : "r"(a), "r"(b));
}

#include "mma_turing.h"

/// d += a (16 x 32) * b (32 x 8), signed bytes in, int out.
__device__ __forceinline__ void mma_s8(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if GPU_AMPERE
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  mma_s8_turing(d, a, b);
#endif
}

/// d += a (16 x 16) * b (16 x 8), signed bytes in, int out.
__device__ __forceinline__ void mma_s8_k16(int (&d)[4], const unsigned (&a)[2], unsigned b) {
#if GPU_AMPERE
  asm volatile("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
               : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(b));
#else
  mma_s8_k16_turing(d, a, b);
#endif
}

/// Four 8 x 8 matrices of 16-bit values; lane l names row l % 8 of matrix l / 8 in shared memory.
__device__ __forceinline__ void ldmatrix_x4(unsigned (&r)[4], const void* row) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

/// The same, each matrix transposed.
__device__ __forceinline__ void ldmatrix_x4_transposed(unsigned (&r)[4], const void* row) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

/// Copies 16 bytes into shared memory, or zeros where not `valid` (`global` is then not read). Both 16-byte
/// aligned.
__device__ __forceinline__ void cp_async16(void* shared, const void* global, bool valid = true) {
#if GPU_AMPERE
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
#else
  copy16_turing(shared, global, valid);
#endif
}

__device__ __forceinline__ void cp_async_commit() {
#if GPU_AMPERE
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/// Waits until at most N groups of this thread's copies are under way.
template <int N>
__device__ __forceinline__ void cp_async_wait() {
#if GPU_AMPERE
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

#else

namespace gpu_host {

template <class D>
struct MmaArgument {
  D* d;
  const unsigned *a, *b;
};

inline float bf16_value(unsigned pair, int high) {
  return __uint_as_float(high ? pair & 0xffff0000u : pair << 16);
}

inline float f16_value(unsigned pair, int high) {
  return static_cast<float>(std::bit_cast<cpu_half>(static_cast<uint16_t>(high ? pair >> 16 : pair)));
}

/// The common part of all shapes: PER values of `Value` in a register, K columns. `value(reg, i)` takes one
/// out.
template <int K, int PER, class D, class Value, class F>
void multiply(void* const* lanes, uint32_t active, F value) {
  if (active != ~0u) fail("mma: only lanes %08x take part", active);
  Value a[16][K], b[K][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto& argument = *static_cast<MmaArgument<D>*>(lanes[lane]);
    const int g = lane >> 2, t = lane & 3;
    for (int v = 0; v < PER; ++v) {
      for (int i = 0; i < K / PER / 2; ++i) {
        a[g + 8 * (i & 1)][PER * t + v + 4 * PER * (i >> 1)] = value(argument.a[i], v);
      }
      for (int i = 0; i < K / PER / 4; ++i) b[PER * t + v + 4 * PER * i][g] = value(argument.b[i], v);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const int row = (lane >> 2) + 8 * (i >> 1), column = 2 * (lane & 3) + (i & 1);
      D sum = 0;
      for (int k = 0; k < K; ++k) sum += static_cast<D>(a[row][k]) * static_cast<D>(b[k][column]);
      static_cast<MmaArgument<D>*>(lanes[lane])->d[i] += sum;
    }
  }
}

template <int K>
inline void multiply_s8(void* const* lanes, uint32_t active) {
  multiply<K, 4, int, int8_t>(lanes, active,
                              [](unsigned quad, int i) { return static_cast<int8_t>(quad >> (8 * i)); });
}

struct LdmatrixArgument {
  unsigned* r;
  const void* row;
};

template <bool TRANSPOSED>
void load_matrices(void* const* lanes, uint32_t active) {
  if (active != ~0u) fail("ldmatrix: only lanes %08x take part", active);
  const auto half_word = [&](int matrix, int row, int column) {
    const void* address = static_cast<LdmatrixArgument*>(lanes[matrix * 8 + row])->row;
    return unsigned{static_cast<const uint16_t*>(address)[column]};
  };
  for (int lane = 0; lane < 32; ++lane) {
    const int row = lane >> 2, column = 2 * (lane & 3);
    for (int i = 0; i < 4; ++i) {
      const unsigned low = TRANSPOSED ? half_word(i, column, row) : half_word(i, row, column);
      const unsigned high = TRANSPOSED ? half_word(i, column + 1, row) : half_word(i, row, column + 1);
      static_cast<LdmatrixArgument*>(lanes[lane])->r[i] = low | high << 16;
    }
  }
}

}  // namespace gpu_host

inline bool lacks_mma_bf16() { return false; }

/// d += a (8 x 16) * b (16 x 8): lane's register of A is row g, that of B column g, values of K from 4 * t
/// on.
inline void mma_s8_m8n8k16(int& d0, int& d1, unsigned a, unsigned b, GPU_SITE) {
  int d[4] = {d0, d1, 0, 0};
  const unsigned rows[2] = {a, 0}, cols[1] = {b};
  gpu_host::MmaArgument<int> argument{d, rows, cols};
  gpu_host::warp_op("mma_s8_m8n8k16", ~0u, gpu_host::multiply_s8<16>, &argument, gpu_host::Fence::No, file_,
                    line_);
  d0 = d[0];
  d1 = d[1];
}

#include "mma_turing.h"

inline void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], GPU_SITE) {
  if (gpu_host::device_model.compute_capability < 80)
    gpu_host::fail("mma_bf16 (%s:%d): the device has no bf16 matrices", file_, line_);
  gpu_host::MmaArgument<float> argument{d, a, b};
  const auto op = [](void* const* lanes, uint32_t active) {
    gpu_host::multiply<16, 2, float, float>(lanes, active, gpu_host::bf16_value);
  };
  gpu_host::warp_op("mma_bf16", ~0u, op, &argument, gpu_host::Fence::No, file_, line_);
}

inline void mma_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], GPU_SITE) {
  if (gpu_host::device_model.compute_capability < 80)
    gpu_host::fail("mma_f16 (%s:%d): the device has no products of this size", file_, line_);
  gpu_host::MmaArgument<float> argument{d, a, b};
  const auto op = [](void* const* lanes, uint32_t active) {
    gpu_host::multiply<16, 2, float, float>(lanes, active, gpu_host::f16_value);
  };
  gpu_host::warp_op("mma_f16", ~0u, op, &argument, gpu_host::Fence::No, file_, line_);
}

inline void mma_s8(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], GPU_SITE) {
  if (gpu_host::device_model.compute_capability < 80) return mma_s8_turing(d, a, b);
  gpu_host::MmaArgument<int> argument{d, a, b};
  gpu_host::warp_op("mma_s8", ~0u, gpu_host::multiply_s8<32>, &argument, gpu_host::Fence::No, file_, line_);
}

inline void mma_s8_k16(int (&d)[4], const unsigned (&a)[2], unsigned b, GPU_SITE) {
  if (gpu_host::device_model.compute_capability < 80) return mma_s8_k16_turing(d, a, b);
  gpu_host::MmaArgument<int> argument{d, a, &b};
  gpu_host::warp_op("mma_s8_k16", ~0u, gpu_host::multiply_s8<16>, &argument, gpu_host::Fence::No, file_,
                    line_);
}

inline void ldmatrix_x4(unsigned (&r)[4], const void* row, GPU_SITE) {
  if (reinterpret_cast<uintptr_t>(row) & 15)
    gpu_host::fail("ldmatrix: not 16-byte aligned (%s:%d)", file_, line_);
  gpu_host::LdmatrixArgument argument{r, row};
  gpu_host::warp_op("ldmatrix", ~0u, gpu_host::load_matrices<false>, &argument, gpu_host::Fence::No, file_,
                    line_);
}

inline void ldmatrix_x4_transposed(unsigned (&r)[4], const void* row, GPU_SITE) {
  if (reinterpret_cast<uintptr_t>(row) & 15)
    gpu_host::fail("ldmatrix: not 16-byte aligned (%s:%d)", file_, line_);
  gpu_host::LdmatrixArgument argument{r, row};
  gpu_host::warp_op("ldmatrix.trans", ~0u, gpu_host::load_matrices<true>, &argument, gpu_host::Fence::No,
                    file_, line_);
}

// The copies land only when their group is waited for: a forgotten wait reads poison.
inline void cp_async16(void* shared, const void* global, bool valid = true, GPU_SITE) {
  if (gpu_host::device_model.compute_capability < 80) return copy16_turing(shared, global, valid);
  gpu_host::async_copy(shared, global, !valid, file_, line_);
}
inline void cp_async_commit() { gpu_host::async_commit(); }
template <int N>
inline void cp_async_wait() {
  gpu_host::async_wait(N);
}

#endif
