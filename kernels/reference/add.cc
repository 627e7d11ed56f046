// out += x.
#include "reference.h"

namespace nearmoe::reference {

void add(const float* x, float* out, size_t n) {
  for (size_t i = 0; i < n; ++i) out[i] += x[i];
}

}  // namespace nearmoe::reference
