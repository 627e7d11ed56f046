#include "host_memory.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>

#include "cpu_host_api.h"

namespace gpu_host {
namespace {

constexpr size_t kPage = 4096;

struct Block {
  size_t bytes;
  char* mapping;  // null: from the heap
  size_t mapping_bytes;
};

using Blocks = std::map<uintptr_t, Block>;
Blocks device_blocks, pinned_blocks, registered_blocks;
size_t device_used;
bool accessible = true;

uintptr_t address(const void* p) { return reinterpret_cast<uintptr_t>(p); }

#if defined(GPU_HOST_ASAN) || defined(GPU_HOST_TSAN)
// The sanitizers guard heap memory themselves, and need to know of it.
Block map_guarded(size_t, void** p) {
  *p = nullptr;
  return {};
}
constexpr bool kUseHeap = true;
#else
constexpr bool kUseHeap = false;
/// Memory that ends (up to 16-byte alignment) at an inaccessible page.
Block map_guarded(size_t bytes, void** p) {
  const size_t mapping_bytes = (bytes + kPage - 1) / kPage * kPage + kPage;
  void* m = mmap(nullptr, mapping_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                 -1, 0);
  *p = nullptr;
  if (m == MAP_FAILED) return {};
  char* mapping = static_cast<char*>(m);
  if (mprotect(mapping + mapping_bytes - kPage, kPage, PROT_NONE) != 0) std::abort();
  *p = mapping + mapping_bytes - kPage - (bytes + 15) / 16 * 16;
  return {bytes, mapping, mapping_bytes};
}
#endif

void* allocate(Blocks& blocks, size_t bytes) {
  void* p = nullptr;
  Block block{bytes, nullptr, 0};
  if (kUseHeap) {
    if (posix_memalign(&p, 256, bytes ? bytes : 1) != 0) return nullptr;
  } else {
    block = map_guarded(bytes, &p);
    if (!p) return nullptr;
  }
  std::memset(p, 0xff, bytes);
  blocks[address(p)] = block;
  return p;
}

bool release(Blocks& blocks, void* p) {
  const auto it = blocks.find(address(p));
  if (it == blocks.end()) return false;
  if (it->second.mapping) {
    munmap(it->second.mapping, it->second.mapping_bytes);
  } else {
    std::free(p);
  }
  blocks.erase(it);
  return true;
}

bool contains(const Blocks& blocks, const void* p, size_t bytes) {
  auto it = blocks.upper_bound(address(p));
  if (it == blocks.begin()) return false;
  --it;
  return address(p) + bytes <= it->first + it->second.bytes;
}

void set_accessible(bool on) {
  if (!device_model.isolate_memory || accessible == on) return;
  accessible = on;
  for (const auto& [start, block] : device_blocks) {
    if (block.mapping &&
        mprotect(block.mapping, block.mapping_bytes - kPage, on ? PROT_READ | PROT_WRITE : PROT_NONE) != 0) {
      std::abort();
    }
  }
}

}  // namespace

void* allocate_device(size_t bytes) {
  if (bytes > device_model.total_bytes - device_used) return nullptr;
  const DeviceMemoryAccess access;  // keeps all blocks in one state
  void* p = allocate(device_blocks, bytes);
  if (p) device_used += bytes;
  return p;
}

bool free_device(void* p) {
  const auto it = device_blocks.find(address(p));
  if (it == device_blocks.end()) return false;
  device_used -= it->second.bytes;
  return release(device_blocks, p);
}

void* allocate_pinned(size_t bytes) { return allocate(pinned_blocks, bytes); }
bool free_pinned(void* p) { return release(pinned_blocks, p); }

bool register_pinned(void* p, size_t bytes) {
  for (const auto& [start, block] : registered_blocks) {
    if (address(p) < start + block.bytes && start < address(p) + bytes) return false;
  }
  registered_blocks[address(p)] = {bytes, nullptr, 0};
  return true;
}

bool unregister_pinned(void* p) { return registered_blocks.erase(address(p)) == 1; }

Where where_is(const void* p, size_t bytes) {
  if (contains(device_blocks, p, bytes)) return Where::Device;
  if (contains(pinned_blocks, p, bytes) || contains(registered_blocks, p, bytes)) return Where::Pinned;
  return Where::Pageable;
}

size_t device_bytes_used() { return device_used; }

DeviceMemoryAccess::DeviceMemoryAccess() { set_accessible(true); }
DeviceMemoryAccess::~DeviceMemoryAccess() { set_accessible(false); }

}  // namespace gpu_host
