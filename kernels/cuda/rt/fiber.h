// A fiber: a stack of its own and the switch between stacks, with what the sanitizers must be told. Used by
// the block scheduler only. Compiled without sanitizer instrumentation; GPU_HOST_ASAN or GPU_HOST_TSAN says
// what the kernels have.
#pragma once

#include <cstddef>

#if defined(GPU_HOST_UCONTEXT) || !(defined(__x86_64__) || defined(__aarch64__))
#define GPU_FIBER_UCONTEXT 1
#include <ucontext.h>
#endif

namespace gpu_host {

struct FiberStack {
#ifdef GPU_FIBER_UCONTEXT
  ucontext_t context;
#else
  void* stack_pointer = nullptr;
#endif
  char* stack = nullptr;  ///< lowest address; its first page is a guard
  size_t stack_bytes = 0;
  void* asan_fake_stack = nullptr;
  void* tsan_fiber = nullptr;
};

/// Makes `fiber` start at `entry` when it is next switched to. `index` staggers stacks over cache sets.
void prepare_fiber(FiberStack& fiber, int index, void (*entry)());
/// First call on a fresh fiber; tells ASan of it.
void fiber_started(FiberStack& main);
/// Names the calling thread's own stack as `main`.
void adopt_thread(FiberStack& main);
/// Goes on with `to`; returns when somebody switches back. `last`: `from` will never be resumed.
void switch_fiber(FiberStack& from, FiberStack& to, bool last);

}  // namespace gpu_host
