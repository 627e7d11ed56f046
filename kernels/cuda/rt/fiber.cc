#include "fiber.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>

#ifdef GPU_HOST_ASAN
extern "C" void __sanitizer_start_switch_fiber(void** save, const void* bottom, size_t size);
extern "C" void __sanitizer_finish_switch_fiber(void* save, const void** bottom_old, size_t* size_old);
extern "C" void __asan_unpoison_memory_region(void const volatile* p, size_t n);
#endif
#ifdef GPU_HOST_TSAN
extern "C" void* __tsan_create_fiber(unsigned);
extern "C" void __tsan_switch_to_fiber(void*, unsigned);
extern "C" void* __tsan_get_current_fiber();
#endif

#ifndef GPU_FIBER_UCONTEXT
extern "C" void gpu_host_switch_stack(void** save, void* to);
#if defined(__x86_64__)
asm(R"(
.text
.globl gpu_host_switch_stack
.hidden gpu_host_switch_stack
.type gpu_host_switch_stack,@function
gpu_host_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size gpu_host_switch_stack,.-gpu_host_switch_stack
)");
#else
asm(R"(
.text
.globl gpu_host_switch_stack
.hidden gpu_host_switch_stack
.type gpu_host_switch_stack,%function
gpu_host_switch_stack:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size gpu_host_switch_stack,.-gpu_host_switch_stack
)");
#endif
#endif

namespace gpu_host {
namespace {

constexpr size_t kPage = 4096;
#ifdef GPU_HOST_ASAN
constexpr size_t kStackBytes = 256 << 10;
#else
constexpr size_t kStackBytes = 64 << 10;
#endif

void map_stack(FiberStack& fiber) {
  void* p =
      mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) std::abort();
  fiber.stack = static_cast<char*>(p);
  fiber.stack_bytes = kStackBytes;
  if (mprotect(fiber.stack, kPage, PROT_NONE) != 0) std::abort();
}

}  // namespace

void prepare_fiber(FiberStack& fiber, int index, void (*entry)()) {
  if (!fiber.stack) map_stack(fiber);
#ifdef GPU_HOST_ASAN
  __asan_unpoison_memory_region(fiber.stack + kPage, kStackBytes - kPage);
#endif
#ifdef GPU_FIBER_UCONTEXT
  (void)index;
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack;
  fiber.context.uc_stack.ss_size = kStackBytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, entry, 0);
#else
  // Staggered tops: equal offsets of a thousand stacks would share one cache set.
  char* top = fiber.stack + kStackBytes - index % 61 * 64 - 64;
#if defined(__x86_64__)
  void** sp = reinterpret_cast<void**>(top);
  *--sp = nullptr;                         // where entry would return to; it never does
  *--sp = reinterpret_cast<void*>(entry);  // popped by ret
  std::fill(sp - 6, sp, nullptr);          // callee-saved registers
  fiber.stack_pointer = sp - 6;
#else
  void** sp = reinterpret_cast<void**>(top) - 20;
  std::fill(sp, sp + 20, nullptr);
  sp[11] = reinterpret_cast<void*>(entry);  // x30
  fiber.stack_pointer = sp;
#endif
#endif
#ifdef GPU_HOST_TSAN
  if (!fiber.tsan_fiber) fiber.tsan_fiber = __tsan_create_fiber(0);
#endif
}

void fiber_started(FiberStack& main) {
#ifdef GPU_HOST_ASAN
  const void* bottom;
  size_t size;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
  main.stack = static_cast<char*>(const_cast<void*>(bottom));
  main.stack_bytes = size;
#else
  (void)main;
#endif
}

void adopt_thread(FiberStack& main) {
#ifdef GPU_HOST_TSAN
  main.tsan_fiber = __tsan_get_current_fiber();
#else
  (void)main;
#endif
}

void switch_fiber(FiberStack& from, FiberStack& to, [[maybe_unused]] bool last) {
#ifdef GPU_HOST_ASAN
  __sanitizer_start_switch_fiber(last ? nullptr : &from.asan_fake_stack, to.stack, to.stack_bytes);
#endif
#ifdef GPU_HOST_TSAN
  __tsan_switch_to_fiber(to.tsan_fiber, 1);  // 1: the switch orders nothing
#endif
#ifdef GPU_FIBER_UCONTEXT
  swapcontext(&from.context, &to.context);
#else
  gpu_host_switch_stack(&from.stack_pointer, to.stack_pointer);
#endif
#ifdef GPU_HOST_ASAN
  __sanitizer_finish_switch_fiber(from.asan_fake_stack, nullptr, nullptr);
#endif
}

}  // namespace gpu_host
