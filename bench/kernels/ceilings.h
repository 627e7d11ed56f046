// What the machine can do at best: sequential reads from memory and multiply-add instructions on registers.
// Each function does a known amount of work on the calling thread; main.cc times them beside the kernels.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nearmoe::bench {

/// Reads bytes [0, n) once, in four streams with software prefetch (the fastest pattern found); n >= 1 KB.
void read_memory(const std::byte* data, size_t n);

struct ComputeCeiling {
  const char* isa;   ///< table it belongs to
  const char* unit;  ///< "int8" or "f32"
  /// Runs `rounds` rounds and returns the multiply-adds done.
  uint64_t (*run)(uint64_t rounds);
};
/// Ceilings of instruction sets compiled in; the caller runs those whose table is runnable.
size_t compute_ceilings(const ComputeCeiling** out);

}  // namespace nearmoe::bench
