// How the backend's parts report failures: one record per context, filled where a call fails, with the CUDA
// function and the kernel by name. Device errors are sticky, since CUDA's are: nothing on the device can be
// trusted after one.
#pragma once

#include <string>

#include "../rt/gpu_rt.h"
#include "native/runtime/gpu_abi.h"

namespace nearmoe::gpu {

class Failure {
 public:
  Failure();
  /// Records a failure and returns its code. `call` is the function of the table that found it.
  NmGpuCode fail(NmGpuCode code, const char* call, const std::string& message);
  /// Ok for cudaSuccess, else records: out of memory where CUDA says so, a sticky device error otherwise.
  NmGpuCode check(cudaError_t error, const char* call);
  /// The same for a launch; remembers the kernel, to be named if it fails later.
  NmGpuCode launched(cudaError_t error, const char* kernel);
  /// Remembers work that was submitted without a launch of its own (a graph), to be named like a kernel.
  void submitted(const char* what) { last_kernel_ = what; }

  bool sticky() const { return record_.code == NM_GPU_DEVICE_ERROR; }
  const NmGpuError& record() const { return record_; }

 private:
  NmGpuError record_;
  const char* last_kernel_ = "";
};

/// Fills the caller's record (which may be null).
NmGpuCode fill_error(NmGpuError* error, NmGpuCode code, const char* call, const std::string& message,
                     cudaError_t cuda_error = cudaSuccess, const char* kernel = "");

/// Leaves the enclosing function, which returns an NmGpuCode, where `expression` is not NM_GPU_OK.
#define GPU_TRY(expression)                                                     \
  do {                                                                          \
    if (const NmGpuCode code_ = (expression); code_ != NM_GPU_OK) return code_; \
  } while (false)

}  // namespace nearmoe::gpu
