// Gated activation of an expert: act(gate) * up.
#include <cmath>

#include "reference.h"

namespace nearmoe::reference {

namespace {

float activate(Activation act, float x) {
  switch (act) {
    case Activation::Silu:
      return x / (1.0f + std::exp(-x));
    case Activation::GeluTanh: {
      const float inner = 0.79788456080286535588f * (x + 0.044715f * x * x * x);
      return 0.5f * x * (1.0f + std::tanh(inner));
    }
    case Activation::Gelu:
      return 0.5f * x * (1.0f + std::erf(x * 0.70710678118654752440f));
    case Activation::Sigmoid:
      return 1.0f / (1.0f + std::exp(-x));
    case Activation::Identity:
      return x;
    case Activation::SwigluClamped:
      break;  // not of the form act(gate) * up
  }
  return 0.0f;
}

float swiglu_clamped(float gate, float up) {
  // Written so that NaN passes through.
  const float g = gate > 7.0f ? 7.0f : gate;
  const float bounded = up > 7.0f ? 7.0f : up < -7.0f ? -7.0f : up;
  return g / (1.0f + std::exp(-1.702f * g)) * (bounded + 1.0f);
}

}  // namespace

void gated_activation(Activation act, const float* gate, const float* up, float* out, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    out[i] =
        act == Activation::SwigluClamped ? swiglu_clamped(gate[i], up[i]) : activate(act, gate[i]) * up[i];
  }
}

}  // namespace nearmoe::reference
