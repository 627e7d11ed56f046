#include "block_scheduler.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <algorithm>
#include <memory>
#include <mutex>
#include <vector>

#include "fiber.h"
#include "shared_memory.h"

#ifdef GPU_HOST_TSAN
extern "C" void __tsan_read16(void*);
extern "C" void __tsan_write16(void*);
extern "C" void __tsan_acquire(void*);
extern "C" void __tsan_release(void*);
extern "C" void AnnotateIgnoreReadsBegin(const char*, int);
extern "C" void AnnotateIgnoreReadsEnd(const char*, int);
extern "C" void AnnotateIgnoreWritesBegin(const char*, int);
extern "C" void AnnotateIgnoreWritesEnd(const char*, int);
#define TSAN_ONLY(...) __VA_ARGS__
#else
#define TSAN_ONLY(...)
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace gpu_host {

Options options;
Stats stats;

namespace {

constexpr unsigned kMaxThreads = 1024;
constexpr int kMaxAsyncCopies = 128;

enum class State : uint8_t { Ready, AtBlock, AtWarp, Done };

struct AsyncCopy {
  char* to;
  const char* from;  // null: zeros
  int group;
};

struct Fiber : FiberStack {
  uint3 thread{};
  int index = 0;
  State state = State::Ready;
  bool fenced = false;
  // The collective or barrier it waits at.
  const char* what = "";
  const char* file = "";
  int line = 0;
  uint32_t mask = 0;
  void* argument = nullptr;
  WarpOp op = nullptr;
  int predicate = 0;
  BlockOp block_op = BlockOp::Sync;
  int result = 0;
  int warp_phase = 0;
  AsyncCopy copies[kMaxAsyncCopies];
  int num_copies = 0;
  int group = 0;
};

struct Warp {
  uint32_t live, waiting;
};

/// `error` says why; thrown and caught on the scheduler's stack only.
struct LaunchFailed {};

/// What a collective does to its lanes' arguments is no access of the kernel.
struct UnseenByTsan {
  UnseenByTsan() { TSAN_ONLY(AnnotateIgnoreReadsBegin("", 0); AnnotateIgnoreWritesBegin("", 0);) }
  ~UnseenByTsan() { TSAN_ONLY(AnnotateIgnoreReadsEnd("", 0); AnnotateIgnoreWritesEnd("", 0);) }
};

// All of this belongs to the launch under way; run_kernel holds `launch_lock` meanwhile.
std::mutex launch_lock;
FiberStack main_stack;
std::vector<std::unique_ptr<Fiber>> pool;
Fiber* fibers[kMaxThreads];  // of the block under way
Fiber* current;
Warp warps[kMaxThreads / 32];
int num_threads, num_exited;
[[maybe_unused]] int barrier_phase;
const std::function<void()>* kernel_body;
std::string error;
uint64_t random_state;

// What TSan is told to synchronise on; it sees no order in a fiber switch. Blocks synchronise on addresses of
// their own (addresses only, nothing is stored there), else a barrier would order a block after those that
// ran before it.
struct BlockSync {
  char barrier[2], warp[kMaxThreads / 32][2];
};
constexpr size_t kBlockSyncs = 4096;
[[maybe_unused]] BlockSync block_syncs[kBlockSyncs];
[[maybe_unused]] BlockSync* sync_of_block = block_syncs;
[[maybe_unused]] char launch_sync, done_sync;
// Thread i of a block is fiber first_fiber + i (modulo): ThreadSanitizer keeps a fiber's own accesses in
// order, so the same thread of the next block must be another fiber.
size_t first_fiber;

uint64_t next_random() {  // splitmix64
  uint64_t z = (random_state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

template <class T>
void permute(T* order, size_t n) {
  for (size_t i = 0; i < n; ++i) order[i] = static_cast<T>(options.order == Order::Reverse ? n - 1 - i : i);
  if (options.order != Order::Random) return;
  for (size_t i = n; i > 1; --i) std::swap(order[i - 1], order[next_random() % i]);
}

void set_error(const char* format, ...) __attribute__((format(printf, 1, 2)));
void set_error_list(const char* format, va_list list) {
  char text[600];
  vsnprintf(text, sizeof text, format, list);
  if (error.empty()) error = text;
}
void set_error(const char* format, ...) {
  va_list list;
  va_start(list, format);
  set_error_list(format, list);
  va_end(list);
}

void switch_to(FiberStack& from, FiberStack& to, bool last) {
  ++stats.switches;
  switch_fiber(from, to, last);
}

void fiber_entry() {
  fiber_started(main_stack);
  TSAN_ONLY(__tsan_acquire(&launch_sync);)
  (*kernel_body)();
  current->state = State::Done;
  ++num_exited;
  TSAN_ONLY(__tsan_release(&done_sync);)
  switch_to(*current, main_stack, true);
  std::abort();
}

void start(Fiber& fiber, int index) {
  fiber.index = index;
  fiber.state = State::Ready;
  fiber.fenced = false;
  fiber.warp_phase = fiber.num_copies = fiber.group = 0;
  const auto i = static_cast<unsigned>(index);
  fiber.thread = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
  prepare_fiber(fiber, index, fiber_entry);
}

void resume(Fiber& fiber) {
  current = &fiber;
  threadIdx = fiber.thread;
  switch_to(main_stack, fiber, false);
  current = nullptr;
}

void yield() { switch_to(*current, main_stack, false); }

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
  if (error.empty()) {
    const UnseenByTsan unseen;
    first.op(arguments, active);
  }
  each_lane(active, [&](int lane) { fibers[warp * 32 + lane]->state = State::Ready; });
  warps[warp].waiting &= ~active;
}

/// A lane returned: it may have been the last one that others waited for.
void complete_waiting(int warp) {
  for (uint32_t waiting = warps[warp].waiting; waiting; waiting &= waiting - 1) {
    Fiber& fiber = *fibers[warp * 32 + std::countr_zero(waiting)];
    const uint32_t need = fiber.mask & warps[warp].live;
    if (fiber.state == State::AtWarp && !(need & ~warps[warp].waiting)) complete_warp_op(warp, need, fiber);
  }
}

/// Runs a warp's lanes, each until it must wait, until all of them wait or are done.
void run_warp(int warp) {
  int order[32];
  const int n = std::min(32, num_threads - warp * 32);
  for (bool ran = true; ran && error.empty();) {
    ran = false;
    permute(order, static_cast<size_t>(n));
    for (int k = 0; k < n && error.empty(); ++k) {
      Fiber& fiber = *fibers[warp * 32 + order[k]];
      if (fiber.state != State::Ready) continue;
      resume(fiber);
      ran = true;
      if (fiber.state != State::Done) continue;
      warps[warp].live &= ~(1u << order[k]);
      if (warps[warp].waiting) complete_waiting(warp);
    }
  }
}

void describe_deadlock() {
  std::string text = "deadlock:";
  int shown = 0;
  for (int i = 0; i < num_threads && shown < 12; ++i) {
    const Fiber& fiber = *fibers[i];
    if (i > 0) {
      const Fiber& before = *fibers[i - 1];
      if (fiber.state == before.state && fiber.line == before.line) continue;
    }
    char line[300];
    if (fiber.state == State::Done) {
      snprintf(line, sizeof line, "\n  thread %d.. has returned", i);
    } else {
      snprintf(line, sizeof line, "\n  thread %d.. waits at %s (%s:%d, mask %08x)", i, fiber.what, fiber.file,
               fiber.line, fiber.mask);
    }
    text += line;
    ++shown;
  }
  if (error.empty()) error = text;
}

/// All threads wait at a barrier or are done: checks that it is the same one, and opens it.
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

void run_block() {
  num_exited = barrier_phase = 0;
  const int num_warps = (num_threads + 31) / 32;
  int order[kMaxThreads / 32];
  for (int i = 0; i < num_threads; ++i) {
    fibers[i] = pool[(first_fiber + static_cast<size_t>(i)) % pool.size()].get();
    start(*fibers[i], i);
  }
  for (int w = 0; w < num_warps; ++w) {
    const int lanes = std::min(32, num_threads - w * 32);
    warps[w] = {lanes == 32 ? ~0u : (1u << lanes) - 1, 0};
  }
  while (error.empty()) {
    permute(order, static_cast<size_t>(num_warps));
    for (int k = 0; k < num_warps && error.empty(); ++k) run_warp(order[k]);
    if (!error.empty() || num_exited == num_threads) return;
    for (int i = 0; i < num_threads; ++i) {
      if (fibers[i]->state == State::AtWarp) return describe_deadlock();
    }
    release_block();
    barrier_phase ^= 1;
  }
}

std::string check_shape(dim3 grid, dim3 block, size_t dynamic_bytes, size_t shared_limit) {
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  if (threads == 0 || threads > kMaxThreads || block.z > 64)
    return "invalid configuration: block of " + std::to_string(threads);
  if (blocks == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) {
    return "invalid configuration: grid of " + std::to_string(grid.x) + " x " + std::to_string(grid.y) +
           " x " + std::to_string(grid.z);
  }
  if (dynamic_bytes > shared_limit)
    return "dynamic shared memory of " + std::to_string(dynamic_bytes) + " bytes";
  return {};
}

}  // namespace

void fail(const char* format, ...) {
  va_list list;
  va_start(list, format);
  set_error_list(format, list);
  va_end(list);
  // A collective that a returning lane completed runs on the scheduler's own stack.
  if (!current) throw LaunchFailed{};
  switch_to(*current, main_stack, true);  // abandons the fiber
  std::abort();
}

bool inside_kernel() { return current != nullptr; }

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

void async_copy(void* to, const void* from, bool zero, const char* file, int line) {
  if ((reinterpret_cast<uintptr_t>(to) | (zero ? 0 : reinterpret_cast<uintptr_t>(from))) & 15) {
    fail("cp.async: not 16-byte aligned (%s:%d)", file, line);
  }
  Fiber& fiber = *current;
  if (fiber.num_copies == kMaxAsyncCopies)
    fail("cp.async: more than 128 copies under way (%s:%d)", file, line);
  fiber.copies[fiber.num_copies++] = {static_cast<char*>(to), zero ? nullptr : static_cast<const char*>(from),
                                      fiber.group};
}

void async_commit() { ++current->group; }

void async_wait(int groups_under_way) {
  Fiber& fiber = *current;
  int kept = 0;
  for (int i = 0; i < fiber.num_copies; ++i) {
    const AsyncCopy copy = fiber.copies[i];
    if (copy.group >= fiber.group - groups_under_way) {
      fiber.copies[kept++] = copy;
      continue;
    }
    TSAN_ONLY(if (copy.from) __tsan_read16(const_cast<char*>(copy.from)); __tsan_write16(copy.to);)
    if (copy.from) {
      std::memcpy(copy.to, copy.from, 16);
    } else {
      std::memset(copy.to, 0, 16);
    }
  }
  fiber.num_copies = kept;
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

std::string run_kernel(const char* name, dim3 grid, dim3 block, size_t dynamic_shared_bytes,
                       size_t shared_limit, const std::function<void()>& body) {
  const std::lock_guard<std::mutex> hold(launch_lock);
  error = check_shape(grid, block, dynamic_shared_bytes, shared_limit);
  gridDim = grid;
  blockDim = block;
  num_threads = static_cast<int>(block.x * block.y * block.z);
  const size_t num_blocks = size_t{grid.x} * grid.y * grid.z;
  kernel_body = &body;
  random_state = options.seed;
  while (error.empty() && pool.size() < static_cast<size_t>(num_threads)) {
    pool.push_back(std::make_unique<Fiber>());
  }
  adopt_thread(main_stack);
  std::vector<uint32_t> order(error.empty() ? num_blocks : 0);
  permute(order.data(), order.size());
  ++stats.launches;
  for (const uint32_t i : order) {
    blockIdx = {i % grid.x, i / grid.x % grid.y, i / (grid.x * grid.y)};
    begin_block_memory(dynamic_shared_bytes, shared_limit);
    TSAN_ONLY(__tsan_release(&launch_sync); first_fiber += 33;
              if (++sync_of_block == block_syncs + kBlockSyncs) sync_of_block = block_syncs;)
    try {
      run_block();
    } catch (const LaunchFailed&) {
    }
    if (error.empty()) error = check_block_memory();
    ++stats.blocks;
    stats.threads += static_cast<uint64_t>(num_threads);
    if (!error.empty()) break;
  }
  TSAN_ONLY(__tsan_acquire(&done_sync);)
  end_launch_memory();
  return error.empty() ? std::string() : std::string("kernel ") + name + ": " + error;
}

}  // namespace gpu_host
