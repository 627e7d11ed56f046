// Layers with norms on what their parts put out and with branches that normalise for themselves (Gemma 4).
#include <algorithm>

#include "forward.h"

namespace nearmoe {
namespace {

const std::vector<float> kNoBias;

}  // namespace

void Forward::prepare_branches(uint32_t rank, uint32_t layer, Range tokens) {
  const LayerWeights& weights = weights_.layers[layer];
  const LayerInput& experts = expert_input_of(rank, layer);
  const LayerInput& router = router_input_of(rank, layer);
  for (uint32_t t = tokens.begin; t < tokens.end; ++t) {
    const float* hidden = hidden_row(rank, t);
    const size_t at = size_t{t} * spec_.hidden_size;
    normalise(hidden, weights.expert_norm, kNoBias, experts.normed + at);
    normalise(hidden, weights.router_norm, kNoBias, router.normed + at);
  }
  prepare_rows(experts, expert_formats_[layer], tokens);
  prepare_rows(router, 1U << static_cast<unsigned>(traits(weights.router.dtype).activation), tokens);
}

/// The ranks' partial sums of one token, in rank order.
void Forward::sum_partials(const std::vector<float*>& partials, uint32_t token, float* sum) const {
  const uint32_t n = spec_.hidden_size;
  std::fill_n(sum, n, 0.0F);
  for (const float* partial : partials) ops_.add(partial + size_t{token} * n, sum, n);
}

void Forward::add_normed_attention(uint32_t layer, uint32_t token, float* hidden,
                                   RankScratch& scratch) const {
  const LayerWeights& weights = weights_.layers[layer];
  const uint32_t n = spec_.hidden_size;
  float* sum = scratch.ffn_out;
  float* normed = sum + n;
  sum_partials(buffers_.attention_partials, token, sum);
  if (!weights.output_bias.empty()) ops_.add(weights.output_bias.data(), sum, n);
  normalise(sum, weights.attention_post_norm, kNoBias, normed);
  ops_.accumulate(normed, spec_.residual_multiplier, hidden, n);
}

/// What a feed-forward part put out, before the norm on the whole of it: [H] in the scratch.
float* Forward::ffn_output(uint32_t layer, uint32_t token, RankScratch& scratch) const {
  const LayerSpec& spec = spec_.layers[layer];
  const LayerWeights& weights = weights_.layers[layer];
  const uint32_t n = spec_.hidden_size;
  const bool on_lane = topology_.gpu_lane && spec.ffn.is_moe;
  float* sum = scratch.ffn_out;  // and the row behind it, which sum_contributions works in
  float* other = sum + 2 * size_t{n};
  if (!spec.ffn.branch_norms) {
    if (on_lane && spec.ffn.shared_intermediate_size == 0) return sum_contributions(layer, token, scratch);
    sum_partials(buffers_.ffn_partials, token, other);
    if (on_lane) ops_.add(sum_contributions(layer, token, scratch), other, n);
    return other;
  }
  float* normed = sum + 3 * size_t{n};
  if (on_lane) {
    sum_contributions(layer, token, scratch);
  } else {
    sum_partials(buffers_.expert_partials, token, sum);
  }
  normalise(sum, weights.expert_post_norm, kNoBias, normed);
  sum_partials(buffers_.ffn_partials, token, sum);
  normalise(sum, weights.shared_post_norm, kNoBias, other);
  ops_.add(normed, other, n);
  return other;
}

void Forward::add_normed_ffn(uint32_t layer, uint32_t token, float* hidden, RankScratch& scratch) const {
  const LayerWeights& weights = weights_.layers[layer];
  const uint32_t n = spec_.hidden_size;
  float* normed = scratch.ffn_out;
  normalise(ffn_output(layer, token, scratch), weights.ffn_post_norm, kNoBias, normed);
  ops_.accumulate(normed, spec_.residual_multiplier, hidden, n);
}

}  // namespace nearmoe
