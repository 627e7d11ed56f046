#include "failure.h"

#include <cstdio>

namespace nearmoe::gpu {

NmGpuCode fill_error(NmGpuError* error, NmGpuCode code, const char* call, const std::string& message,
                     cudaError_t cuda_error, const char* kernel) {
  if (!error) return code;
  *error = {};
  error->code = code;
  error->cuda_error = static_cast<int32_t>(cuda_error);
  std::snprintf(error->call, sizeof error->call, "%s", call);
  std::snprintf(error->kernel, sizeof error->kernel, "%s", kernel);
  std::snprintf(error->message, sizeof error->message, "%s", message.c_str());
  return code;
}

Failure::Failure() { fill_error(&record_, NM_GPU_OK, "", ""); }

NmGpuCode Failure::fail(NmGpuCode code, const char* call, const std::string& message) {
  if (sticky()) return NM_GPU_DEVICE_ERROR;
  return fill_error(&record_, code, call, message);
}

NmGpuCode Failure::check(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return NM_GPU_OK;
  if (sticky()) return NM_GPU_DEVICE_ERROR;
  const bool memory = error == cudaErrorMemoryAllocation;
  if (memory) (void)cudaGetLastError();  // not an error of the device: forget it
  const char* kernel = memory ? "" : last_kernel_;
  std::string message = std::string(call) + ": " + cudaGetErrorString(error) + " (" +
                        std::to_string(static_cast<int>(error)) + ")";
  if (*kernel) message += std::string("; last kernel: ") + kernel;
  return fill_error(&record_, memory ? NM_GPU_OUT_OF_MEMORY : NM_GPU_DEVICE_ERROR, call, message, error,
                    kernel);
}

NmGpuCode Failure::launched(cudaError_t error, const char* kernel) {
  last_kernel_ = kernel;
  return check(error, "launch");
}

}  // namespace nearmoe::gpu
