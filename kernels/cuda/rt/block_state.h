// The launch under way: the fibers of the block that runs, their warps, and the first error. Shared by the
// block scheduler, the collectives and the asynchronous copies; nobody else includes it.
#pragma once

#include <string>

#include "block_scheduler.h"
#include "fiber.h"

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

namespace gpu_host {

inline constexpr unsigned kMaxThreads = 1024;
inline constexpr int kMaxAsyncCopies = 128;

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

/// `launch_error` says why; thrown and caught on the scheduler's stack only.
struct LaunchFailed {};

// What TSan is told to synchronise on; it sees no order in a fiber switch. Blocks synchronise on addresses of
// their own (addresses only, nothing is stored there), else a barrier would order a block after those that
// ran before it.
struct BlockSync {
  char barrier[2], warp[kMaxThreads / 32][2];
};

// All of this belongs to the launch under way; run_kernel holds a lock meanwhile.
extern Fiber* fibers[kMaxThreads];  ///< of the block under way
extern Fiber* current;              ///< null outside of a kernel
extern Warp warps[kMaxThreads / 32];
extern int num_threads, num_exited;
extern int barrier_phase;
extern BlockSync* sync_of_block;
extern std::string launch_error;  ///< the first one

/// Records an error without leaving the caller; the first one stays.
void set_error(const char* format, ...) __attribute__((format(printf, 1, 2)));
/// Leaves the fiber that runs until the scheduler comes back to it.
void yield();
/// A lane returned: it may have been the last one that others of its warp waited for.
void complete_waiting(int warp);
/// All threads wait at a barrier or are done: checks that it is the same one, and opens it.
void release_block();

}  // namespace gpu_host
