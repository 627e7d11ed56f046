// Stream capture and graphs of the emulated runtime API. A graph is the list of operations of one stream,
// which is all that the backend captures; launching it enqueues them again with the arguments that they were
// captured with.
#include <utility>

#include "stream_queue.h"

// NOLINTBEGIN: the names are CUDA's.
using gpu_host::Fault;
using gpu_host::fault_strikes;
using gpu_host::Hold;
using gpu_host::Operation;

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  GPU_ENTER();
  if (!gpu_host::streams.count(stream) || stream->capture) return cudaErrorInvalidResourceHandle;
  if (fault_strikes(Fault::Graph)) return cudaErrorNotSupported;
  stream->capture = std::make_unique<CUgraph_st>();
  stream->capture->thread = std::this_thread::get_id();
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const Hold hold(gpu_host::lock);
  *graph = nullptr;
  if (!gpu_host::streams.count(stream) || !stream->capture) return cudaErrorInvalidResourceHandle;
  const std::unique_ptr<CUgraph_st> captured = std::exchange(stream->capture, nullptr);
  if (gpu_host::sticky != cudaSuccess) return gpu_host::sticky;
  if (!captured->valid || fault_strikes(Fault::Graph)) return cudaErrorStreamCaptureInvalidated;
  *graph = new CUgraph_st(std::move(*captured));
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  GPU_ENTER();
  *exec = nullptr;
  if (fault_strikes(Fault::Graph)) return cudaErrorMemoryAllocation;
  *exec = new CUgraphExec_st{graph->operations};
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  GPU_ENTER();
  if (fault_strikes(Fault::Launch) || fault_strikes(Fault::Graph))
    return gpu_host::last_error = cudaErrorLaunchOutOfResources;
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
