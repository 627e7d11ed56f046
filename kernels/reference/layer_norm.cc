// LayerNorm in two passes; bias may be null.
#include <cmath>

#include "lanes.h"
#include "reference.h"

namespace nearmoe::reference {

void layer_norm(const float* x, const float* weight, const float* bias, float eps, float* y, size_t n) {
  float lanes[kLanes] = {};
  for (size_t i = 0; i < n; ++i) lanes[i % kLanes] += x[i];
  const float mean = add_lanes(lanes) / static_cast<float>(n);
  float squares[kLanes] = {};
  for (size_t i = 0; i < n; ++i)
    squares[i % kLanes] = std::fma(x[i] - mean, x[i] - mean, squares[i % kLanes]);
  const float scale = 1.0f / std::sqrt(add_lanes(squares) / static_cast<float>(n) + eps);
  for (size_t i = 0; i < n; ++i) {
    const float scaled = (x[i] - mean) * scale * weight[i];
    y[i] = bias ? scaled + bias[i] : scaled;
  }
}

}  // namespace nearmoe::reference
