// gated_delta: kDeltaPanels x 16 columns of the state at a time, small enough to stay in the first-level
// cache while the tokens pass; the update for one token and the sums for the next share one walk over the
// state. The same bits as the reference.

#include "vec.h"

namespace nearmoe {
namespace {

static float delta_dot(const float* a, const float* b, size_t n) {
  VF lanes = f_zero();
  for (size_t i = 0; i < n; i += 16)
    lanes = f_fma(f_load_up_to(a + i, n - i), f_load_up_to(b + i, n - i), lanes);
  return f_reduce_add(lanes);
}

/// S^T k and S^T q of some columns of the state.
template <size_t kPanels>
struct DeltaSums {
  VF by_key[kPanels], by_query[kPanels];

  NEARMOE_LAMBDA_INLINE void clear() {
    for (size_t p = 0; p < kPanels; ++p) by_key[p] = by_query[p] = f_zero();
  }
  NEARMOE_LAMBDA_INLINE void add(size_t p, VF state, VF k, VF q) {
    by_key[p] = f_fma(state, k, by_key[p]);
    by_query[p] = f_fma(state, q, by_query[p]);
  }
};

/// S = fma(k, delta, decay * S), and with kNext the sums of the new state with the next token's k and q.
template <size_t kPanels, bool kNext>
NEARMOE_INLINE void delta_update(const GatedDeltaArgs& args, size_t t, const float* in, float* out,
                                 const VF* delta, DeltaSums<kPanels>& sums) {
  const size_t panel = args.key_dim * kDeltaLanes;
  const float* k = args.k + t * args.key_stride;
  const float *next_k = k + args.key_stride, *next_q = args.q + (t + 1) * args.key_stride;
  const VF decay = f_set(args.decay[t * args.gate_stride]);
  sums.clear();
  for (size_t i = 0; i < args.key_dim; ++i) {
    const VF key = f_set(k[i]);
    VF following_key = f_zero(), following_query = f_zero();
    if constexpr (kNext) {
      following_key = f_set(next_k[i]);
      following_query = f_set(next_q[i]);
    }
    // Panels lie a multiple of 4 KiB apart: a load behind a store at the same offset would wait for it.
    VF state[kPanels];
    for (size_t p = 0; p < kPanels; ++p) state[p] = f_mul(decay, f_load(in + p * panel + i * kDeltaLanes));
    for (size_t p = 0; p < kPanels; ++p) {
      state[p] = f_fma(key, delta[p], state[p]);
      f_store(out + p * panel + i * kDeltaLanes, state[p]);
      if constexpr (kNext) sums.add(p, state[p], following_key, following_query);
    }
  }
}

/// All tokens for kPanels x 16 columns from panel `first` on.
template <size_t kPanels>
static void delta_panels(const GatedDeltaArgs& args, size_t first) {
  const size_t panel = args.key_dim * kDeltaLanes, column = first * kDeltaLanes;
  float* out = args.state_out + first * panel;
  const float* in = args.state_in != nullptr ? args.state_in + first * panel : out;
  if (args.state_in == nullptr) std::memset(out, 0, kPanels * panel * sizeof(float));
  DeltaSums<kPanels> sums;
  sums.clear();
  for (size_t i = 0; i < args.key_dim; ++i) {
    const VF k = f_set(args.k[i]), q = f_set(args.q[i]);
    for (size_t p = 0; p < kPanels; ++p) sums.add(p, f_load(in + p * panel + i * kDeltaLanes), k, q);
  }
  for (size_t t = 0; t < args.tokens; ++t, in = out) {
    const VF decay = f_set(args.decay[t * args.gate_stride]), beta = f_set(args.beta[t * args.gate_stride]);
    const VF dot = f_set(delta_dot(args.k + t * args.key_stride, args.q + t * args.key_stride, args.key_dim));
    VF delta[kPanels];
    for (size_t p = 0; p < kPanels; ++p) {
      const size_t c = column + p * kDeltaLanes, n = args.value_dim - c;
      const VF v = f_load_up_to(args.v + t * args.value_stride + c, n);
      delta[p] = f_mul(beta, f_fma(f_neg(decay), sums.by_key[p], v));
      const VF result = f_fma(delta[p], dot, f_mul(decay, sums.by_query[p]));
      f_store_up_to(args.out + t * args.out_stride + c, result, n);
    }
    if (t + 1 < args.tokens) {
      delta_update<kPanels, true>(args, t, in, out, delta, sums);
    } else {
      delta_update<kPanels, false>(args, t, in, out, delta, sums);
    }
  }
}

static void gated_delta(const GatedDeltaArgs& args) {
  const size_t panels = (args.value_dim + kDeltaLanes - 1) / kDeltaLanes;
  size_t first = 0;
  for (; first + kDeltaPanels <= panels; first += kDeltaPanels) delta_panels<kDeltaPanels>(args, first);
  for (; first < panels; ++first) delta_panels<1>(args, first);
}

}  // namespace
}  // namespace nearmoe
