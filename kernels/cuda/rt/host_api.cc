// Streams, events, copies, graphs and faults of the emulated runtime API.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cpu_host_api.h"
#include "host_memory.h"

namespace gpu_host {
namespace {

struct Operation {
  enum class Kind : uint8_t { Copy, Fill, Kernel, HostFunction, Record, Wait };
  Kind kind;
  const char* name;
  std::function<cudaError_t()> run;
  cudaEvent_t event = nullptr;
  uint64_t generation = 0;  // of the event: recorded by, or waited for
};

}  // namespace
}  // namespace gpu_host

struct CUgraph_st {
  std::vector<gpu_host::Operation> operations;
};
struct CUgraphExec_st {
  std::vector<gpu_host::Operation> operations;
};
struct CUstream_st {
  std::deque<gpu_host::Operation> queue;
  std::unique_ptr<CUgraph_st> capture;
};
struct CUevent_st {
  uint64_t recorded = 0, done = 0;  // generations
  double seconds = 0;
};

namespace gpu_host {

DeviceModel device_model;

namespace {

// Guards everything below and the memory maps. Recursive: operations run while it is held.
std::recursive_mutex lock;
using Hold = std::lock_guard<std::recursive_mutex>;
std::set<cudaStream_t> streams;
cudaError_t sticky = cudaSuccess;      // what every call answers once the device has failed
cudaError_t last_error = cudaSuccess;  // of a refused launch; taken by cudaGetLastError
std::string kernel_error;
uint64_t enqueued;
uint64_t shuffle_state = 1;

struct PendingFault {
  Fault fault = Fault::None;
  uint64_t countdown = 0;
};

PendingFault fault_of_environment() {
  const char* text = std::getenv("NEARMOE_GPU_FAULT");
  int kind = 0;
  unsigned long long nth = 0;
  if (!text || std::sscanf(text, "%d:%llu", &kind, &nth) != 2) return {};
  return {static_cast<Fault>(kind), nth};
}
PendingFault pending_fault = fault_of_environment();

/// True at the n-th operation that `fault` is about.
bool fault_strikes(Fault fault) {
  if (pending_fault.fault != fault || pending_fault.countdown == 0) return false;
  return --pending_fault.countdown == 0;
}

cudaError_t fail_device(cudaError_t error) {
  if (sticky == cudaSuccess) sticky = error;
  return error;
}

/// Every call begins with this: the device may be lost, now or before.
cudaError_t enter() {
  if (sticky != cudaSuccess) return sticky;
  if (fault_strikes(Fault::DeviceLost)) return fail_device(cudaErrorDevicesUnavailable);
  return cudaSuccess;
}

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

bool runnable(const Operation& operation) {
  return operation.kind != Operation::Kind::Wait || operation.event->done >= operation.generation;
}

void run_operation(const Operation& operation) {
  if (operation.kind == Operation::Kind::Record) {
    operation.event->done = operation.generation;
    operation.event->seconds = now_seconds();
    return;
  }
  if (!operation.run || sticky != cudaSuccess) return;
  const bool copy = operation.kind == Operation::Kind::Copy;
  const bool kernel = operation.kind == Operation::Kind::Kernel;
  if (fault_strikes(Fault::DeviceLost)) {
    fail_device(cudaErrorDevicesUnavailable);
  } else if (copy && fault_strikes(Fault::Copy)) {
    fail_device(cudaErrorLaunchFailure);
  } else if (kernel && fault_strikes(Fault::Kernel)) {
    kernel_error = std::string("kernel ") + operation.name + ": injected fault";
    fail_device(cudaErrorIllegalAddress);
  } else {
    const DeviceMemoryAccess access;
    if (const cudaError_t error = operation.run(); error != cudaSuccess) fail_device(error);
  }
}

/// Runs one operation of a random stream that can go on; false where none can.
bool run_one() {
  std::vector<cudaStream_t> ready;
  for (const cudaStream_t stream : streams) {
    if (!stream->queue.empty() && runnable(stream->queue.front())) ready.push_back(stream);
  }
  if (ready.empty()) return false;
  shuffle_state = shuffle_state * 6364136223846793005u + 1442695040888963407u + options.seed;
  const cudaStream_t stream = ready[(shuffle_state >> 33) % ready.size()];
  const Operation operation = std::move(stream->queue.front());
  stream->queue.pop_front();
  run_operation(operation);
  return true;
}

/// Runs operations until `done` holds.
template <class F>
cudaError_t run_until(F done) {
  while (!done()) {
    if (run_one()) continue;
    std::fprintf(stderr, "gpu emulation: streams wait for events that nobody will record\n");
    return fail_device(cudaErrorLaunchFailure);
  }
  return sticky;
}

cudaError_t drain_all() {
  return run_until([] {
    for (const cudaStream_t stream : streams) {
      if (!stream->queue.empty()) return false;
    }
    return true;
  });
}

cudaError_t enqueue(cudaStream_t stream, Operation operation) {
  if (const cudaError_t error = enter(); error != cudaSuccess) return error;
  ++enqueued;
  if (!stream) {  // the legacy stream: in order with everything
    if (const cudaError_t error = drain_all(); error != cudaSuccess) return error;
    run_operation(operation);
    return sticky;
  }
  if (!streams.count(stream)) return cudaErrorInvalidResourceHandle;
  if (stream->capture) {
    const bool other = operation.kind == Operation::Kind::Record || operation.kind == Operation::Kind::Wait;
    if (other) return cudaErrorStreamCaptureUnsupported;
    stream->capture->operations.push_back(std::move(operation));
  } else {
    stream->queue.push_back(std::move(operation));
  }
  return cudaSuccess;
}

bool capturing() {
  for (const cudaStream_t stream : streams) {
    if (stream->capture) return true;
  }
  return false;
}

}  // namespace

void inject_fault(Fault fault, uint64_t nth) {
  const Hold hold(lock);
  pending_fault = {fault, nth};
}

const char* last_kernel_error() { return kernel_error.c_str(); }
uint64_t operations_enqueued() { return enqueued; }

cudaError_t enqueue_kernel(const char* name, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                           std::function<void()> body) {
  const Hold hold(lock);
  if (sticky == cudaSuccess && fault_strikes(Fault::Launch))
    return last_error = cudaErrorLaunchOutOfResources;
  auto run = [=, body = std::move(body)] {
    const std::string text = run_kernel(name, grid, block, shared_bytes, device_model.shared_limit, body);
    if (text.empty()) return cudaSuccess;
    kernel_error = text;
    std::fprintf(stderr, "gpu emulation: %s\n", text.c_str());
    return cudaErrorLaunchFailure;
  };
  return enqueue(stream, {Operation::Kind::Kernel, name, std::move(run)});
}

}  // namespace gpu_host

