#include "buffers.h"

#include <algorithm>

namespace nearmoe {
namespace {

/// Two passes over the same code: the first adds up sizes, the second hands out pointers.
class Layout {
 public:
  explicit Layout(Arena* arena) : arena_(arena) {}
  template <class T>
  void take(T*& pointer, size_t count) {
    const size_t bytes = (count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    total_ += bytes;
    if (arena_ != nullptr) pointer = reinterpret_cast<T*>(arena_->allocate(bytes));
  }
  void take_input(LayerInput& input, size_t tokens, size_t cols) {
    take(input.normed, tokens * cols);
    for (const ActFormat format : {ActFormat::F32, ActFormat::Q8}) {
      const auto index = static_cast<size_t>(format);
      input.stride[index] = activation_stride(format, cols);
      take(input.prepared[index], tokens * input.stride[index]);
    }
  }
  void take_candidates(Candidates& candidates, size_t rows) {
    take(candidates.ids, rows * kMaxCandidates);
    take(candidates.values, rows * kMaxCandidates);
  }
  size_t total() const { return total_; }

 private:
  Arena* arena_;
  size_t total_ = 0;
};

size_t largest_stride(size_t cols) {
  return std::max(activation_stride(ActFormat::F32, cols), activation_stride(ActFormat::Q8, cols));
}

/// The largest of each size over all layers.
LatentSpec max_latent(const ModelSpec& spec) {
  LatentSpec most;
  for (const LayerSpec& layer : spec.layers) {
    const LatentSpec& latent = layer.attention.latent;
    most.query_rank = std::max(most.query_rank, latent.query_rank);
    most.key_value_rank = std::max(most.key_value_rank, latent.key_value_rank);
    most.nope_dim = std::max(most.nope_dim, latent.nope_dim);
    most.rope_dim = std::max(most.rope_dim, latent.rope_dim);
  }
  return most;
}

void take_latent(Layout& layout, RankScratch& scratch, const ModelSpec& spec) {
  const LatentSpec most = max_latent(spec);
  if (most.key_value_rank == 0) return;
  size_t rows = kLatentRows;
  for (const LayerSpec& layer : spec.layers) rows = std::max<size_t>(rows, layer.attention.num_heads);
  layout.take(scratch.latent, size_t{most.query_rank} + most.row_size());
  layout.take(scratch.latent_query, rows * most.row_size());
  layout.take(scratch.latent_out, rows * most.key_value_rank);
  layout.take(scratch.latent_in,
              kLatentTokens * largest_stride(std::max(most.nope_dim, most.key_value_rank)));
}

/// The most that any layer with keys and values by head has of something.
template <class Of>
size_t most_of(const ModelSpec& spec, Of of) {
  size_t most = 0;
  for (const LayerSpec& layer : spec.layers) {
    const AttentionSpec& attention = layer.attention;
    if (!attention.is_latent && attention.num_kv_heads > 0) most = std::max(most, size_t{of(attention)});
  }
  return most;
}

void take_scratch(Layout& layout, RankScratch& scratch, const ModelSpec& spec, size_t max_tokens) {
  const size_t hidden = spec.hidden_size;
  const size_t intermediate = std::max<size_t>(spec.max_intermediate(), 1);
  layout.take(scratch.hidden, kPrivateTokens * hidden);
  layout.take_input(scratch.input, kPrivateTokens, hidden);
  if (spec.has_branch_norms()) {
    layout.take_input(scratch.expert_input, kPrivateTokens, hidden);
    layout.take_input(scratch.router_input, kPrivateTokens, hidden);
  }
  layout.take(scratch.output_in, max_tokens * largest_stride(spec.max_out_size()));
  take_latent(layout, scratch, spec);
  size_t key_dim = 0;
  for (const LayerSpec& layer : spec.layers) key_dim = std::max<size_t>(key_dim, layer.recurrent.key_dim);
  layout.take(scratch.delta_keys, max_tokens * 2 * key_dim);
  layout.take(scratch.head, 2 * size_t{spec.max_q_size()});
  const size_t group =
      most_of(spec, [](const AttentionSpec& a) { return size_t{a.heads_per_kv()} * a.head_dim; });
  layout.take(scratch.part_query, kPartTokens * group);
  layout.take(scratch.part.out, kPartTokens * group);
  layout.take(scratch.part.stats,
              kPartTokens * 2 * most_of(spec, [](const AttentionSpec& a) { return a.heads_per_kv(); }));
  layout.take(scratch.gate, kFfnTile * intermediate);
  layout.take(scratch.up, kFfnTile * intermediate);
  layout.take(scratch.ffn_mid, kFfnTile * largest_stride(intermediate));
  layout.take(scratch.ffn_out, kFfnTile * hidden);
  layout.take(scratch.router_logits, kFfnTile * std::max<size_t>(spec.max_experts(), 1));
}

}  // namespace

Status Buffers::allocate(const ModelSpec& spec, const Topology& topology, uint32_t tokens,
                         uint32_t max_logit_rows, bool lookahead) {
  max_tokens = tokens;
  guessed_tokens = topology.gpu_lane && lookahead ? std::min(tokens, kGuessedTokens) : 0;
  const size_t hidden_size = spec.hidden_size;
  const size_t pairs = size_t{tokens} * spec.max_top_k();
  norm_sums.resize(topology.dense_ranks);
  rank_candidates.resize(topology.dense_ranks);
  attention_partials.resize(topology.dense_ranks);
  ffn_partials.resize(topology.dense_ranks);
  const bool branches = spec.has_branch_norms();
  expert_partials.resize(branches && !topology.gpu_lane ? topology.dense_ranks : 0);
  unit_scratch.resize(topology.unit_ranks());
  dense_scratch.resize(topology.gpu_lane ? topology.dense_ranks : 0);
  auto lay_out = [&](Layout& layout) {
    layout.take(hidden, tokens * hidden_size);
    layout.take_input(input, tokens, hidden_size);
    if (branches) {
      layout.take_input(expert_input, tokens, hidden_size);
      layout.take_input(router_input, tokens, hidden_size);
    }
    layout.take(qkv, size_t{tokens} * spec.max_qkv_size());
    layout.take(query, size_t{tokens} * spec.max_q_size());
    layout.take(attention, size_t{tokens} * spec.max_out_size());
    if (topology.dense_ranks > 1) {
      layout.take(attention_parts.out,
                  kPartRows * most_of(spec, [](const AttentionSpec& a) { return a.head_dim; }));
      layout.take(attention_parts.stats, size_t{kPartRows} * 2);
    }
    layout.take(query_latents, size_t{tokens} * largest_stride(max_latent(spec).query_rank));
    for (float*& sums : norm_sums) layout.take(sums, size_t{tokens} * 2);
    for (float*& partial : attention_partials) layout.take(partial, tokens * hidden_size);
    for (float*& partial : ffn_partials) layout.take(partial, tokens * hidden_size);
    for (float*& partial : expert_partials) layout.take(partial, tokens * hidden_size);
    if (topology.gpu_lane) layout.take(contributions, pairs * topology.max_group_ranks() * hidden_size);
    layout.take(topk_ids, spec.layers.size() * std::max<size_t>(pairs, 1));
    layout.take(topk_weights, spec.layers.size() * std::max<size_t>(pairs, 1));
    if (guessed_tokens > 0) {
      layout.take_input(guess_input, guessed_tokens, hidden_size);
      layout.take(guess_ids, guessed_tokens * std::max<size_t>(spec.max_top_k(), 1));
      layout.take(guess_weights, guessed_tokens * std::max<size_t>(spec.max_top_k(), 1));
    }
    layout.take(logits, size_t{max_logit_rows} * spec.vocab_size);
    layout.take_input(final_input, max_logit_rows, hidden_size);
    layout.take_candidates(candidates, max_logit_rows);
    for (Candidates& part : rank_candidates) layout.take_candidates(part, max_logit_rows);
    for (RankScratch& scratch : unit_scratch) take_scratch(layout, scratch, spec, tokens);
    for (RankScratch& scratch : dense_scratch) take_scratch(layout, scratch, spec, tokens);
  };
  Layout measure(nullptr);
  lay_out(measure);
  if (!arena_.reserve(measure.total(), -1))
    return Status::error(Code::OutOfMemory, "cannot reserve activation buffers");
  Layout place(&arena_);
  lay_out(place);
  for (auto* scratches : {&unit_scratch, &dense_scratch}) {
    for (RankScratch& scratch : *scratches) {
      scratch.groups.reserve(spec.max_experts(), static_cast<uint32_t>(pairs));
      scratch.query_inverse.resize(tokens);
      scratch.key_inverse.resize(tokens);
      scratch.own_ids.resize(size_t{kPrivateTokens} * spec.max_top_k());
      scratch.own_weights.resize(size_t{kPrivateTokens} * spec.max_top_k());
    }
  }
  groups.reserve(spec.max_experts(), static_cast<uint32_t>(pairs));
  return {};
}

}  // namespace nearmoe
