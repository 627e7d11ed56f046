// Device and pinned memory of one context: every allocation is owned here, counted by purpose, held against
// the configured limit, and freed at the end whatever happened.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

#include "failure.h"

namespace nearmoe::gpu {

enum class Purpose : uint8_t { Weights, Kv, States, Slots, Activations, Pinned };

class Memory {
 public:
  Memory(Failure& failure, uint64_t vram_limit_bytes) : failure_(failure), limit_(vram_limit_bytes) {}
  ~Memory() { release_all(); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  /// Device memory, 256-byte aligned on a device; `what` is for the message.
  NmGpuCode allocate(Purpose purpose, size_t bytes, const char* what, void** out);
  template <class T>
  NmGpuCode allocate(Purpose purpose, size_t count, const char* what, T** out) {
    return allocate(purpose, count * sizeof(T), what, reinterpret_cast<void**>(out));
  }
  /// Page-locked host memory that the device can read.
  NmGpuCode allocate_pinned(size_t bytes, const char* what, void** out);
  template <class T>
  NmGpuCode allocate_pinned(size_t count, const char* what, T** out) {
    return allocate_pinned(count * sizeof(T), what, reinterpret_cast<void**>(out));
  }
  void release(void* p);
  void release_all();
  bool owns_pinned(const void* p, size_t bytes) const;

  uint64_t held(Purpose purpose) const { return held_[static_cast<size_t>(purpose)]; }
  uint64_t device_bytes() const;

 private:
  struct Block {
    Purpose purpose;
    size_t bytes;
  };
  Failure& failure_;
  uint64_t limit_;
  std::map<const void*, Block> blocks_;
  uint64_t held_[6] = {};
};

}  // namespace nearmoe::gpu
