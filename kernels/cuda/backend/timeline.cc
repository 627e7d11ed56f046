#include "timeline.h"

#include "native/runtime/clock.h"

namespace nearmoe::gpu {

Timeline::~Timeline() {
  for (Span& span : running_) {
    (void)cudaEventDestroy(span.start);
    (void)cudaEventDestroy(span.end);
  }
  for (cudaEvent_t event : free_) (void)cudaEventDestroy(event);
  if (open_.start) (void)cudaEventDestroy(open_.start);
  if (zero_) (void)cudaEventDestroy(zero_);
}

NmGpuCode Timeline::start(cudaStream_t stream) {
  if (!on_) return NM_GPU_OK;
  GPU_TRY(failure_.check(cudaEventCreateWithFlags(&zero_, cudaEventDefault), "cudaEventCreate"));
  GPU_TRY(failure_.check(cudaEventRecord(zero_, stream), "cudaEventRecord"));
  GPU_TRY(failure_.check(cudaEventSynchronize(zero_), "cudaEventSynchronize"));
  zero_us_ = now_us();
  return NM_GPU_OK;
}

NmGpuCode Timeline::new_event(cudaEvent_t* event) {
  if (free_.empty())
    return failure_.check(cudaEventCreateWithFlags(event, cudaEventDefault), "cudaEventCreate");
  *event = free_.back();
  free_.pop_back();
  return NM_GPU_OK;
}

NmGpuCode Timeline::begin(uint32_t lane, uint32_t kind, int32_t layer, cudaStream_t stream) {
  if (!on_) return NM_GPU_OK;
  // A span that a failure left open has nothing to say.
  if (open_.start) free_.push_back(open_.start);
  open_ = {{lane, kind, layer, 0, 0, 0}, nullptr, nullptr};
  GPU_TRY(new_event(&open_.start));
  return failure_.check(cudaEventRecord(open_.start, stream), "cudaEventRecord");
}

NmGpuCode Timeline::end(cudaStream_t stream, uint64_t bytes) {
  if (!on_) return NM_GPU_OK;
  GPU_TRY(new_event(&open_.end));
  Span span = open_;
  open_ = {};
  span.event.bytes = bytes;
  running_.push_back(span);
  return failure_.check(cudaEventRecord(span.end, stream), "cudaEventRecord");
}

NmGpuCode Timeline::take(NmGpuEvent* events, uint32_t capacity, uint32_t* count) {
  *count = 0;
  for (auto it = running_.begin(); it != running_.end() && *count < capacity;) {
    const cudaError_t state = cudaEventQuery(it->end);
    if (state == cudaErrorNotReady) {
      ++it;
      continue;
    }
    GPU_TRY(failure_.check(state, "cudaEventQuery"));
    float start_ms = 0, length_ms = 0;
    GPU_TRY(failure_.check(cudaEventElapsedTime(&start_ms, zero_, it->start), "cudaEventElapsedTime"));
    GPU_TRY(failure_.check(cudaEventElapsedTime(&length_ms, it->start, it->end), "cudaEventElapsedTime"));
    NmGpuEvent& event = events[(*count)++] = it->event;
    event.start_us = zero_us_ + static_cast<double>(start_ms) * 1e3;
    event.end_us = event.start_us + static_cast<double>(length_ms) * 1e3;
    free_.push_back(it->start);
    free_.push_back(it->end);
    it = running_.erase(it);
  }
  return NM_GPU_OK;
}

}  // namespace nearmoe::gpu
