// The innermost loops of the ceilings: reading memory and multiply-add instructions on registers. Each does a
// known amount of work on the calling thread; ceilings.cc times them on several threads at once.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nearmoe {

/// Reads all cache lines of [data, data + bytes) once, in `streams` runs side by side with software prefetch.
void read_lines(const std::byte* data, size_t bytes, uint32_t streams);

/// Runs `rounds` rounds and returns the multiply-accumulates done.
using MultiplyLoop = uint64_t (*)(uint64_t rounds);

/// The densest multiply-accumulate of 8-bit integers (int8) or float32 that an op table of this name uses;
/// null for tables without SIMD. The caller runs it only where that table is runnable.
MultiplyLoop multiply_loop(const char* isa, bool int8);

}  // namespace nearmoe
