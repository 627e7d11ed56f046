#include "stream_queue.h"

#include <cstdio>
#include <cstdlib>

#include <chrono>
#include <utility>

#include "host_memory.h"

namespace gpu_host {

namespace {

/// The variable lets tests of a loaded library choose.
DeviceModel model_of_environment() {
  DeviceModel model;
  if (const char* text = std::getenv("NEARMOE_GPU_COMPUTE_CAPABILITY"))
    model.compute_capability = std::atoi(text);
  return model;
}

}  // namespace

DeviceModel device_model = model_of_environment();
std::recursive_mutex lock;
std::set<cudaStream_t> streams;
cudaError_t sticky = cudaSuccess;
cudaError_t last_error = cudaSuccess;

namespace {

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

/// What was captured so far cannot become a graph any more.
bool invalidate_captures() {
  bool any = false;
  for (const cudaStream_t stream : streams) {
    if (!stream->capture || stream->capture->thread != std::this_thread::get_id()) continue;
    stream->capture->valid = false;
    any = true;
  }
  return any;
}

}  // namespace

bool fault_strikes(Fault fault) {
  if (pending_fault.fault != fault || pending_fault.countdown == 0) return false;
  return --pending_fault.countdown == 0;
}

cudaError_t fail_device(cudaError_t error) {
  if (sticky == cudaSuccess) sticky = error;
  return error;
}

cudaError_t enter() {
  if (sticky != cudaSuccess) return sticky;
  if (fault_strikes(Fault::DeviceLost)) return fail_device(cudaErrorDevicesUnavailable);
  return cudaSuccess;
}

cudaError_t enter_uncaptured() {
  if (invalidate_captures()) return cudaErrorStreamCaptureUnsupported;
  return enter();
}

void reset_device() {
  for (const cudaStream_t stream : streams) {
    stream->queue.clear();
    stream->capture.reset();
  }
  sticky = last_error = cudaSuccess;
  kernel_error.clear();
  pending_fault = {};
}

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

cudaError_t run_until_empty(cudaStream_t stream) {
  return run_until([=] { return stream->queue.empty(); });
}

cudaError_t run_until_done(cudaEvent_t event) {
  return run_until([=] { return event->done >= event->recorded; });
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
    if (const cudaError_t error = enter_uncaptured(); error != cudaSuccess) return error;
    if (const cudaError_t error = drain_all(); error != cudaSuccess) return error;
    run_operation(operation);
    return sticky;
  }
  if (!streams.count(stream)) return cudaErrorInvalidResourceHandle;
  if (stream->capture) {
    const bool other = operation.kind == Operation::Kind::Record || operation.kind == Operation::Kind::Wait;
    if (other) stream->capture->valid = false;
    if (other) return cudaErrorStreamCaptureUnsupported;
    stream->capture->operations.push_back(std::move(operation));
  } else {
    stream->queue.push_back(std::move(operation));
  }
  return cudaSuccess;
}

void inject_fault(Fault fault, uint64_t nth) {
  const Hold hold(lock);
  pending_fault = {fault, nth};
}

bool fault_struck() {
  const Hold hold(lock);
  return pending_fault.fault != Fault::None && pending_fault.countdown == 0;
}

const char* last_kernel_error() { return kernel_error.c_str(); }
uint64_t operations_enqueued() { return enqueued; }

cudaError_t enqueue_kernel(const char* name, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                           std::function<void()> body) {
  const Hold hold(lock);
  if (sticky == cudaSuccess && fault_strikes(Fault::Launch)) {
    if (stream && stream->capture) stream->capture->valid = false;
    return last_error = cudaErrorLaunchOutOfResources;
  }
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
