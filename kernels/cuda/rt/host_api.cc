// Devices, errors, memory and copies of the emulated runtime API. Streams and events are in host_streams.cc,
// graphs in host_graphs.cc.
#include <cstdlib>
#include <cstring>

#include <memory>
#include <utility>
#include <vector>

#include "host_memory.h"
#include "stream_queue.h"

// NOLINTBEGIN: the names are CUDA's.
using gpu_host::Hold;
using gpu_host::Operation;
using gpu_host::Where;

cudaError_t cudaGetDeviceCount(int* count) {
  const Hold hold(gpu_host::lock);
  *count = gpu_host::device_model.present ? 1 : 0;
  return *count ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaSetDevice(int device) {
  GPU_ENTER();
  return device == 0 ? cudaSuccess : cudaErrorInvalidDevice;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  GPU_ENTER();
  if (device != 0) return cudaErrorInvalidDevice;
  *properties = {};
  std::strcpy(properties->name, "emulated GPU");
  properties->totalGlobalMem = gpu_host::device_model.total_bytes;
  properties->major = gpu_host::device_model.compute_capability / 10;
  properties->minor = gpu_host::device_model.compute_capability % 10;
  properties->multiProcessorCount = 4;
  properties->integrated = gpu_host::device_model.unified_memory;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  GPU_ENTER();
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
      *value = gpu_host::device_model.compute_capability / 10;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = gpu_host::device_model.compute_capability % 10;
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = 4;
      break;
    case cudaDevAttrIntegrated:
      // The variable lets tests of a loaded library choose.
      *value = gpu_host::device_model.unified_memory || std::getenv("NEARMOE_GPU_UNIFIED") != nullptr;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(gpu_host::device_model.shared_limit);
      break;
    default:
      *value = 0;
      break;
  }
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  GPU_ENTER();
  *total_bytes = gpu_host::device_model.total_bytes;
  *free_bytes = *total_bytes - gpu_host::device_bytes_used();
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  GPU_ENTER_UNCAPTURED();
  return gpu_host::drain_all();
}

cudaError_t cudaDeviceReset() {
  const Hold hold(gpu_host::lock);
  gpu_host::reset_device();
  return cudaSuccess;
}

cudaError_t cudaGetLastError() {
  const Hold hold(gpu_host::lock);
  if (gpu_host::sticky != cudaSuccess) return gpu_host::sticky;
  return std::exchange(gpu_host::last_error, cudaSuccess);
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorInvalidMemcpyDirection:
      return "invalid copy direction";
    case cudaErrorDevicesUnavailable:
      return "device is busy or unavailable";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorInvalidResourceHandle:
      return "invalid resource handle";
    case cudaErrorNotReady:
      return "device not ready";
    case cudaErrorIllegalAddress:
      return "an illegal memory access was encountered";
    case cudaErrorLaunchOutOfResources:
      return "too many resources requested for launch";
    case cudaErrorLaunchFailure:
      return "unspecified launch failure";
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
      return "operation failed due to a previous error during capture";
    case cudaErrorNotSupported:
      return "operation not supported";
    default:
      return "unknown error";
  }
}

cudaError_t gpu_host_malloc(void** p, size_t bytes) {
  GPU_ENTER_UNCAPTURED();
  *p = gpu_host::fault_strikes(gpu_host::Fault::Allocation) ? nullptr : gpu_host::allocate_device(bytes);
  return *p ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFree(void* p) {
  const Hold hold(gpu_host::lock);
  if (!p) return gpu_host::sticky;
  (void)gpu_host::drain_all();
  if (!gpu_host::free_device(p)) return cudaErrorInvalidValue;
  return gpu_host::sticky;
}

cudaError_t gpu_host_malloc_pinned(void** p, size_t bytes, unsigned) {
  GPU_ENTER_UNCAPTURED();
  *p =
      gpu_host::fault_strikes(gpu_host::Fault::PinnedAllocation) ? nullptr : gpu_host::allocate_pinned(bytes);
  return *p ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFreeHost(void* p) {
  const Hold hold(gpu_host::lock);
  if (!p) return gpu_host::sticky;
  (void)gpu_host::drain_all();
  if (!gpu_host::free_pinned(p)) return cudaErrorInvalidValue;
  return gpu_host::sticky;
}

cudaError_t cudaHostRegister(void* p, size_t bytes, unsigned) {
  GPU_ENTER_UNCAPTURED();
  if (gpu_host::fault_strikes(gpu_host::Fault::PinnedAllocation)) return cudaErrorMemoryAllocation;
  return gpu_host::register_pinned(p, bytes) ? cudaSuccess : cudaErrorHostMemoryAlreadyRegistered;
}

cudaError_t cudaHostUnregister(void* p) {
  const Hold hold(gpu_host::lock);
  (void)gpu_host::drain_all();
  return gpu_host::unregister_pinned(p) ? gpu_host::sticky : cudaErrorHostMemoryNotRegistered;
}

cudaError_t gpu_host_device_pointer(void** device, void* host) {
  GPU_ENTER();
  if (gpu_host::where_is(host, 1) != Where::Pinned) return cudaErrorInvalidValue;
  *device = host;
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  GPU_ENTER();
  if (bytes == 0) return cudaSuccess;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const Where source = gpu_host::where_is(from, bytes), target = gpu_host::where_is(to, bytes);
  if (from_device != (source == Where::Device) || to_device != (target == Where::Device)) {
    return cudaErrorInvalidMemcpyDirection;
  }
  if ((source == Where::Pageable || target == Where::Pageable) && stream && stream->capture) {
    stream->capture->valid = false;
    return cudaErrorStreamCaptureUnsupported;
  }
  std::function<cudaError_t()> run;
  if (source == Where::Pageable) {  // staged before the call returns, as the driver does
    auto staged = std::make_shared<std::vector<char>>(static_cast<const char*>(from),
                                                      static_cast<const char*>(from) + bytes);
    run = [=] { return std::memcpy(to, staged->data(), bytes), cudaSuccess; };
  } else {
    run = [=] { return std::memcpy(to, from, bytes), cudaSuccess; };
  }
  const cudaError_t error = gpu_host::enqueue(stream, {Operation::Kind::Copy, "copy", std::move(run)});
  if (error != cudaSuccess || target != Where::Pageable) return error;
  return cudaStreamSynchronize(stream);  // into pageable memory the call waits
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return cudaMemcpyAsync(to, from, bytes, kind, nullptr);
}

cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t stream) {
  GPU_ENTER();
  if (bytes == 0) return cudaSuccess;
  if (gpu_host::where_is(p, bytes) != Where::Device) return cudaErrorInvalidValue;
  return gpu_host::enqueue(
      stream, {Operation::Kind::Fill, "fill", [=] { return std::memset(p, value, bytes), cudaSuccess; }});
}

cudaError_t cudaMemset(void* p, int value, size_t bytes) { return cudaMemsetAsync(p, value, bytes, nullptr); }

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* argument) {
  const Hold hold(gpu_host::lock);
  return gpu_host::enqueue(stream, {Operation::Kind::HostFunction, "host function",
                                    [=] { return function(argument), cudaSuccess; }});
}
// NOLINTEND
