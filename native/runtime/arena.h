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
  /// Holds `bytes` of a file from `offset` (a multiple of the page size) on, read-only; allocations hand them
  /// out in the order in which they were written. False: cannot be mapped, or the file is shorter.
  bool map(int fd, size_t offset, size_t bytes);
  /// Zero-filled bytes aligned to 64, or null where the reservation is used up.
  std::byte* allocate(size_t bytes);
  size_t used_bytes() const { return used_; }
  /// Where allocations begin, counted in used_bytes.
  const std::byte* data() const { return base_; }
  /// The allocations alone, without what precedes the first for its alignment.
  const std::byte* content() const { return base_ + first_; }
  size_t content_bytes() const { return used_ - first_; }
  bool mapped() const { return mapped_; }
  /// Bytes of a mapped file not yet handed out; 0 where everything fits.
  size_t unused_bytes() const { return capacity_ - used_; }

 private:
  std::byte* base_ = nullptr;
  size_t capacity_ = 0;
  size_t first_ = 0;
  size_t used_ = 0;
  bool mapped_ = false;
};

}  // namespace nearmoe
