// A growing region of memory for one NDP unit (or the host GPU), bound to its NUMA node where there are
// several. Address space is reserved once, pages are committed by first touch; allocation is a bump of a
// pointer. Used by weights, KV cache and activation buffers. Allocation happens on the control thread only.
#pragma once

#include <cstddef>

namespace nearmoe {

class Arena {
 public:
  Arena() = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena();

  /// Reserves `capacity_bytes` of address space; numa_node < 0 leaves the placement to the OS. False: no
  /// memory.
  bool reserve(size_t capacity_bytes, int numa_node);
  /// Zero-filled bytes aligned to 64, or null where the reservation is used up.
  std::byte* allocate(size_t bytes);
  size_t used_bytes() const { return used_; }
  /// Where allocations begin, counted in used_bytes.
  const std::byte* data() const { return base_; }

 private:
  std::byte* base_ = nullptr;
  size_t capacity_ = 0;
  size_t used_ = 0;
};

}  // namespace nearmoe
