// accumulate: out += weight * x, one rounding.

#include "vec.h"

namespace nearmoe {
namespace {

static void accumulate(const float* x, float weight, float* out, size_t n) {
  const VF scale = f_set(weight);
  for (size_t i = 0; i < n; i += 16) {
    f_store_up_to(out + i, f_fma(scale, f_load_up_to(x + i, n - i), f_load_up_to(out + i, n - i)), n - i);
  }
}

}  // namespace
}  // namespace nearmoe
