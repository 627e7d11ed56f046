#include "device_list.h"

#include <cstdio>
#include <string>

#if defined(NEARMOE_CUDA_HOST)
#include <dlfcn.h>
#endif

namespace nearmoe::gpu {
namespace {

constexpr int kLeastCapability = 75;

/// "13.0" of 13000.
std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

/// cudaGetDeviceCount answers alike for "no driver" and "driver too old": look for the driver's library
/// first.
bool has_driver() {
#if defined(NEARMOE_CUDA_HOST)
  void* driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (driver == nullptr) return false;
  dlclose(driver);
#endif
  return true;
}

cudaError_t attribute(cudaDeviceAttr name, int device, int* value) {
  return cudaDeviceGetAttribute(value, name, device);
}

cudaError_t describe_device(int index, int driver, NmGpuDevice* out) {
  *out = {};
  cudaDeviceProp properties{};
  if (const cudaError_t error = cudaGetDeviceProperties(&properties, index); error != cudaSuccess)
    return error;
  std::snprintf(out->name, sizeof out->name, "%.127s", properties.name);
  out->compute_capability = 10 * properties.major + properties.minor;
  out->multiprocessors = properties.multiProcessorCount;
  out->unified_memory = properties.integrated;
  out->driver_version = driver;
  out->total_bytes = properties.totalGlobalMem;
  int khz = 0, bits = 0;
  if (attribute(cudaDevAttrMemoryClockRate, index, &khz) == cudaSuccess &&
      attribute(cudaDevAttrGlobalMemoryBusWidth, index, &bits) == cudaSuccess) {
    out->bandwidth_gbs = 2.0 * khz * 1e3 * bits / 8 / 1e9;  // two transfers a cycle
  }
  size_t free_bytes = 0, total_bytes = 0;
  if (const cudaError_t error = cudaSetDevice(index); error != cudaSuccess) return error;
  if (const cudaError_t error = cudaMemGetInfo(&free_bytes, &total_bytes); error != cudaSuccess) return error;
  out->free_bytes = free_bytes;
  return cudaSuccess;
}

}  // namespace

NmGpuCode probe(NmGpuDevice* devices, uint32_t capacity, uint32_t* count, NmGpuError* error) {
  *count = 0;
  if (!has_driver()) {
    return fill_error(
        error, NM_GPU_NO_DRIVER, "probe",
        "libcuda.so.1 was not found: no NVIDIA driver is installed (in a container: it was not started "
        "with the GPU, for example `--gpus all`)");
  }
  int driver = 0, runtime = 0, found = 0;
  (void)cudaDriverGetVersion(&driver);
  (void)cudaRuntimeGetVersion(&runtime);
  const cudaError_t listed = cudaGetDeviceCount(&found);
  if (listed == cudaErrorInsufficientDriver) {
    return fill_error(error, NM_GPU_DRIVER_TOO_OLD, "cudaGetDeviceCount",
                      "the NVIDIA driver supports CUDA " + version_text(driver) + ", this build needs " +
                          version_text(runtime) + ": update the driver",
                      listed);
  }
  if (listed != cudaSuccess && listed != cudaErrorNoDevice) {
    return fill_error(error, NM_GPU_DEVICE_ERROR, "cudaGetDeviceCount",
                      std::string("the devices cannot be listed: ") + cudaGetErrorString(listed), listed);
  }
  std::string refused;
  for (int i = 0; i < found; ++i) {
    NmGpuDevice device;
    if (const cudaError_t failed = describe_device(i, driver, &device); failed != cudaSuccess) {
      refused += " device " + std::to_string(i) + ": " + cudaGetErrorString(failed) + ";";
    } else if (device.compute_capability < kLeastCapability) {
      refused += std::string(" ") + device.name + " has compute capability " +
                 std::to_string(device.compute_capability / 10) + "." +
                 std::to_string(device.compute_capability % 10) + ";";
    } else if ((*count)++ < capacity) {
      devices[*count - 1] = device;
    }
  }
  if (*count > 0) return NM_GPU_OK;
  return fill_error(error, NM_GPU_NO_DEVICE, "probe",
                    "no GPU of compute capability 7.5 or newer was found" +
                        (refused.empty() ? std::string(": check `nvidia-smi` and CUDA_VISIBLE_DEVICES")
                                         : ":" + refused.substr(0, refused.size() - 1)));
}

}  // namespace nearmoe::gpu
