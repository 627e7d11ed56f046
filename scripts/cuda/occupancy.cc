// How many blocks of a kernel run on one multiprocessor at a time, by the CUDA toolkit's own calculator
// (cuda_occupancy.h), which needs neither driver nor GPU. Built and called by scripts/cuda/compile-all.mjs.
// Each line of stdin: target, registers a thread, static and dynamic shared bytes, threads a block. Each line
// of stdout: blocks, warps the multiprocessor has room for, and what limits them.
#include <cstdio>

#include <cuda_occupancy.h>

namespace {

/// What a multiprocessor of a compute capability offers (CUDA C++ Programming Guide, "Technical
/// Specifications per Compute Capability").
cudaOccDeviceProp properties_of(int target) {
  const bool turing = target == 75, small = target == 86 || target == 89 || target == 120;
  cudaOccDeviceProp p;
  p.computeMajor = target / 10;
  p.computeMinor = target % 10;
  p.maxThreadsPerBlock = 1024;
  p.maxThreadsPerMultiprocessor = turing ? 1024 : small ? 1536 : 2048;
  p.regsPerBlock = p.regsPerMultiprocessor = 65536;
  p.warpSize = 32;
  p.sharedMemPerMultiprocessor = static_cast<size_t>(turing        ? 64
                                                     : small       ? 100
                                                     : target < 90 ? 164
                                                                   : 228)
                                 << 10;
  p.reservedSharedMemPerBlock = turing ? 0 : 1024;
  p.sharedMemPerBlock = 48 << 10;
  p.sharedMemPerBlockOptin = p.sharedMemPerMultiprocessor - p.reservedSharedMemPerBlock;
  p.numSms = 1;
  return p;
}

const char* limit_name(unsigned factors) {
  return factors & OCC_LIMIT_REGISTERS       ? "registers"
         : factors & OCC_LIMIT_SHARED_MEMORY ? "shared memory"
         : factors & OCC_LIMIT_BLOCKS        ? "blocks"
                                             : "warps";
}

}  // namespace

int main() {
  int target, registers, threads;
  size_t fixed, dynamic;
  while (std::scanf("%d %d %zu %zu %d", &target, &registers, &fixed, &dynamic, &threads) == 5) {
    const cudaOccDeviceProp p = properties_of(target);
    cudaOccFuncAttributes attributes;
    attributes.maxThreadsPerBlock = threads;
    attributes.numRegs = registers;
    attributes.sharedSizeBytes = fixed;
    attributes.maxDynamicSharedSizeBytes = p.sharedMemPerBlockOptin;
    attributes.partitionedGCConfig = PARTITIONED_GC_OFF;
    attributes.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
    const cudaOccDeviceState state;
    cudaOccResult result;
    const cudaOccError error =
        cudaOccMaxActiveBlocksPerMultiprocessor(&result, &p, &attributes, &state, threads, dynamic);
    if (error != CUDA_OCC_SUCCESS) {
      std::fprintf(stderr, "occupancy: cuda_occupancy.h answered error %d for sm_%d\n", error, target);
      return 1;
    }
    std::printf("%d %d %s\n", result.activeBlocksPerMultiprocessor, p.maxThreadsPerMultiprocessor / 32,
                limit_name(result.limitingFactors));
  }
  return 0;
}
