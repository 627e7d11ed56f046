// Guesses of the next MoE layer's experts: its norm and router applied to this layer's hidden state behind
// attention, so that their slabs can be copied while this layer's experts are computed (as in Fate,
// arXiv 2502.12224). Runs at the end of a layer's attention job, on the dense ranks; changes no result.
#include "forward.h"
#include "router.h"

namespace nearmoe {

void Forward::guess_next(uint32_t rank, uint32_t layer) {
  if (step_->tokens > buffers_.guessed_tokens) return;
  uint32_t next = layer + 1;
  while (next < spec_.layers.size() && !spec_.layers[next].ffn.is_moe) ++next;
  if (next == spec_.layers.size()) return;
  const Range tokens = my_tokens(rank);
  if (tokens.begin == tokens.end) return;
  const FfnSpec& ffn = spec_.layers[next].ffn;
  const LayerWeights& weights = weights_.layers[next];
  const LayerInput& input = buffers_.guess_input;
  const auto format = static_cast<size_t>(traits(weights.router.dtype).activation);
  RankScratch& scratch = dense_scratch(rank);
  for (uint32_t t = tokens.begin; t < tokens.end; ++t) {
    normalise(hidden_row(rank, t), ffn.branch_norms ? weights.router_norm : weights.ffn_norm,
              weights.ffn_norm_bias, input.normed + size_t{t} * spec_.hidden_size);
  }
  prepare_rows(input, 1U << format, tokens);
  ops_.matmul(weights.router,
              {input.prepared[format] + tokens.begin * input.stride[format], input.stride[format], nullptr,
               tokens.size()},
              scratch.router_logits, ffn.num_experts);
  for (uint32_t i = 0; i < tokens.size(); ++i) {
    const size_t at = size_t{tokens.begin + i} * ffn.top_k;
    route_token(ffn, weights, scratch.router_logits + size_t{i} * ffn.num_experts, buffers_.guess_ids + at,
                buffers_.guess_weights + at);
  }
  scratch.clock.lap(TimedOp::Router);
}

}  // namespace nearmoe
