// rms_norm: 16 lanes of squares, the same bits as the reference.

#include "vec.h"

namespace nearmoe {
namespace {

static void rms_norm(const float* x, const float* weight, float eps, float* y, size_t n) {
  VF lanes = f_zero();
  for (size_t i = 0; i < n; i += 16) {
    const VF v = f_load_up_to(x + i, n - i);
    lanes = f_fma(v, v, lanes);
  }
  const VF scale = f_set(1.0f / std::sqrt(f_reduce_add(lanes) / static_cast<float>(n) + eps));
  for (size_t i = 0; i < n; i += 16) {
    const VF scaled = f_mul(f_load_up_to(x + i, n - i), scale);
    f_store_up_to(y + i, f_mul(f_load_up_to(weight + i, n - i), scaled), n - i);
  }
}

}  // namespace
}  // namespace nearmoe
