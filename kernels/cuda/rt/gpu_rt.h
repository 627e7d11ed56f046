// The one include of every CUDA source: the CUDA runtime under nvcc, its emulation on the CPU under a plain
// C++20 compiler. Kernels use what both know: GPU_SHARED, GPU_DYN_SHARED, gpu_launch and the CUDA names of
// cuda_on_cpu.h.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

/// Static shared memory: GPU_SHARED(float, tile, [32][33]); one variable: GPU_SHARED(int, last, ).
#define GPU_SHARED(T, name, ...) __shared__ T name __VA_ARGS__
/// The launch's dynamic shared memory as T*, 128-byte aligned. T is the same in all kernels of a source.
#define GPU_DYN_SHARED(T, name)                                        \
  extern __shared__ __align__(128) unsigned char gpu_dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(gpu_dynamic_shared)

/// Launches `kernel`; `name` is for messages only. Opts in to more than 48 KiB of dynamic shared memory where
/// asked.
template <class... P, class... A>
inline cudaError_t gpu_launch(const char* name, void (*kernel)(P...), dim3 grid, dim3 block,
                              size_t shared_bytes, cudaStream_t stream, A... args) {
  (void)name;
  if (shared_bytes > 48 * 1024) {
    const cudaError_t error =
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
    if (error != cudaSuccess) return error;
  }
  kernel<<<grid, block, shared_bytes, stream>>>(static_cast<P>(args)...);
  return cudaGetLastError();
}
#elif defined(NEARMOE_CUDA_HOST)
// Host sources of the CUDA build, compiled by the plain C++ compiler: the runtime API, no kernels.
#include <cuda_runtime.h>
#else
#include "cuda_on_cpu.h"
#endif
