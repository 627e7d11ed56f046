// When work ran on the device, from pairs of CUDA events, on the host's steady clock. Off unless asked for:
// an event pair costs about a microsecond. Used by the context and its slots.
#pragma once

#include <deque>
#include <vector>

#include "failure.h"

namespace nearmoe::gpu {

class Timeline {
 public:
  Timeline(Failure& failure, bool on) : failure_(failure), on_(on) {}
  ~Timeline();
  Timeline(const Timeline&) = delete;
  Timeline& operator=(const Timeline&) = delete;

  /// Ties the device's clock to the host's; once, before anything else.
  NmGpuCode start(cudaStream_t stream);
  /// Opens and closes a span around what is submitted to `stream` in between.
  NmGpuCode begin(uint32_t lane, uint32_t kind, int32_t layer, cudaStream_t stream);
  NmGpuCode end(cudaStream_t stream, uint64_t bytes = 0);
  /// Moves up to `capacity` finished spans out, oldest first.
  NmGpuCode take(NmGpuEvent* events, uint32_t capacity, uint32_t* count);

 private:
  struct Span {
    NmGpuEvent event;
    cudaEvent_t start, end;
  };
  NmGpuCode new_event(cudaEvent_t* event);

  Failure& failure_;
  bool on_;
  double zero_us_ = 0;
  cudaEvent_t zero_ = nullptr;
  Span open_{};
  std::vector<cudaEvent_t> free_;
  std::deque<Span> running_;
};

}  // namespace nearmoe::gpu
