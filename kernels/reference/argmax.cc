// Index of the largest value; NaN never wins.
#include <cmath>

#include "reference.h"

namespace nearmoe::reference {

uint32_t argmax(const float* x, size_t n) {
  uint32_t best = 0;
  float largest = -INFINITY;  // NaN never wins
  for (size_t i = 0; i < n; ++i) {
    if (x[i] > largest) {
      largest = x[i];
      best = static_cast<uint32_t>(i);
    }
  }
  return best;
}

}  // namespace nearmoe::reference
