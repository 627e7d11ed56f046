// Barriers, shuffles, votes and shared memory for the CPU emulation. The names are CUDA's; file and line of
// the caller travel along for messages.
#pragma once

#include <cstring>
#include <type_traits>

#include "block_scheduler.h"

#define GPU_SHARED(T, name, ...)                                     \
  static char name##_site_;                                          \
  auto& name = *reinterpret_cast<std::add_pointer_t<T __VA_ARGS__>>( \
      gpu_host::shared_variable(&name##_site_, sizeof(T __VA_ARGS__)))
#define GPU_DYN_SHARED(T, name) T* const name = static_cast<T*>(gpu_host::dynamic_shared())
#define GPU_SITE const char *file_ = __builtin_FILE(), int line_ = __builtin_LINE()

namespace gpu_host {

template <class T>
struct ShuffleArgument {
  T value;
  int source;
};

template <class T>
T shuffle(unsigned mask, T value, int source, const char* file, int line) {
  ShuffleArgument<T> argument{value, source};
  const auto exchange = [](void* const* lanes, uint32_t active) {
    T out[32];
    each_lane(active, [&](int i) {
      const int from = static_cast<ShuffleArgument<T>*>(lanes[i])->source;
      if (!(active >> from & 1)) fail("shuffle: lane %d reads lane %d, which does not take part", i, from);
      out[i] = static_cast<ShuffleArgument<T>*>(lanes[from])->value;
    });
    each_lane(active, [&](int i) { static_cast<ShuffleArgument<T>*>(lanes[i])->value = out[i]; });
  };
  warp_op("shuffle", mask, exchange, &argument, Fence::No, file, line);
  return argument.value;
}

struct VoteArgument {
  unsigned long long value;
  unsigned out;
};

}  // namespace gpu_host

// NOLINTBEGIN: the names are CUDA's.
inline void __syncthreads(GPU_SITE) { gpu_host::block_op(0, gpu_host::BlockOp::Sync, file_, line_); }
inline int __syncthreads_count(int p, GPU_SITE) {
  return gpu_host::block_op(p, gpu_host::BlockOp::Count, file_, line_);
}
inline int __syncthreads_and(int p, GPU_SITE) {
  return gpu_host::block_op(p, gpu_host::BlockOp::And, file_, line_);
}
inline int __syncthreads_or(int p, GPU_SITE) {
  return gpu_host::block_op(p, gpu_host::BlockOp::Or, file_, line_);
}

inline void __syncwarp(unsigned mask = ~0u, GPU_SITE) {
  gpu_host::warp_op(
      "__syncwarp", mask, [](void* const*, uint32_t) {}, nullptr, gpu_host::Fence::Yes, file_, line_);
}

template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, GPU_SITE) {
  const int lane = static_cast<int>(gpu_host::lane_index());
  return gpu_host::shuffle(mask, value, (lane & ~(width - 1)) | (source & (width - 1)), file_, line_);
}

template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, GPU_SITE) {
  const int lane = static_cast<int>(gpu_host::lane_index()), source = lane ^ bits;
  return gpu_host::shuffle(mask, value, source > (lane | (width - 1)) ? lane : source, file_, line_);
}

template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, GPU_SITE) {
  const int lane = static_cast<int>(gpu_host::lane_index()), source = lane + static_cast<int>(delta);
  return gpu_host::shuffle(mask, value, source > (lane | (width - 1)) ? lane : source, file_, line_);
}

template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, GPU_SITE) {
  const int lane = static_cast<int>(gpu_host::lane_index()), source = lane - static_cast<int>(delta);
  return gpu_host::shuffle(mask, value, source < (lane & ~(width - 1)) ? lane : source, file_, line_);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, GPU_SITE) {
  gpu_host::VoteArgument argument{predicate != 0, 0};
  const auto vote = [](void* const* lanes, uint32_t active) {
    unsigned votes = 0;
    gpu_host::each_lane(active, [&](int i) {
      votes |= static_cast<unsigned>(static_cast<gpu_host::VoteArgument*>(lanes[i])->value) << i;
    });
    gpu_host::each_lane(active, [&](int i) { static_cast<gpu_host::VoteArgument*>(lanes[i])->out = votes; });
  };
  gpu_host::warp_op("ballot", mask, vote, &argument, gpu_host::Fence::No, file_, line_);
  return argument.out;
}

inline int __any_sync(unsigned mask, int predicate, GPU_SITE) {
  return __ballot_sync(mask, predicate, file_, line_) != 0;
}
inline int __all_sync(unsigned mask, int predicate, GPU_SITE) {
  return __ballot_sync(mask, !predicate, file_, line_) == 0;
}

template <class T>
inline unsigned __match_any_sync(unsigned mask, T value, GPU_SITE) {
  gpu_host::VoteArgument argument{0, 0};
  std::memcpy(&argument.value, &value, sizeof value);
  const auto match = [](void* const* lanes, uint32_t active) {
    gpu_host::each_lane(active, [&](int i) {
      auto* mine = static_cast<gpu_host::VoteArgument*>(lanes[i]);
      gpu_host::each_lane(active, [&](int j) {
        mine->out |= unsigned{static_cast<gpu_host::VoteArgument*>(lanes[j])->value == mine->value} << j;
      });
    });
  };
  gpu_host::warp_op("match_any", mask, match, &argument, gpu_host::Fence::No, file_, line_);
  return argument.out;
}
// NOLINTEND
