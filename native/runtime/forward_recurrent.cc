// Layers with a state in attention's place: gated delta nets (Yang et al. 2024, arXiv 2412.06464) and gated
// short convolutions. Tokens are computed one after the other, from the state in one slot to the state in
// another, so that results do not depend on how a sequence is cut into steps. See forward.h.
#include <algorithm>
#include <cmath>

#include "forward.h"

namespace nearmoe {
namespace {

/// x scaled to length `length`.
void scale_to(const float* x, uint32_t n, float length, float* out) {
  constexpr float kEps = 1e-6F;  // the reference code's, whatever the config says
  float sums[16] = {};
  uint32_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (uint32_t j = 0; j < 16; ++j) sums[j] += x[i + j] * x[i + j];
  }
  float sum = 0;
  for (; i < n; ++i) sum += x[i] * x[i];
  for (const float part : sums) sum += part;
  const float factor = length / std::sqrt(sum + kEps);
  for (uint32_t j = 0; j < n; ++j) out[j] = x[j] * factor;
}

float softplus(float x) {
  constexpr float kLinear = 20;  // from here on the same in float32
  return x > kLinear ? x : std::log1p(std::exp(x));
}

}  // namespace

void Forward::recurrent_part(uint32_t rank, uint32_t layer) {
  prepare_input(rank, layer, Part::Attention);
  OpClock& clock = dense_scratch(rank).clock;
  if (spec_.layers[layer].recurrent.kind == RecurrentKind::ShortConv) {
    short_conv(rank, layer);
  } else {
    const bool aligned = store_.heads_aligned(layer);
    project_delta(rank, layer);
    if (!aligned) meet(rank);
    delta_heads(rank, layer);
    if (!aligned) meet(rank);
  }
  project_output(rank, layer);
  clock.lap(TimedOp::Output);
}

void Forward::convolve(uint32_t layer, const StepSequence& sequence, uint32_t column, Range channels,
                       bool silu) {
  const RecurrentSpec& spec = spec_.layers[layer].recurrent;
  if (channels.size() == 0) return;
  const size_t ld = spec.projected_size();
  CausalConvArgs args;
  args.y = buffers_.qkv + sequence.first_token * ld + column;
  args.x = args.y;
  args.x_stride = args.y_stride = ld;
  args.tokens = sequence.count;
  args.channels = channels.size();
  args.width = spec.conv_width;
  args.kernel = weights_.layers[layer].conv_kernel.data() + channels.begin;
  args.kernel_stride = args.state_stride = spec.conv_channels();
  if (sequence.first_position > 0)
    args.state_in = states_.conv(sequence.state_source, layer) + channels.begin;
  args.state_out = states_.conv(sequence.state_target, layer) + channels.begin;
  args.silu = silu;
  ops_.causal_conv(args);
}

/// This rank's channels, from the projections to the gated output.
void Forward::short_conv(uint32_t rank, uint32_t layer) {
  const LayerWeights& weights = weights_.layers[layer];
  const uint32_t channels = spec_.layers[layer].recurrent.channels;
  const LayerInput& input = input_of(rank);
  RankScratch& scratch = dense_scratch(rank);
  const size_t ld = size_t{channels} * 3;
  const Range mine = weights.conv_input.ranges[rank];
  float *gate = buffers_.qkv, *x = gate + channels, *output_gate = x + channels;
  project(ops_, weights.conv_gate, rank, input, step_->tokens, gate, ld);
  project(ops_, weights.conv_input, rank, input, step_->tokens, x, ld);
  project(ops_, weights.output_gate, rank, input, step_->tokens, output_gate, ld);
  scratch.clock.lap(TimedOp::Qkv);
  for (uint32_t t = 0; t < step_->tokens; ++t) {
    const size_t at = t * ld + mine.begin;
    ops_.gated_activation(Activation::Identity, gate + at, x + at, x + at, mine.size());
  }
  for (const StepSequence& sequence : step_->sequences)
    convolve(layer, sequence, channels + mine.begin, mine, false);
  for (uint32_t t = 0; t < step_->tokens; ++t) {
    const size_t at = t * ld + mine.begin;
    ops_.gated_activation(Activation::Identity, output_gate + at, x + at,
                          buffers_.attention + size_t{t} * channels + mine.begin, mine.size());
  }
  scratch.clock.lap(TimedOp::Attention);
}

