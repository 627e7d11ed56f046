// Memory of the emulated device: guarded allocations, pinned and registered host memory, and what a pointer
// is. Used by the emulated runtime API; the caller holds its lock.
#pragma once

#include <cstddef>

namespace gpu_host {

enum class Where : unsigned char { Pageable, Pinned, Device };

/// Null where the device's memory does not suffice. Filled with 0xff.
void* allocate_device(size_t bytes);
bool free_device(void* p);
void* allocate_pinned(size_t bytes);
bool free_pinned(void* p);
/// False where a part of the range is registered already.
bool register_pinned(void* p, size_t bytes);
bool unregister_pinned(void* p);
/// Where [p, p + bytes) lies; a range that crosses the end of an allocation counts as Pageable.
Where where_is(const void* p, size_t bytes);
size_t device_bytes_used();

/// With DeviceModel.isolate_memory: device memory can be touched while one of these lives.
class DeviceMemoryAccess {
 public:
  DeviceMemoryAccess();
  ~DeviceMemoryAccess();
  DeviceMemoryAccess(const DeviceMemoryAccess&) = delete;
  DeviceMemoryAccess& operator=(const DeviceMemoryAccess&) = delete;
};

}  // namespace gpu_host
