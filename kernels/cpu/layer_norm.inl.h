// layer_norm: mean, then squares of the differences, in 16 lanes each; the same bits as the reference.

#include "vec.h"

namespace nearmoe {
namespace {

static void layer_norm(const float* x, const float* weight, const float* bias, float eps, float* y,
                       size_t n) {
  const auto count = static_cast<float>(n);
  VF lanes = f_zero();
  for (size_t i = 0; i < n; i += 16) lanes = f_add(lanes, f_load_up_to(x + i, n - i));
  const VF mean = f_set(f_reduce_add(lanes) / count);
  VF squares = f_zero();
  for (size_t i = 0; i < n; i += 16) {
    VF difference = f_sub(f_load_up_to(x + i, n - i), mean);
    if (n - i < 16) {  // the lanes beyond n hold -mean
      float tail[16];
      f_store(tail, difference);
      difference = f_load_n(tail, n - i);
    }
    squares = f_fma(difference, difference, squares);
  }
  const VF scale = f_set(1.0f / std::sqrt(f_reduce_add(squares) / count + eps));
  for (size_t i = 0; i < n; i += 16) {
    const VF normal = f_mul(f_sub(f_load_up_to(x + i, n - i), mean), scale);
    VF out = f_mul(normal, f_load_up_to(weight + i, n - i));
    if (bias) out = f_add(out, f_load_up_to(bias + i, n - i));
    f_store_up_to(y + i, out, n - i);
  }
}

}  // namespace
}  // namespace nearmoe
