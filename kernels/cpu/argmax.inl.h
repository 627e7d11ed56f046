// argmax: the largest value in vectors, then its first index. NaN never wins.

#include "vec.h"

namespace nearmoe {
namespace {

static uint32_t argmax(const float* x, size_t n) {
  const VF lowest = f_set(-INFINITY);
  VF best = lowest;
  size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const VF v = f_load(x + i);
    best = f_select_less(best, v, v, best);
  }
  float largest = f_reduce_max(best);
  for (; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  if (largest == -INFINITY) return 0;
  for (i = 0; i < n; ++i) {
    if (x[i] == largest) return static_cast<uint32_t>(i);
  }
  return 0;
}

}  // namespace
}  // namespace nearmoe
