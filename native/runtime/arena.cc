#include "arena.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "kernels/ops.h"

namespace nearmoe {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

size_t round_up(size_t value, size_t to) { return (value + to - 1) / to * to; }

void bind_to_node(void* base, size_t bytes, int node) {
  constexpr int kPreferred = 1;  // MPOL_PREFERRED: a full node spills over instead of killing the process
  unsigned long mask = 1UL << static_cast<unsigned>(node);
  syscall(SYS_mbind, base, bytes, kPreferred, &mask, 8 * sizeof mask, 0U);
}

}  // namespace

Arena::~Arena() {
  if (base_ != nullptr) munmap(base_, capacity_);
}

bool Arena::reserve(size_t capacity_bytes, int numa_node) {
  capacity_ = round_up(capacity_bytes, kHugePage) + kHugePage;
  void* base =
      mmap(nullptr, capacity_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return false;
  base_ = static_cast<std::byte*>(base);
  first_ = round_up(reinterpret_cast<size_t>(base_), kHugePage) - reinterpret_cast<size_t>(base_);
  used_ = first_;
  // Best effort: without huge pages weights still stream, at the cost of more TLB misses.
  madvise(base_, capacity_, MADV_HUGEPAGE);
  if (numa_node >= 0) bind_to_node(base_, capacity_, numa_node);
  return true;
}

bool Arena::map(int fd, size_t offset, size_t bytes) {
  struct stat info {};
  if (fstat(fd, &info) != 0) return false;
  const auto file_bytes = static_cast<size_t>(info.st_size);
  if (offset > file_bytes || bytes > file_bytes - offset) {
    errno = ENODATA;
    return false;
  }
  mapped_ = true;
  if (bytes == 0) return true;
  void* base = mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, fd, static_cast<off_t>(offset));
  if (base == MAP_FAILED) return false;
  base_ = static_cast<std::byte*>(base);
  capacity_ = bytes;
  // Best effort: file systems with large folios then map more than a page at a time.
  madvise(base_, capacity_, MADV_HUGEPAGE);
  return true;
}

std::byte* Arena::allocate(size_t bytes) {
  const size_t size = round_up(bytes, kAlignment);
  if (base_ == nullptr || size > capacity_ - used_) return nullptr;
  std::byte* result = base_ + used_;
  used_ += size;
  return result;
}

}  // namespace nearmoe
