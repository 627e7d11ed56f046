// VRAM slots for experts and the transfers into them. Which expert is where is decided by the engine's cache;
// here are the memory, the copy stream, the staging ring for memory that is not registered, and the events
// that keep a slot from being overwritten while a kernel reads it or read while a copy fills it. With unified
// memory a transfer only hands over pointers to the units' own slices.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "model.h"
#include "timeline.h"

namespace nearmoe::gpu {

class Slots {
 public:
  Slots(Failure& failure, Memory& memory, const Model& model, Timeline& timeline);
  ~Slots();
  Slots(const Slots&) = delete;
  Slots& operator=(const Slots&) = delete;

  /// Streams and the staging ring.
  NmGpuCode start(bool unified_memory, uint64_t staging_bytes);
  NmGpuCode allocate(uint32_t wanted, uint64_t slot_bytes, uint32_t* got);
  NmGpuCode register_host(const void* data, uint64_t bytes);
  NmGpuCode transfer(uint32_t slot, const NmGpuExpert& expert);
  NmGpuCode completed(int32_t* slots, uint32_t capacity, uint32_t* count);

  /// Checks that the slot holds (or is being filled with) the expert, and makes `stream` wait for it.
  NmGpuCode wait_for(uint32_t slot, uint32_t layer, uint32_t expert, cudaStream_t stream);
  /// The kernels submitted to `stream` so far read these slots, which hold experts of the layer.
  NmGpuCode used(uint32_t layer, const std::vector<uint32_t>& slots, cudaStream_t stream);
  /// Waits for the copy stream.
  NmGpuCode drain();

  const cuda::ExpertView* views() const { return views_; }
  uint32_t num_slots() const { return static_cast<uint32_t>(slots_.size()); }
  /// The expert that a slot holds or is being filled with; 0 where it has none.
  uint32_t expert_of(int32_t slot) const;

 private:
  struct Slot {
    int64_t layer = -1, expert = -1;
    cudaEvent_t ready = nullptr;
    cudaEvent_t last_use = nullptr;  // of a layer; not owned
    bool reported = true;
  };
  struct Chunk {
    uint8_t* data = nullptr;
    cudaEvent_t staged = nullptr, free = nullptr;
  };
  struct StageJob;

  NmGpuCode check(const NmGpuExpert& expert, uint64_t* bytes) const;
  NmGpuCode new_event(cudaEvent_t* event);
  NmGpuCode copy(uint8_t* to, const void* from, size_t bytes);
  NmGpuCode copy_staged(uint8_t* to, const void* from, size_t bytes);
  bool is_registered(const void* data, size_t bytes, const uint8_t** device) const;
  NmGpuCode place(const NmGpuMatrix& matrix, uint8_t* target, const uint8_t** where);

  Failure& failure_;
  Memory& memory_;
  const Model& model_;
  Timeline& timeline_;
  bool unified_ = false;
  cudaStream_t copy_stream_ = nullptr, staging_stream_ = nullptr;
  std::vector<Slot> slots_;
  std::vector<cudaEvent_t> used_;  // per layer: behind the last kernels that read its experts
  uint8_t* base_ = nullptr;
  uint64_t slot_bytes_ = 0;
  cuda::ExpertView* views_ = nullptr;       // device
  cuda::ExpertView* host_views_ = nullptr;  // pinned, one per slot
  std::vector<Chunk> ring_;
  size_t chunk_bytes_ = 0, next_chunk_ = 0;
  std::deque<std::unique_ptr<StageJob>> jobs_;
  std::map<const uint8_t*, std::pair<uint64_t, const uint8_t*>>
      registered_;  // start -> bytes, device address
};

}  // namespace nearmoe::gpu
