// Rotary position embedding in place; pairs are (i, i + rotary_dim / 2) or neighbours. Products and sums
// round apart.
#include "reference.h"

namespace nearmoe::reference {

void rope(float* x, size_t heads, size_t head_dim, size_t rotary_dim, const float* cos, const float* sin,
          RopeStyle style) {
  const size_t half = rotary_dim / 2;
  for (size_t h = 0; h < heads; ++h, x += head_dim) {
    for (size_t i = 0; i < half; ++i) {
      float* first = style == RopeStyle::Neox ? x + i : x + 2 * i;
      float* second = style == RopeStyle::Neox ? x + i + half : x + 2 * i + 1;
      const float a = *first, b = *second;
      *first = a * cos[i] - b * sin[i];
      *second = b * cos[i] + a * sin[i];
    }
  }
}

}  // namespace nearmoe::reference
