// Sums in 16 lanes: element i goes to lane i % 16, lanes are added pairwise at the end. Every ISA keeps this
// order, so reductions give the same bits everywhere.
#pragma once

#include <cstddef>

namespace nearmoe::reference {

inline constexpr size_t kLanes = 16;

inline float add_lanes(float lanes[kLanes]) {
  for (size_t width = kLanes / 2; width > 0; width /= 2) {
    for (size_t i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

}  // namespace nearmoe::reference
