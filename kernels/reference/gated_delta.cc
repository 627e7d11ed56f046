// Gated delta rule of one value head, one column of its state after the other.
#include <cmath>

#include "lanes.h"
#include "reference.h"

namespace nearmoe::reference {

namespace {

float dot_of(const float* a, const float* b, size_t n) {
  float lanes[kLanes] = {};
  for (size_t i = 0; i < n; ++i) lanes[i % kLanes] = std::fma(a[i], b[i], lanes[i % kLanes]);
  return add_lanes(lanes);
}

}  // namespace

void gated_delta(const GatedDeltaArgs& args) {
  const size_t key_dim = args.key_dim, size = delta_state_floats(key_dim, args.value_dim);
  for (size_t i = 0; i < size; ++i) args.state_out[i] = args.state_in != nullptr ? args.state_in[i] : 0.0f;
  for (size_t t = 0; t < args.tokens; ++t) {
    const float *q = args.q + t * args.key_stride, *k = args.k + t * args.key_stride;
    const float decay = args.decay[t * args.gate_stride], beta = args.beta[t * args.gate_stride];
    const float dot = dot_of(k, q, key_dim);
    for (size_t c = 0; c < args.value_dim; ++c) {
      float* state = args.state_out + c / kDeltaLanes * key_dim * kDeltaLanes + c % kDeltaLanes;
      float by_key = 0.0f, by_query = 0.0f;
      for (size_t i = 0; i < key_dim; ++i) {
        by_key = std::fma(state[i * kDeltaLanes], k[i], by_key);
        by_query = std::fma(state[i * kDeltaLanes], q[i], by_query);
      }
      const float delta = beta * std::fma(-decay, by_key, args.v[t * args.value_stride + c]);
      args.out[t * args.out_stride + c] = std::fma(delta, dot, decay * by_query);
      for (size_t i = 0; i < key_dim; ++i)
        state[i * kDeltaLanes] = std::fma(k[i], delta, decay * state[i * kDeltaLanes]);
    }
  }
}

}  // namespace nearmoe::reference
