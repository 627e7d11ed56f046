#include "block_scheduler.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <memory>
#include <mutex>
#include <vector>

#include "block_state.h"
#include "shared_memory.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace gpu_host {

Options options;
Stats stats;

Fiber* fibers[kMaxThreads];
Fiber* current;
Warp warps[kMaxThreads / 32];
int num_threads, num_exited;
int barrier_phase;
std::string launch_error;

namespace {

std::mutex launch_lock;
FiberStack main_stack;
std::vector<std::unique_ptr<Fiber>> pool;
const std::function<void()>* kernel_body;
uint64_t random_state;

constexpr size_t kBlockSyncs = 4096;
BlockSync block_syncs[kBlockSyncs];
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

void set_error_list(const char* format, va_list list) {
  char text[600];
  vsnprintf(text, sizeof text, format, list);
  if (launch_error.empty()) launch_error = text;
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

/// Runs a warp's lanes, each until it must wait, until all of them wait or are done.
void run_warp(int warp) {
  int order[32];
  const int n = std::min(32, num_threads - warp * 32);
  for (bool ran = true; ran && launch_error.empty();) {
    ran = false;
    permute(order, static_cast<size_t>(n));
    for (int k = 0; k < n && launch_error.empty(); ++k) {
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
  if (launch_error.empty()) launch_error = text;
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
  while (launch_error.empty()) {
    permute(order, static_cast<size_t>(num_warps));
    for (int k = 0; k < num_warps && launch_error.empty(); ++k) run_warp(order[k]);
    if (!launch_error.empty() || num_exited == num_threads) return;
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

BlockSync* sync_of_block = block_syncs;

void set_error(const char* format, ...) {
  va_list list;
  va_start(list, format);
  set_error_list(format, list);
  va_end(list);
}

void yield() { switch_to(*current, main_stack, false); }

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

std::string run_kernel(const char* name, dim3 grid, dim3 block, size_t dynamic_shared_bytes,
                       size_t shared_limit, const std::function<void()>& body) {
  const std::lock_guard<std::mutex> hold(launch_lock);
  launch_error = check_shape(grid, block, dynamic_shared_bytes, shared_limit);
  gridDim = grid;
  blockDim = block;
  num_threads = static_cast<int>(block.x * block.y * block.z);
  const size_t num_blocks = size_t{grid.x} * grid.y * grid.z;
  kernel_body = &body;
  random_state = options.seed;
  while (launch_error.empty() && pool.size() < static_cast<size_t>(num_threads)) {
    pool.push_back(std::make_unique<Fiber>());
  }
  adopt_thread(main_stack);
  std::vector<uint32_t> order(launch_error.empty() ? num_blocks : 0);
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
    if (launch_error.empty()) launch_error = check_block_memory();
    ++stats.blocks;
    stats.threads += static_cast<uint64_t>(num_threads);
    if (!launch_error.empty()) break;
  }
  TSAN_ONLY(__tsan_acquire(&done_sync);)
  end_launch_memory();
  return launch_error.empty() ? std::string() : std::string("kernel ") + name + ": " + launch_error;
}

}  // namespace gpu_host