/// This rank's rows of all projections, those of q, k and v through the convolution.
void Forward::project_delta(uint32_t rank, uint32_t layer) {
  const LayerWeights& weights = weights_.layers[layer];
  const RecurrentSpec& spec = spec_.layers[layer].recurrent;
  const LayerInput& input = input_of(rank);
  const size_t ld = spec.projected_size();
  RankScratch& scratch = dense_scratch(rank);
  float* gate = buffers_.qkv + spec.conv_channels();
  float* beta = gate + spec.values_size();
  const SlicedMatrix* convolved[] = {&weights.query, &weights.key, &weights.value};
  for (uint32_t i = 0; i < 3; ++i)
    project(ops_, *convolved[i], rank, input, step_->tokens, buffers_.qkv + i * spec.keys_size(), ld);
  project(ops_, weights.output_gate, rank, input, step_->tokens, gate, ld);
  project(ops_, weights.delta_beta, rank, input, step_->tokens, beta, ld);
  project(ops_, weights.delta_decay, rank, input, step_->tokens, beta + spec.num_value_heads, ld);
  scratch.clock.lap(TimedOp::Qkv);
  for (const StepSequence& sequence : step_->sequences) {
    for (uint32_t i = 0; i < 3; ++i) {
      const Range rows = convolved[i]->ranges[rank];
      const uint32_t first = i * spec.keys_size();
      convolve(layer, sequence, first + rows.begin, {first + rows.begin, first + rows.end}, true);
    }
  }
  scratch.clock.lap(TimedOp::Rope);
}

void Forward::delta_heads(uint32_t rank, uint32_t layer) {
  const RecurrentSpec& spec = spec_.layers[layer].recurrent;
  const Range heads = store_.value_heads(layer)[rank];
  RankScratch& scratch = dense_scratch(rank);
  for (const StepSequence& sequence : step_->sequences) {
    uint32_t ready = spec.num_key_heads;  // key head whose q and k are normalised
    for (uint32_t head = heads.begin; head < heads.end; ++head) {
      if (spec.key_head(head) != ready) {
        ready = spec.key_head(head);
        ready_delta_keys(layer, sequence, ready, scratch);
      }
      delta_head(layer, sequence, head, scratch);
    }
  }
  scratch.clock.lap(TimedOp::Attention);
}

/// q and k of a key head, normalised, side by side for each token.
void Forward::ready_delta_keys(uint32_t layer, const StepSequence& sequence, uint32_t key_head,
                               RankScratch& scratch) const {
  const RecurrentSpec& spec = spec_.layers[layer].recurrent;
  const uint32_t n = spec.key_dim;
  const float query_length = 1.0F / std::sqrt(static_cast<float>(n));
  for (uint32_t i = 0; i < sequence.count; ++i) {
    const float* q = buffers_.qkv + size_t{sequence.first_token + i} * spec.projected_size() + key_head * n;
    float* ready = scratch.delta_keys + size_t{i} * 2 * n;
    scale_to(q, n, query_length, ready);
    scale_to(q + spec.keys_size(), n, 1.0F, ready + n);
  }
}

/// One value head of one sequence: gates, the delta rule, norm and output gate.
void Forward::delta_head(uint32_t layer, const StepSequence& sequence, uint32_t head, RankScratch& scratch) {
  const LayerWeights& weights = weights_.layers[layer];
  const RecurrentSpec& spec = spec_.layers[layer].recurrent;
  const uint32_t n = spec.value_dim;
  const size_t ld = spec.projected_size(), out_ld = spec.values_size();
  float* row = buffers_.qkv + sequence.first_token * ld;
  float* gate = row + spec.conv_channels() + size_t{head} * n;
  float* beta = row + spec.conv_channels() + spec.values_size() + head;
  float* decay = beta + spec.num_value_heads;
  for (uint32_t i = 0; i < sequence.count; ++i) {
    float &b = beta[i * ld], &d = decay[i * ld];
    b = 1.0F / (1.0F + std::exp(-b));
    d = std::exp(weights.decay_rate[head] * softplus(d + weights.decay_bias[head]));
  }
  GatedDeltaArgs args;
  args.q = scratch.delta_keys;
  args.k = args.q + spec.key_dim;
  args.key_stride = size_t{2} * spec.key_dim;
  args.v = row + 2 * spec.keys_size() + size_t{head} * n;
  args.value_stride = args.gate_stride = ld;
  args.decay = decay;
  args.beta = beta;
  args.tokens = sequence.count;
  args.key_dim = spec.key_dim;
  args.value_dim = n;
  if (sequence.first_position > 0) args.state_in = states_.delta(sequence.state_source, layer, head);
  args.state_out = states_.delta(sequence.state_target, layer, head);
  args.out = buffers_.attention + sequence.first_token * out_ld + size_t{head} * n;
  args.out_stride = out_ld;
  ops_.gated_delta(args);
  for (uint32_t i = 0; i < sequence.count; ++i) {
    float* out = args.out + i * out_ld;
    ops_.rms_norm(out, weights.delta_norm.data(), spec_.norm_eps, out, n);
    ops_.gated_activation(Activation::Silu, gate + i * ld, out, out, n);
  }
}

}  // namespace nearmoe
