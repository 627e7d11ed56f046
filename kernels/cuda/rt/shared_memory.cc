#include "shared_memory.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

#ifdef GPU_HOST_ASAN
extern "C" void __asan_poison_memory_region(void const volatile* p, size_t n);
extern "C" void __asan_unpoison_memory_region(void const volatile* p, size_t n);
#endif
#ifdef GPU_HOST_TSAN
extern "C" void AnnotateIgnoreWritesBegin(const char*, int);
extern "C" void AnnotateIgnoreWritesEnd(const char*, int);
#endif

namespace gpu_host {
namespace {

#ifdef GPU_HOST_TSAN
// Every block of a launch gets addresses of its own, so that blocks' accesses are not mixed up.
constexpr size_t kArenaBytes = size_t{1} << 30;
#else
constexpr size_t kArenaBytes = 512 << 10;
#endif
constexpr size_t kGap = 128;  // at least so much poison behind every variable
constexpr int kMaxVariables = 64;
// Floats, halves and bf16 read it as NaN, integers as far out of range.
constexpr char kPoison = static_cast<char>(0xff);

struct Variable {
  const void* site;
  char* data;
  size_t bytes;
};

Variable variables[kMaxVariables];  // number 0 is the dynamic part
int num_variables;
char* arena;
char* arena_top;
size_t used, allowed;

size_t padded(size_t bytes) { return (bytes + 2 * kGap - 1) / kGap * kGap; }

void map_arena() {
  void* p =
      mmap(nullptr, kArenaBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) std::abort();
  arena = arena_top = static_cast<char*>(p);
}

void poison(char* data, size_t bytes) {
#ifdef GPU_HOST_TSAN
  AnnotateIgnoreWritesBegin("", 0);  // no write of the fiber that happens to come first
#endif
  std::memset(data, kPoison, bytes);
#ifdef GPU_HOST_TSAN
  AnnotateIgnoreWritesEnd("", 0);
#endif
}

char* take(const void* site, size_t bytes) {
  used += bytes;
  if (used > allowed || arena_top + padded(bytes) > arena + kArenaBytes || num_variables == kMaxVariables)
    return nullptr;
  char* data = arena_top;
  arena_top += padded(bytes);
#ifdef GPU_HOST_ASAN
  __asan_unpoison_memory_region(data, padded(bytes));
  poison(data, padded(bytes));
  __asan_poison_memory_region(data + bytes, padded(bytes) - bytes);
#else
  poison(data, padded(bytes));
#endif
  variables[num_variables++] = {site, data, bytes};
  return data;
}

}  // namespace

void begin_block_memory(size_t dynamic_bytes, size_t limit) {
  if (!arena) map_arena();
#ifdef GPU_HOST_TSAN
  if (arena_top + 4 * limit > arena + kArenaBytes) end_launch_memory();
  if (!arena) map_arena();
#else
  arena_top = arena;
#endif
#ifdef GPU_HOST_ASAN
  __asan_poison_memory_region(arena, kArenaBytes);
#endif
  num_variables = 0;
  used = 0;
  allowed = limit;
  take(nullptr, dynamic_bytes);
}

std::string check_block_memory() {
#ifndef GPU_HOST_ASAN
  for (int v = 0; v < num_variables; ++v) {
    const Variable& variable = variables[v];
    for (size_t i = variable.bytes; i < padded(variable.bytes); ++i) {
      if (variable.data[i] != kPoison) {
        return std::string(v == 0 ? "dynamic" : "static") + " shared memory of " +
               std::to_string(variable.bytes) + " bytes: written " + std::to_string(i) +
               " bytes behind its start";
      }
    }
  }
#endif
  return {};
}

void end_launch_memory() {
#ifdef GPU_HOST_TSAN
  if (arena) munmap(arena, kArenaBytes);
  arena = nullptr;
#endif
}

void* find_or_make_variable(const void* site, size_t bytes) {
  for (int i = 1; i < num_variables; ++i) {
    if (variables[i].site == site) return variables[i].data;
  }
  return take(site, bytes);
}

void* dynamic_variable() { return variables[0].data; }
size_t shared_bytes_used() { return used; }

bool is_shared(const void* p) {
  const auto* c = static_cast<const char*>(p);
  return c >= arena && c < arena + kArenaBytes;
}

}  // namespace gpu_host