// NOLINTBEGIN: the names are CUDA's.
using gpu_host::Hold;
using gpu_host::Operation;
using gpu_host::Where;

#define GPU_ENTER()                \
  const Hold hold(gpu_host::lock); \
  if (const cudaError_t error_ = gpu_host::enter(); error_ != cudaSuccess) return error_

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
  properties->major = 8;
  properties->minor = 0;
  properties->multiProcessorCount = 4;
  properties->integrated = gpu_host::device_model.unified_memory;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  GPU_ENTER();
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
      *value = 8;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
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
  GPU_ENTER();
  return gpu_host::drain_all();
}

cudaError_t cudaDeviceReset() {
  const Hold hold(gpu_host::lock);
  for (const cudaStream_t stream : gpu_host::streams) stream->queue.clear();
  gpu_host::sticky = gpu_host::last_error = cudaSuccess;
  gpu_host::kernel_error.clear();
  gpu_host::pending_fault = {};
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
    default:
      return "unknown error";
  }
}

cudaError_t gpu_host_malloc(void** p, size_t bytes) {
  GPU_ENTER();
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
  GPU_ENTER();
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
  GPU_ENTER();
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
  if (source == Where::Pageable && stream && stream->capture) return cudaErrorStreamCaptureUnsupported;
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

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) {
  GPU_ENTER();
  *stream = new CUstream_st;
  gpu_host::streams.insert(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Hold hold(gpu_host::lock);
  if (!gpu_host::streams.count(stream)) return cudaErrorInvalidResourceHandle;
  const cudaError_t error = gpu_host::run_until([=] { return stream->queue.empty(); });
  gpu_host::streams.erase(stream);
  delete stream;
  return error;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  GPU_ENTER();
  if (!stream) return gpu_host::drain_all();
  if (!gpu_host::streams.count(stream)) return cudaErrorInvalidResourceHandle;
  if (stream->capture) return cudaErrorStreamCaptureUnsupported;
  return gpu_host::run_until([=] { return stream->queue.empty(); });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const Hold hold(gpu_host::lock);
  return gpu_host::enqueue(stream, {Operation::Kind::Wait, "wait", {}, event, event->recorded});
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  GPU_ENTER();
  *event = new CUevent_st;
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const Hold hold(gpu_host::lock);
  (void)gpu_host::drain_all();  // queues may refer to it
  delete event;
  return gpu_host::sticky;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const Hold hold(gpu_host::lock);
  const uint64_t generation = event->recorded + 1;
  const cudaError_t error =
      gpu_host::enqueue(stream, {Operation::Kind::Record, "record", {}, event, generation});
  if (error == cudaSuccess) event->recorded = generation;
  return error;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  GPU_ENTER();
  if (gpu_host::capturing()) return cudaErrorStreamCaptureUnsupported;
  if (event->done < event->recorded) gpu_host::run_one();  // time passes
  if (gpu_host::sticky != cudaSuccess) return gpu_host::sticky;
  return event->done < event->recorded ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  GPU_ENTER();
  return gpu_host::run_until([=] { return event->done >= event->recorded; });
}

cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t end) {
  GPU_ENTER();
  if (start->recorded == 0 || end->recorded == 0) return cudaErrorInvalidResourceHandle;
  if (start->done < start->recorded || end->done < end->recorded) return cudaErrorNotReady;
  *ms = static_cast<float>((end->seconds - start->seconds) * 1e3);
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  GPU_ENTER();
  if (!gpu_host::streams.count(stream) || stream->capture) return cudaErrorInvalidResourceHandle;
  stream->capture = std::make_unique<CUgraph_st>();
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const Hold hold(gpu_host::lock);
  if (!gpu_host::streams.count(stream) || !stream->capture) return cudaErrorInvalidResourceHandle;
  *graph = stream->capture.release();
  return gpu_host::sticky;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  GPU_ENTER();
  *exec = new CUgraphExec_st{graph->operations};
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  const Hold hold(gpu_host::lock);
  if (gpu_host::sticky == cudaSuccess && gpu_host::fault_strikes(gpu_host::Fault::Launch)) {
    return gpu_host::last_error = cudaErrorLaunchOutOfResources;
  }
  for (const Operation& operation : exec->operations) {
    if (const cudaError_t error = gpu_host::enqueue(stream, operation); error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
// NOLINTEND
