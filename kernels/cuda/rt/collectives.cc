// Collectives of a warp and barriers of a block: what the intrinsics call from inside a kernel, with the
// checks that a GPU does not make.
#include <cstring>

#include <algorithm>

#include "block_state.h"
#include "shared_memory.h"

namespace gpu_host {
namespace {

/// What a collective does to its lanes' arguments is no access of the kernel.
struct UnseenByTsan {
  UnseenByTsan() { TSAN_ONLY(AnnotateIgnoreReadsBegin("", 0); AnnotateIgnoreWritesBegin("", 0);) }
  ~UnseenByTsan() { TSAN_ONLY(AnnotateIgnoreReadsEnd("", 0); AnnotateIgnoreWritesEnd("", 0);) }
};

bool same_collective(const Fiber& a, const Fiber& b) {
  return a.mask == b.mask && a.line == b.line && !std::strcmp(a.what, b.what) && !std::strcmp(a.file, b.file);
}

/// Runs the collective that all lanes of `active` have reached.
void complete_warp_op(int warp, uint32_t active, const Fiber& first) {
  void* arguments[32] = {};
  each_lane(active, [&](int lane) {
    const Fiber& fiber = *fibers[warp * 32 + lane];
    if (!same_collective(fiber, first)) {
      set_error(
          "divergent collectives: thread %d is at %s (%s:%d, mask %08x), thread %d at %s (%s:%d, mask %08x)",
          first.index, first.what, first.file, first.line, first.mask, fiber.index, fiber.what, fiber.file,
          fiber.line, fiber.mask);
    }
    arguments[lane] = fiber.argument;
  });
  if (launch_error.empty()) {
    const UnseenByTsan unseen;
    first.op(arguments, active);
  }
  each_lane(active, [&](int lane) { fibers[warp * 32 + lane]->state = State::Ready; });
  warps[warp].waiting &= ~active;
}

}  // namespace

void complete_waiting(int warp) {
  for (uint32_t waiting = warps[warp].waiting; waiting; waiting &= waiting - 1) {
    Fiber& fiber = *fibers[warp * 32 + std::countr_zero(waiting)];
    const uint32_t need = fiber.mask & warps[warp].live;
    if (fiber.state == State::AtWarp && !(need & ~warps[warp].waiting)) complete_warp_op(warp, need, fiber);
  }
}

void release_block() {
  Fiber **begin = fibers, **end = begin + num_threads;
  const auto is_waiting = [](const Fiber* fiber) { return fiber->state != State::Done; };
  const Fiber& first = **std::find_if(begin, end, is_waiting);
  int count = 0, live = 0;
  for (Fiber** it = begin; it != end; ++it) {
    const Fiber& fiber = **it;
    if (!is_waiting(*it)) continue;
    if (fiber.line != first.line || fiber.block_op != first.block_op ||
        std::strcmp(fiber.file, first.file) != 0) {
      return set_error("divergent __syncthreads: thread %d is at %s:%d, thread %d at %s:%d", first.index,
                       first.file, first.line, fiber.index, fiber.file, fiber.line);
    }
    ++live;
    count += fiber.predicate != 0;
  }
  if (num_exited > 0 && options.strict_exit) {
    return set_error("%d of %d threads returned, the others wait at __syncthreads (%s:%d)", num_exited,
                     num_threads, first.file, first.line);
  }
  const int result = first.block_op == BlockOp::Count ? count
                     : first.block_op == BlockOp::And ? count == live
                                                      : count > 0;
  for (Fiber** it = begin; it != end; ++it) {
    if (!is_waiting(*it)) continue;
    (*it)->state = State::Ready;
    (*it)->result = result;
  }
}

void warp_op(const char* what, uint32_t mask, WarpOp op, void* argument, [[maybe_unused]] Fence fence,
             const char* file, int line) {
  Fiber& fiber = *current;
  const int warp = fiber.index >> 5;
  const uint32_t bit = 1u << (fiber.index & 31);
  fiber.what = what;
  fiber.mask = mask;
  fiber.argument = argument;
  fiber.op = op;
  fiber.file = file;
  fiber.line = line;
  fiber.state = State::AtWarp;
  if (!(mask & bit))
    fail("%s (%s:%d): thread %d is not in its own mask %08x", what, file, line, fiber.index, mask);
  TSAN_ONLY(if (fence == Fence::Yes) __tsan_release(&sync_of_block->warp[warp][fiber.warp_phase & 1]);)
  warps[warp].waiting |= bit;
  const uint32_t need = mask & warps[warp].live;
  if (!(need & ~warps[warp].waiting)) {
    complete_warp_op(warp, need, fiber);
  } else {
    yield();
  }
  TSAN_ONLY(if (fence == Fence::Yes) __tsan_acquire(&sync_of_block->warp[warp][fiber.warp_phase++ & 1]);)
}

int block_op(int predicate, BlockOp op, const char* file, int line) {
  Fiber& fiber = *current;
  fiber.what = "__syncthreads";
  fiber.mask = 0;
  fiber.file = file;
  fiber.line = line;
  fiber.predicate = predicate;
  fiber.block_op = op;
  fiber.state = State::AtBlock;
  TSAN_ONLY(const int phase = barrier_phase; __tsan_release(&sync_of_block->barrier[phase]);)
  yield();
  TSAN_ONLY(__tsan_acquire(&sync_of_block->barrier[phase]);)
  return fiber.result;
}

void* shared_variable(const void* site, size_t bytes) {
  void* p = find_or_make_variable(site, bytes);
  if (!p) fail("shared memory: %zu bytes used, more than the block may have", shared_bytes_used());
  return p;
}

void* dynamic_shared() { return dynamic_variable(); }
void set_fenced() { current->fenced = true; }
bool is_fenced() { return current->fenced; }
bool in_shared_memory(const void* p) { return is_shared(p); }

bool on_own_stack(const void* p) {
  const auto* c = static_cast<const char*>(p);
  return current && c >= current->stack && c < current->stack + current->stack_bytes;
}

}  // namespace gpu_host
