// What this machine can do at most, measured: bytes read from memory and multiply-accumulates per second, by
// the given number of threads at once. `bench` puts its figures beside these. Needs no model, leaves nothing
// behind.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "status.h"

namespace nearmoe {

enum class Ceiling : uint8_t {
  Read,   ///< 1e9 bytes/s read from a buffer that no cache holds
  Int8,   ///< 1e9 multiply-accumulates/s on 8-bit integers with 32-bit sums, operands in registers
  Float,  ///< 1e9 fused multiply-adds/s on float32, operands in registers
};

struct CeilingOptions {
  uint32_t threads = 1;
  bool pin_threads = true;
  double time_ms = 200;            ///< of each variant that is tried
  size_t buffer_bytes = 1U << 30;  ///< Read: shared by all threads
  std::string isa;                 ///< Int8, Float: instructions of this op table
};

/// Blocks for about time_ms, for Read up to three times that and the time to commit the buffer. Fails where
/// the ISA cannot run here or the buffer cannot be had.
Status measure_ceiling(Ceiling ceiling, const CeilingOptions& options, double* rate);

}  // namespace nearmoe
