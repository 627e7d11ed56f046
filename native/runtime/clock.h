// Monotonic time in microseconds for observations and traces.
#pragma once

#include <chrono>

namespace nearmoe {

inline double now_us() {
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace nearmoe
