// add: out += x.

#include "vec.h"

namespace nearmoe {
namespace {

static void add(const float* x, float* out, size_t n) {
  for (size_t i = 0; i < n; i += 16) {
    f_store_up_to(out + i, f_add(f_load_up_to(out + i, n - i), f_load_up_to(x + i, n - i)), n - i);
  }
}

}  // namespace
}  // namespace nearmoe
