// Streams and events of the emulated runtime API.
#include "stream_queue.h"

// NOLINTBEGIN: the names are CUDA's.
using gpu_host::Hold;
using gpu_host::Operation;

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
  const cudaError_t error = gpu_host::run_until_empty(stream);
  gpu_host::streams.erase(stream);
  delete stream;
  return error;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  GPU_ENTER_UNCAPTURED();
  if (!stream) return gpu_host::drain_all();
  if (!gpu_host::streams.count(stream)) return cudaErrorInvalidResourceHandle;
  return gpu_host::run_until_empty(stream);
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
  GPU_ENTER_UNCAPTURED();
  if (event->done < event->recorded) gpu_host::run_one();  // time passes
  if (gpu_host::sticky != cudaSuccess) return gpu_host::sticky;
  return event->done < event->recorded ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  GPU_ENTER_UNCAPTURED();
  return gpu_host::run_until_done(event);
}

cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t end) {
  GPU_ENTER();
  if (start->recorded == 0 || end->recorded == 0) return cudaErrorInvalidResourceHandle;
  if (start->done < start->recorded || end->done < end->recorded) return cudaErrorNotReady;
  *ms = static_cast<float>((end->seconds - start->seconds) * 1e3);
  return cudaSuccess;
}
// NOLINTEND
