// Counts the 32-byte sectors of device memory that emulated kernels touch. The kernels of gpu_traffic_test
// are compiled with -fsanitize=thread, whose calls before each access end in traffic.cc instead of in
// ThreadSanitizer. Says nothing about caches, times or bank conflicts.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gpu_test::traffic {

/// Sectors of a range, in bytes.
struct Bytes {
  uint64_t blocks;    ///< those that a thread block touches, added up over all blocks: no cache but its L1
  uint64_t distinct;  ///< those that any block touches
};

/// Forgets all ranges and counts.
void reset();
/// Counts accesses to [begin, begin + bytes) from here on; returns the range's number.
size_t watch(const void* begin, size_t bytes);
Bytes counted(size_t range);

}  // namespace gpu_test::traffic
