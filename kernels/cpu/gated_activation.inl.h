// gated_activation: act(gate) * up with the vector exp and erf of vec.h; within tolerance of the reference.

#include "vec.h"

namespace nearmoe {
namespace {

/// x * sigmoid(s)
NEARMOE_INLINE VF times_sigmoid(VF x, VF s) { return f_div(x, f_add(f_set(1.0f), f_exp(f_neg(s)))); }

template <Activation kAct>
NEARMOE_INLINE VF activate(VF x) {
  if constexpr (kAct == Activation::Silu) return times_sigmoid(x, x);
  if constexpr (kAct == Activation::Sigmoid) return times_sigmoid(f_set(1.0f), x);
  if constexpr (kAct == Activation::Identity) return x;
  if constexpr (kAct == Activation::GeluTanh) {
    // 0.5 (1 + tanh u) = sigmoid(2u), u = sqrt(2 / pi) (x + 0.044715 x^3)
    const VF cube = f_mul(f_mul(x, x), x);
    return times_sigmoid(x, f_mul(f_set(1.5957691216057308f), f_fma(f_set(0.044715f), cube, x)));
  }
  const VF half = f_mul(f_set(0.5f), x);
  return f_fma(half, f_erf(f_mul(x, f_set(0.70710678118654752f))), half);
}

NEARMOE_INLINE VF swiglu_clamped(VF gate, VF up) {
  const VF g = f_min(f_set(7.0f), gate);
  const VF bounded = f_max(f_set(-7.0f), f_min(f_set(7.0f), up));
  return f_mul(times_sigmoid(g, f_mul(f_set(1.702f), g)), f_add(bounded, f_set(1.0f)));
}

template <Activation kAct>
static void gated(const float* gate, const float* up, float* out, size_t n) {
  for (size_t i = 0; i < n; i += 16) {
    const VF g = f_load_up_to(gate + i, n - i), u = f_load_up_to(up + i, n - i);
    VF value;
    if constexpr (kAct == Activation::SwigluClamped) {
      value = swiglu_clamped(g, u);
    } else {
      value = f_mul(activate<kAct>(g), u);
    }
    f_store_up_to(out + i, value, n - i);
  }
}

static void gated_activation(Activation act, const float* gate, const float* up, float* out, size_t n) {
  switch (act) {
    case Activation::Silu:
      return gated<Activation::Silu>(gate, up, out, n);
    case Activation::GeluTanh:
      return gated<Activation::GeluTanh>(gate, up, out, n);
    case Activation::Gelu:
      return gated<Activation::Gelu>(gate, up, out, n);
    case Activation::SwigluClamped:
      return gated<Activation::SwigluClamped>(gate, up, out, n);
    case Activation::Sigmoid:
      return gated<Activation::Sigmoid>(gate, up, out, n);
    case Activation::Identity:
      return gated<Activation::Identity>(gate, up, out, n);
  }
}

}  // namespace
}  // namespace nearmoe
