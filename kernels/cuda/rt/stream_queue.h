// The emulated device's streams: queues of operations that run when something waits for them, in a random
// mixture that respects events; what fails on request; and the device's sticky error. Shared by the files of
// the emulated runtime API; nobody else includes it.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "cpu_host_api.h"

namespace gpu_host {

struct Operation {
  enum class Kind : uint8_t { Copy, Fill, Kernel, HostFunction, Record, Wait };
  Kind kind;
  const char* name;
  std::function<cudaError_t()> run;
  cudaEvent_t event = nullptr;
  uint64_t generation = 0;  // of the event: recorded by, or waited for
};

}  // namespace gpu_host

struct CUgraph_st {
  std::vector<gpu_host::Operation> operations;
  std::thread::id thread;  ///< that captures it
  bool valid = true;       ///< nothing failed and nothing forbidden was called meanwhile
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

// Guards everything below and the memory maps. Recursive: operations run while it is held.
extern std::recursive_mutex lock;
using Hold = std::lock_guard<std::recursive_mutex>;
extern std::set<cudaStream_t> streams;
extern cudaError_t sticky;      ///< what every call answers once the device has failed
extern cudaError_t last_error;  ///< of a refused launch; taken by cudaGetLastError

/// True at the n-th operation that `fault` is about.
bool fault_strikes(Fault fault);
cudaError_t fail_device(cudaError_t error);
/// Every call begins with this: the device may be lost, now or before.
cudaError_t enter();
/// The same for calls that a thread must not make while it captures a stream
/// (cudaStreamCaptureModeThreadLocal): they end the capture.
cudaError_t enter_uncaptured();
/// Makes the device whole again: queues, errors and pending faults are gone.
void reset_device();

/// Runs one operation of a random stream that can go on; false where none can.
bool run_one();
/// Runs operations until the stream's queue is empty, or the event has happened.
cudaError_t run_until_empty(cudaStream_t stream);
cudaError_t run_until_done(cudaEvent_t event);
cudaError_t drain_all();
cudaError_t enqueue(cudaStream_t stream, Operation operation);

}  // namespace gpu_host

// For the functions of the API.
#define GPU_ENTER()                \
  const Hold hold(gpu_host::lock); \
  if (const cudaError_t error_ = gpu_host::enter(); error_ != cudaSuccess) return error_
#define GPU_ENTER_UNCAPTURED()     \
  const Hold hold(gpu_host::lock); \
  if (const cudaError_t error_ = gpu_host::enter_uncaptured(); error_ != cudaSuccess) return error_
