// The innermost loops of the ceilings: reading memory and multiply-add instructions on registers. Each does a
// known amount of work on the calling thread; ceilings.cc times them on several threads at once.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nearmoe {

/// The cache that lines are prefetched to.
enum class Nearness : uint8_t { L1, L2 };

/// How memory is read: in so many runs side by side, with software prefetch.
struct ReadPattern {
  uint32_t streams;
  Nearness prefetch_to;
};

/// Reads all cache lines of [data, data + bytes) once.
void read_lines(const std::byte* data, size_t bytes, ReadPattern pattern);

/// Runs `rounds` rounds and returns the multiply-accumulates done.
using MultiplyLoop = uint64_t (*)(uint64_t rounds);

/// The densest multiply-accumulate of 8-bit integers (int8) or float32 that an op table of this name uses;
/// null for tables without SIMD. The caller runs it only where that table is runnable.
MultiplyLoop multiply_loop(const char* isa, bool int8);

}  // namespace nearmoe
