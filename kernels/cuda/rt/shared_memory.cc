#include "shared_memory.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#ifdef GPU_HOST_ASAN
extern "C" void __asan_poison_memory_region(void const volatile* p, size_t n);
extern "C" void __asan_unpoison_memory_region(void const volatile* p, size_t n);
#endif

namespace gpu_host {
namespace {

constexpr size_t kArenaBytes = 512 << 10;
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
std::vector<char*> retired;  // ThreadSanitizer: one arena a block, so that blocks' accesses are not mixed up

size_t padded(size_t bytes) { return (bytes + 2 * kGap - 1) / kGap * kGap; }

char* take(const void* site, size_t bytes) {
  used += bytes;
  if (used > allowed || arena_top + padded(bytes) > arena + kArenaBytes || num_variables == kMaxVariables)
    return nullptr;
  char* data = arena_top;
  arena_top += padded(bytes);
#ifdef GPU_HOST_ASAN
  __asan_unpoison_memory_region(data, bytes);
#endif
  variables[num_variables++] = {site, data, bytes};
  return data;
}

}  // namespace

void begin_block_memory(size_t dynamic_bytes, size_t limit) {
#ifdef GPU_HOST_TSAN
  if (arena) retired.push_back(arena);
  arena = nullptr;
#endif
  if (!arena) {
    void* p = mmap(nullptr, kArenaBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    if (p == MAP_FAILED) std::abort();
    arena = static_cast<char*>(p);
    arena_top = arena + (limit + (limit >> 1) < kArenaBytes ? limit + (limit >> 1) : kArenaBytes);
  }
#ifdef GPU_HOST_ASAN
  __asan_unpoison_memory_region(arena, kArenaBytes);
#endif
  std::memset(arena, kPoison, static_cast<size_t>(arena_top - arena));
#ifdef GPU_HOST_ASAN
  __asan_poison_memory_region(arena, kArenaBytes);
#endif
  arena_top = arena;
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
  for (char* p : retired) munmap(p, kArenaBytes);
  retired.clear();
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
