// The launchers of layers with a state in attention's place: causal convolutions (gated short convolutions,
// and before a delta rule), the gated delta rule and its norm. Conventions as in kernels.h.
#pragma once

#include "kernels.h"

namespace nearmoe::cuda {

/// Widest convolution, as in kernels/ops.h, and widest key of a delta rule.
inline constexpr uint32_t kMaxConvWidth = 16;
inline constexpr uint32_t kMaxDeltaKeyDim = 256;

/// Tokens of a step that are one sequence's, one behind the other, and the slots of its state.
struct StateSequence {
  uint32_t first_token, count;
  int32_t source;   ///< with the state before the first token; -1: zeros
  uint32_t target;  ///< for the state after the last token; nobody's source
};
/// A layer's part of the slots: that of slot s begins at data + s * slot_floats.
struct StatePool {
  float* data;
  size_t slot_floats;
};
/// What a launch works on: the sequences of the step, in device memory, and their states.
struct StateStep {
  const StateSequence* sequences;
  uint32_t num_sequences;
  const uint32_t* sequence_of;  ///< [T]: index of the token's sequence
  StatePool states;
};

// ---- causal_conv.cu

/// y[t][c] = sum over j < width of kernel[j][c] * (gate * x)[t + j - (width - 1)][c], through SiLU or
/// multiplied by output_gate where asked for. The rows before a sequence's first token are its state's
/// [width - 1][C], oldest first.
struct CausalConvArgs {
  const float* x;            ///< [T][x_stride], as gate and output_gate
  const float* gate;         ///< or null: 1
  const float* output_gate;  ///< or null: 1
  uint32_t x_stride;
  const float* kernel;  ///< [width][C]
  float* y;             ///< not x
  uint32_t y_stride;
  uint32_t tokens, channels;
  uint32_t width;  ///< 1 ... kMaxConvWidth
  bool silu;
  StateStep step;
};
cudaError_t causal_conv(const CausalConvArgs& args, cudaStream_t stream);

// ---- gated_delta.cu

/// Gated delta rule (Yang et al. 2024, arXiv 2412.06464), token by token: S = decay * S; d = beta * (v - S^T
/// k); S = S + k d^T; out = S^T q. q and k are brought to lengths 1 / sqrt(key_dim) and 1 here; beta =
/// sigmoid(its projection), decay = exp(decay_rate * softplus(its projection + decay_bias)). V value heads.
struct GatedDeltaArgs {
  const float *q, *k, *v;  ///< [T][stride]: heads side by side
  uint32_t stride;
  const float *beta, *decay;  ///< [T][gate_stride]: projections, one value for each value head
  uint32_t gate_stride;
  const float *decay_rate, *decay_bias;  ///< [V]
  uint32_t num_key_heads, num_value_heads;
  uint32_t key_dim;  ///< at most kMaxDeltaKeyDim
  uint32_t value_dim;
  bool tiled;  ///< value head v reads key head v % num_key_heads, not v / (value heads a key head has)
  float* out;  ///< [T][out_stride]: value heads side by side
  uint32_t out_stride;
  StateStep step;  ///< states [V][key_dim][value_dim]
};
cudaError_t gated_delta(const GatedDeltaArgs& args, cudaStream_t stream);

// ---- gated_norm.cu

/// x = weight * RMSNorm(x) * SiLU(gate) of each head.
struct GatedNormArgs {
  float* x;  ///< [T][stride]: heads side by side, in place
  uint32_t stride;
  const float* gate;  ///< [T][gate_stride]
  uint32_t gate_stride;
  const float* weight;  ///< [dim]
  uint32_t tokens, heads, dim;
  float eps;
};
cudaError_t gated_norm(const GatedNormArgs& args, cudaStream_t stream);

}  // namespace nearmoe::cuda
