// RMSNorm: y = weight * (x / sqrt(mean(x^2) + eps)).
#include <cmath>

#include "lanes.h"
#include "reference.h"

namespace nearmoe::reference {

void rms_norm(const float* x, const float* weight, float eps, float* y, size_t n) {
  float lanes[kLanes] = {};
  for (size_t i = 0; i < n; ++i) lanes[i % kLanes] = std::fma(x[i], x[i], lanes[i % kLanes]);
  const float scale = 1.0f / std::sqrt(add_lanes(lanes) / static_cast<float>(n) + eps);
  for (size_t i = 0; i < n; ++i) y[i] = weight[i] * (x[i] * scale);
}

}  // namespace nearmoe::reference
