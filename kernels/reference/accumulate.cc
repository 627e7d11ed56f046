// out += weight * x with one rounding.
#include <cmath>

#include "reference.h"

namespace nearmoe::reference {

void accumulate(const float* x, float weight, float* out, size_t n) {
  for (size_t i = 0; i < n; ++i) out[i] = std::fma(weight, x[i], out[i]);
}

}  // namespace nearmoe::reference
