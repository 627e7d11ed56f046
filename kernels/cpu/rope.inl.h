// rope: Neox pairs in vectors; neighbouring pairs as a plain loop. Products and sums round apart, as in the
// reference.

#include "vec.h"

namespace nearmoe {
namespace {

static void rope(float* x, size_t heads, size_t head_dim, size_t rotary_dim, const float* cos,
                 const float* sin, RopeStyle style) {
  const size_t half = rotary_dim / 2;
  for (size_t h = 0; h < heads; ++h, x += head_dim) {
    if (style == RopeStyle::Neox) {
      for (size_t i = 0; i < half; i += 16) {
        const size_t n = half - i;
        const VF a = f_load_up_to(x + i, n), b = f_load_up_to(x + half + i, n);
        const VF c = f_load_up_to(cos + i, n), s = f_load_up_to(sin + i, n);
        f_store_up_to(x + i, f_sub(f_mul(a, c), f_mul(b, s)), n);
        f_store_up_to(x + half + i, f_add(f_mul(b, c), f_mul(a, s)), n);
      }
    } else {
      for (size_t i = 0; i < half; ++i) {
        const float a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = a * cos[i] - b * sin[i];
        x[2 * i + 1] = b * cos[i] + a * sin[i];
      }
    }
  }
}

}  // namespace
}  // namespace nearmoe
