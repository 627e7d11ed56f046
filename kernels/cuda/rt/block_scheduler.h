// Runs one kernel launch on the CPU: the threads of a block as fibers, in an order of one's choosing, with
// the checks that a GPU does not make: divergent barriers, wrong masks, lanes that a shuffle reads although
// they do not take part, deadlocks. The emulated API calls run_kernel; the intrinsics call the rest from
// inside a kernel. One launch at a time in a process (run_kernel takes a lock).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "cpu_types.h"

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
inline constexpr int warpSize = 32;

namespace gpu_host {

enum class Order : uint8_t { Forward, Reverse, Random };

struct Options {
  Order order = Order::Forward;  ///< of blocks, warps and lanes
  uint64_t seed = 0;
  bool strict_exit = true;  ///< a barrier that some threads of the block never reach is an error
};
extern Options options;

struct Stats {
  uint64_t launches, blocks, threads, switches;
};
extern Stats stats;

/// Runs all blocks; returns "" or what went wrong, with file and line of the kernel.
std::string run_kernel(const char* name, dim3 grid, dim3 block, size_t dynamic_shared_bytes,
                       size_t shared_limit, const std::function<void()>& body);

/// Ends the launch with an error; from inside a kernel only.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
bool inside_kernel();

/// What the lanes in `active` bring to a collective: argument[lane].
using WarpOp = void (*)(void* const* argument, uint32_t active);
enum class Fence : bool { No, Yes };
/// A collective of the warp's lanes in `mask`: runs `op` once, when all of them have come.
void warp_op(const char* what, uint32_t mask, WarpOp op, void* argument, Fence fence, const char* file,
             int line);
enum class BlockOp : uint8_t { Sync, Count, And, Or };
/// A barrier of the block; returns the reduction of `predicate`.
int block_op(int predicate, BlockOp op, const char* file, int line);

/// The block's instance of a GPU_SHARED variable; one per site.
void* shared_variable(const void* site, size_t bytes);
void* dynamic_shared();

/// cp.async: copies that land when their group is waited for.
void async_copy(void* to, const void* from, bool zero, const char* file, int line);
/// Told of the 16 bytes that each copy reads; for tests that count them.
extern void (*async_copy_read)(const void* from);
void async_commit();
void async_wait(int groups_under_way);

/// __threadfence: atomics of this thread order memory from now on.
void set_fenced();
bool is_fenced();

/// For memory profiles.
bool in_shared_memory(const void* p);
bool on_own_stack(const void* p);

inline unsigned lane_index() {
  return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) & 31u;
}

template <class F>
inline void each_lane(uint32_t lanes, F f) {
  for (; lanes; lanes &= lanes - 1) f(std::countr_zero(lanes));
}

}  // namespace gpu_host
