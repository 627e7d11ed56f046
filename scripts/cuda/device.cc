// Prints the first CUDA device, or what is missing. Built and called by scripts/cuda/check-gpu.mjs.
#include <cuda_runtime.h>

#include <cstdio>

int main() {
  int count = 0, driver = 0, runtime = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  (void)cudaDriverGetVersion(&driver);
  (void)cudaRuntimeGetVersion(&runtime);
  if (error != cudaSuccess || count == 0) {
    std::printf(
        "this machine has no CUDA GPU that answers (%s); driver %s. Nothing was checked: run this where "
        "`nvidia-smi` lists a GPU, with a driver for CUDA %d.%d or newer\n",
        error == cudaSuccess ? "0 devices" : cudaGetErrorString(error), driver == 0 ? "not found" : "found",
        runtime / 1000, runtime % 1000 / 10);
    return 1;
  }
  cudaDeviceProp p;
  if (cudaGetDeviceProperties(&p, 0) != cudaSuccess) {
    std::printf("the CUDA device does not tell its properties\n");
    return 1;
  }
  std::printf(
      "%s, sm_%d%d, %d multiprocessors, %.1f GiB, L2 %.0f MiB, %s memory, CUDA %d.%d, driver's CUDA %d.%d\n",
      p.name, p.major, p.minor, p.multiProcessorCount, static_cast<double>(p.totalGlobalMem) / (1 << 30),
      static_cast<double>(p.l2CacheSize) / (1 << 20), p.integrated ? "unified" : "own", runtime / 1000,
      runtime % 1000 / 10, driver / 1000, driver % 1000 / 10);
  return 0;
}
