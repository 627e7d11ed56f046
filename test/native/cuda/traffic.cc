#include "traffic.h"

#include <unordered_set>
#include <vector>

#include "kernels/cuda/rt/gpu_rt.h"

namespace gpu_test::traffic {
namespace {

constexpr uintptr_t kSectorBytes = 32;

struct Range {
  uintptr_t begin, end;
  std::unordered_set<uint64_t> of_blocks;  ///< sector of the range and the thread block
  std::unordered_set<uint64_t> distinct;
};

std::vector<Range>& ranges() {
  static std::vector<Range> list;
  return list;
}

uint64_t block_in_grid() {
  return blockIdx.x + uint64_t{gridDim.x} * (blockIdx.y + uint64_t{gridDim.y} * blockIdx.z);
}

void count(const void* p, size_t bytes) {
  const auto at = reinterpret_cast<uintptr_t>(p);
  for (Range& range : ranges()) {
    if (at < range.begin || at >= range.end) continue;
    for (uint64_t sector = (at - range.begin) / kSectorBytes;
         sector <= (at + bytes - 1 - range.begin) / kSectorBytes; ++sector) {
      range.distinct.insert(sector);
      range.of_blocks.insert(block_in_grid() << 32 | sector);
    }
  }
}

}  // namespace

void reset() {
  ranges().clear();
  gpu_host::async_copy_read = [](const void* from) { count(from, 16); };
}

size_t watch(const void* begin, size_t bytes) {
  const auto at = reinterpret_cast<uintptr_t>(begin);
  ranges().push_back({at, at + bytes, {}, {}});
  return ranges().size() - 1;
}

Bytes counted(size_t range) {
  return {ranges().at(range).of_blocks.size() * kSectorBytes,
          ranges().at(range).distinct.size() * kSectorBytes};
}

}  // namespace gpu_test::traffic

// What GCC and Clang call before each access of instrumented code.
#define COUNT_ACCESS(bytes)                                                                     \
  extern "C" void __tsan_read##bytes(void* p) { gpu_test::traffic::count(p, bytes); }           \
  extern "C" void __tsan_write##bytes(void* p) { gpu_test::traffic::count(p, bytes); }          \
  extern "C" void __tsan_unaligned_read##bytes(void* p) { gpu_test::traffic::count(p, bytes); } \
  extern "C" void __tsan_unaligned_write##bytes(void* p) { gpu_test::traffic::count(p, bytes); }
extern "C" {
void __tsan_read_range(void* p, size_t bytes);
void __tsan_write_range(void* p, size_t bytes);
void __tsan_init();
void __tsan_func_entry(void*);
void __tsan_func_exit();
void __tsan_vptr_update(void**, void*);
void __tsan_vptr_read(void**);
}
COUNT_ACCESS(1)
COUNT_ACCESS(2)
COUNT_ACCESS(4)
COUNT_ACCESS(8)
COUNT_ACCESS(16)
void __tsan_read_range(void* p, size_t bytes) { gpu_test::traffic::count(p, bytes); }
void __tsan_write_range(void* p, size_t bytes) { gpu_test::traffic::count(p, bytes); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
