#include "memory.h"

#include <string>

namespace nearmoe::gpu {

uint64_t Memory::device_bytes() const {
  return held(Purpose::Weights) + held(Purpose::Kv) + held(Purpose::States) + held(Purpose::Slots) +
         held(Purpose::Activations);
}

NmGpuCode Memory::allocate(Purpose purpose, size_t bytes, const char* what, void** out) {
  *out = nullptr;
  if (bytes == 0) bytes = 16;
  const auto out_of_memory = [&](const char* why) {
    return failure_.fail(NM_GPU_OUT_OF_MEMORY, "allocate",
                         std::string(what) + " of " + std::to_string(bytes) + " bytes: " + why + "; " +
                             std::to_string(device_bytes()) + " bytes are held");
  };
  if (limit_ > 0 && device_bytes() + bytes > limit_) return out_of_memory("the VRAM limit is reached");
  const cudaError_t error = cudaMalloc(out, bytes);
  if (error == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    *out = nullptr;
    return out_of_memory("out of device memory");
  }
  GPU_TRY(failure_.check(error, "cudaMalloc"));
  blocks_[*out] = {purpose, bytes};
  held_[static_cast<size_t>(purpose)] += bytes;
  return NM_GPU_OK;
}

NmGpuCode Memory::allocate_pinned(size_t bytes, const char* what, void** out) {
  *out = nullptr;
  if (bytes == 0) bytes = 16;
  const cudaError_t error = cudaHostAlloc(out, bytes, cudaHostAllocMapped);
  if (error == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    *out = nullptr;
    return failure_.fail(
        NM_GPU_OUT_OF_MEMORY, "allocate",
        std::string(what) + ": " + std::to_string(bytes) + " bytes of pinned host memory are not to be had");
  }
  GPU_TRY(failure_.check(error, "cudaHostAlloc"));
  blocks_[*out] = {Purpose::Pinned, bytes};
  held_[static_cast<size_t>(Purpose::Pinned)] += bytes;
  return NM_GPU_OK;
}

void Memory::release(void* p) {
  const auto it = blocks_.find(p);
  if (it == blocks_.end()) return;
  (void)(it->second.purpose == Purpose::Pinned ? cudaFreeHost(p) : cudaFree(p));
  held_[static_cast<size_t>(it->second.purpose)] -= it->second.bytes;
  blocks_.erase(it);
}

void Memory::release_all() {
  while (!blocks_.empty()) release(const_cast<void*>(blocks_.begin()->first));
}

bool Memory::owns_pinned(const void* p, size_t bytes) const {
  auto it = blocks_.upper_bound(p);
  if (it == blocks_.begin()) return false;
  --it;
  const auto* start = static_cast<const char*>(it->first);
  return it->second.purpose == Purpose::Pinned &&
         static_cast<const char*>(p) + bytes <= start + it->second.bytes;
}

}  // namespace nearmoe::gpu
