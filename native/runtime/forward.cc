// Steps of the forward pass outside attention and experts: embedding, residual sums, norms, logits.
#include "forward.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "clock.h"

namespace nearmoe {
namespace {

/// Rows of the head between two looks at the cancel flags; a multiple of kRowGroup.
constexpr uint32_t kLogitRows = 2048;
static_assert(kLogitRows % kRowGroup == 0);

uint32_t bit(DType dtype) { return 1U << static_cast<unsigned>(traits(dtype).activation); }

uint32_t formats_of(const SlicedMatrix& matrix) { return matrix.present() ? bit(matrix.slices[0].dtype) : 0; }

/// cap * tanh(x / cap), which bends large logits towards +-cap.
void cap_logits(float* logits, uint32_t n, float cap) {
  for (uint32_t i = 0; i < n; ++i) logits[i] = cap * std::tanh(logits[i] / cap);
}

/// hidden += multiplier * (sum of the ranks' partials + bias); partials are added in rank order.
void add_partials(const std::vector<float*>& partials, size_t offset, const std::vector<float>& bias,
                  float multiplier, uint32_t n, float* hidden) {
  // In runs of a fixed length, which the compiler turns into vectors.
  constexpr uint32_t kRun = 64;
  for (uint32_t first = 0; first < n; first += kRun) {
    const uint32_t count = std::min(kRun, n - first);
    float sum[kRun] = {};
    std::copy_n(partials[0] + offset + first, count, sum);
    for (size_t r = 1; r < partials.size(); ++r) {
      const float* partial = partials[r] + offset + first;
      for (uint32_t i = 0; i < count; ++i) sum[i] += partial[i];
    }
    if (!bias.empty()) {
      for (uint32_t i = 0; i < count; ++i) sum[i] += bias[first + i];
    }
    for (uint32_t i = 0; i < count; ++i) hidden[first + i] += multiplier * sum[i];
  }
}

}  // namespace

void project(const OpTable& ops, const SlicedMatrix& matrix, uint32_t rank, const LayerInput& input,
             uint32_t tokens, float* out, size_t ld) {
  const PackedMatrix& slice = matrix.slices[rank];
  if (slice.rows == 0) return;
  const auto format = static_cast<size_t>(traits(slice.dtype).activation);
  ops.matmul(slice, {input.prepared[format], input.stride[format], nullptr, tokens},
             out + matrix.ranges[rank].begin, ld);
}

Forward::Forward(const ModelSpec& spec, const WeightStore& store, const OpTable& ops, KvCache& kv,
                 StateCache& states, Buffers& buffers, const std::atomic<int32_t>* cancel_flags,
                 uint32_t barrier_spins)
    : spec_(spec),
      store_(store),
      weights_(store.weights()),
      topology_(store.topology()),
      ops_(ops),
      kv_(kv),
      states_(states),
      buffers_(buffers),
      cancel_flags_(cancel_flags),
      max_top_k_(std::max(spec.max_top_k(), 1U)) {
  barrier_.reset(topology_.dense_ranks, barrier_spins);
  ffn_us_.resize(spec.layers.size() * topology_.unit_ranks());
  ones_.assign(spec.max_head_dim(), 1.0F);
  for (const LayerWeights& layer : weights_.layers) {
    input_formats_.push_back(formats_of(layer.query) | formats_of(layer.key) | formats_of(layer.value) |
                             formats_of(layer.query_down) | formats_of(layer.latent_down) |
                             formats_of(layer.output_gate) | formats_of(layer.conv_gate) |
                             formats_of(layer.conv_input) | formats_of(layer.delta_beta) |
                             formats_of(layer.delta_decay));
    uint32_t ffn = formats_of(layer.dense.gate) | formats_of(layer.dense.up);
    if (layer.router.data != nullptr) ffn |= bit(layer.router.dtype);
    uint32_t experts = 0;
    for (const GatedFfn& expert : layer.experts) experts |= formats_of(expert.gate) | formats_of(expert.up);
    const bool apart = has_branches(static_cast<uint32_t>(expert_formats_.size()));
    input_formats_.push_back(apart ? ffn : ffn | experts);
    expert_formats_.push_back(experts);
  }
}

void Forward::begin_step(const Step* step) {
  step_ = step;
  for (auto* ranks : {&buffers_.unit_scratch, &buffers_.dense_scratch}) {
    for (RankScratch& scratch : *ranks) scratch.clock.reset();
  }
  for (std::atomic<bool>& seen : aborted_) seen.store(false, std::memory_order_relaxed);
  // Ranks that were left amid the logits did not count themselves.
  chosen_.store(0, std::memory_order_relaxed);
}

Range Forward::my_tokens(uint32_t rank) const {
  if (!shares_tokens()) return {0, step_->tokens};
  return split(step_->tokens, topology_.dense_ranks, 1)[rank];
}

float* Forward::hidden_row(uint32_t rank, uint32_t token) {
  float* base = shares_tokens() ? buffers_.hidden : dense_scratch(rank).hidden;
  return base + size_t{token} * spec_.hidden_size;
}

bool Forward::is_cancelled() const {
  return std::any_of(step_->sequences.begin(), step_->sequences.end(), [this](const StepSequence& sequence) {
    // Partner: the main thread's Atomics.store on the shared flag.
    return cancel_flags_[sequence.cancel_slot].load(std::memory_order_acquire) != 0;
  });
}

void Forward::meet(uint32_t rank) {
  barrier_.arrive_and_wait();
  dense_scratch(rank).clock.lap(TimedOp::Barrier);
}

bool Forward::meet_to_go_on(uint32_t rank, Part part) {
  std::atomic<bool>& seen = aborted_[static_cast<size_t>(part)];
  if (rank == 0 && is_cancelled()) seen.store(true, std::memory_order_release);
  meet(rank);
  return !seen.load(std::memory_order_acquire);
}

void Forward::embed(uint32_t token, float* out) const {
  const auto id = static_cast<uint32_t>(step_->token_ids[token]);
  const SlicedMatrix& embedding = weights_.embedding;
  for (size_t i = 0; i < embedding.slices.size(); ++i) {
    const Range range = embedding.ranges[i];
    if (id >= range.begin && id < range.end) ops_.unpack_row(embedding.slices[i], id - range.begin, out);
  }
  if (spec_.embedding_multiplier != 1) {
    for (uint32_t i = 0; i < spec_.hidden_size; ++i) out[i] *= spec_.embedding_multiplier;
  }
}

float* Forward::sum_contributions(uint32_t layer, uint32_t token, RankScratch& scratch) const {
  const FfnSpec& ffn = spec_.layers[layer].ffn;
  const uint32_t n = spec_.hidden_size;
  const size_t pair_stride = size_t{topology_.max_group_ranks()} * n;
  const size_t row = topk_offset(layer) + size_t{token} * ffn.top_k;
  float* total = scratch.ffn_out;
  float* partial = scratch.ffn_out + n;
  std::fill(total, total + n, 0.0F);
  for (uint32_t rank = 0; rank < topology_.unit_ranks(); ++rank) {
    std::fill(partial, partial + n, 0.0F);
    for (uint32_t j = 0; j < ffn.top_k; ++j) {
      const auto expert = static_cast<uint32_t>(buffers_.topk_ids[row + j]);
      const uint32_t group = topology_.group_of(expert);
      const uint32_t first = topology_.group_first_rank(group);
      if (rank < first || rank >= first + topology_.group_ranks(group)) continue;
      const uint32_t pair = buffers_.groups.pair_of[size_t{token} * ffn.top_k + j];
      const float weight = ffn.router.scales_input ? 1.0F : buffers_.topk_weights[row + j];
      ops_.accumulate(buffers_.contributions + pair * pair_stride + size_t{rank - first} * n, weight, partial,
                      n);
    }
    ops_.add(partial, total, n);
  }
  return total;
}

void Forward::add_contributions(uint32_t layer, uint32_t token, float* hidden, RankScratch& scratch) const {
  const FfnSpec& ffn = spec_.layers[layer].ffn;
  const uint32_t n = spec_.hidden_size;
  float* total = sum_contributions(layer, token, scratch);
  if (ffn.shared_intermediate_size > 0) {
    for (const float* shared : buffers_.ffn_partials) ops_.add(shared + size_t{token} * n, total, n);
  }
  ops_.accumulate(total, spec_.residual_multiplier, hidden, n);
}

void Forward::update_hidden(uint32_t layer, Part before, uint32_t token, float* hidden,
                            RankScratch& scratch) const {
  if (before == Part::Attention && layer == 0) return embed(token, hidden);
  const bool after_attention = before == Part::Ffn;
  const uint32_t own = after_attention ? layer : layer - 1;
  const LayerSpec& spec = spec_.layers[own];
  const uint32_t n = spec_.hidden_size;
  const size_t offset = size_t{token} * n;
  static const std::vector<float> kNoBias;
  if (spec.post_norms) {
    if (after_attention) return add_normed_attention(own, token, hidden, scratch);
    add_normed_ffn(own, token, hidden, scratch);
  } else if (after_attention) {
    add_partials(buffers_.attention_partials, offset, weights_.layers[own].output_bias,
                 spec_.residual_multiplier, n, hidden);
  } else if (topology_.gpu_lane && spec.ffn.is_moe) {
    add_contributions(own, token, hidden, scratch);
  } else {
    add_partials(buffers_.ffn_partials, offset, kNoBias, spec_.residual_multiplier, n, hidden);
  }
  if (after_attention || !spec.output_scale) return;
  const float scale = weights_.layers[own].layer_scale[0];
  for (uint32_t i = 0; i < n; ++i) hidden[i] *= scale;
}

void Forward::normalise(const float* x, const std::vector<float>& weight, const std::vector<float>& bias,
                        float* out) const {
  if (spec_.norm == NormKind::Rms) {
    ops_.rms_norm(x, weight.data(), spec_.norm_eps, out, spec_.hidden_size);
  } else {
    ops_.layer_norm(x, weight.data(), bias.empty() ? nullptr : bias.data(), spec_.norm_eps, out,
                    spec_.hidden_size);
  }
}

void Forward::prepare_rows(const LayerInput& input, uint32_t formats, Range rows) const {
  for (size_t f = 0; f < input.prepared.size(); ++f) {
    if ((formats >> f & 1U) == 0) continue;
    ops_.prepare_activations(static_cast<ActFormat>(f), input.normed + size_t{rows.begin} * spec_.hidden_size,
                             spec_.hidden_size, rows.size(), spec_.hidden_size,
                             input.prepared[f] + rows.begin * input.stride[f]);
  }
}

void Forward::prepare_expert_input(uint32_t layer, const float* normed, size_t stride, Range tokens) {
  const LayerInput& input = buffers_.input;
  for (size_t f = 0; f < input.prepared.size(); ++f) {
    if ((expert_formats_[layer] >> f & 1U) == 0) continue;
    ops_.prepare_activations(static_cast<ActFormat>(f), normed + tokens.begin * stride, stride, tokens.size(),
                             spec_.hidden_size, input.prepared[f] + tokens.begin * input.stride[f]);
  }
}

void Forward::prepare_input(uint32_t rank, uint32_t layer, Part part) {
  const LayerWeights& weights = weights_.layers[layer];
  const bool attention = part == Part::Attention;
  LayerInput& input = input_of(rank);
  const Range tokens = my_tokens(rank);
  for (uint32_t t = tokens.begin; t < tokens.end; ++t) {
    float* hidden = hidden_row(rank, t);
    update_hidden(layer, part, t, hidden, dense_scratch(rank));
    normalise(hidden, attention ? weights.attention_norm : weights.ffn_norm,
              attention ? weights.attention_norm_bias : weights.ffn_norm_bias,
              input.normed + size_t{t} * spec_.hidden_size);
  }
  if (!attention && has_branches(layer)) prepare_branches(rank, layer, tokens);
  prepare_rows(input, input_formats_[2 * layer + (attention ? 0 : 1)], tokens);
  dense_scratch(rank).clock.lap(TimedOp::Input);
  if (shares_tokens()) meet(rank);
}

void Forward::run_layers(uint32_t rank, uint32_t first, uint32_t end) {
  dense_scratch(rank).clock.start();
  for (uint32_t layer = first; layer < end; ++layer) {
    attention_part(rank, layer);
    if (!meet_to_go_on(rank, Part::Attention)) return;
    const double start = now_us();
    ffn_part(rank, layer);
    ffn_us_[size_t{layer} * topology_.unit_ranks() + rank] = now_us() - start;
    if (!meet_to_go_on(rank, Part::Ffn)) return;
  }
}

void Forward::run_attention_and_router(uint32_t rank, uint32_t layer) {
  dense_scratch(rank).clock.start();
  attention_part(rank, layer);
  if (!meet_to_go_on(rank, Part::Attention)) return;
  prepare_input(rank, layer, Part::Ffn);
  const FfnSpec& ffn = spec_.layers[layer].ffn;
  if (!ffn.is_moe) {
    dense_ffn(rank, layer);
    return;
  }
  route(rank, layer);
  meet(rank);
  if (rank == 0) {
    buffers_.groups.build(buffers_.topk_ids + topk_offset(layer), buffers_.topk_weights + topk_offset(layer),
                          step_->tokens, ffn.top_k, ffn.num_experts);
  }
  guess_next(rank, layer);
}

void Forward::run_logits(uint32_t rank, uint32_t candidates) {
  const auto rows = static_cast<uint32_t>(step_->logit_tokens.size());
  // Without a GPU lane this was queued behind the layers before anyone knew how they would end.
  if (rows == 0 || aborted()) return;
  const auto layers = static_cast<uint32_t>(spec_.layers.size());
  const LayerInput& input = buffers_.final_input;
  const Range mine = split(rows, topology_.dense_ranks, 1)[rank];
  OpClock& clock = dense_scratch(rank).clock;
  clock.start();
  for (uint32_t i = mine.begin; i < mine.end; ++i) {
    const uint32_t token = step_->logit_tokens[i];
    float* hidden = hidden_row(rank, token);
    update_hidden(layers, Part::Attention, token, hidden, dense_scratch(rank));
    normalise(hidden, weights_.final_norm, weights_.final_norm_bias,
              input.normed + size_t{i} * spec_.hidden_size);
  }
  prepare_rows(input, formats_of(lm_head()), mine);
  clock.lap(TimedOp::Input);
  meet(rank);
  if (!project_logits(rank)) return;
  if (candidates > 0) choose_candidates(rank, rows, candidates);
  clock.lap(TimedOp::LmHead);
}

bool Forward::project_logits(uint32_t rank) {
  const SlicedMatrix& head = lm_head();
  const PackedMatrix& slice = head.slices[rank];
  for (uint32_t first = 0; first < slice.rows; first += kLogitRows) {
    // The head may take as long as several layers. Nobody waits for another rank from here on.
    if (is_cancelled()) {
      aborted_[0].store(true, std::memory_order_release);
      return false;
    }
    logit_rows(slice, {first, std::min(first + kLogitRows, slice.rows)}, head.ranges[rank].begin);
  }
  return true;
}

void Forward::logit_rows(const PackedMatrix& slice, Range mine, uint32_t slice_begin) {
  const LayerInput& input = buffers_.final_input;
  const auto rows = static_cast<uint32_t>(step_->logit_tokens.size());
  const auto format = static_cast<size_t>(traits(slice.dtype).activation);
  PackedMatrix part = slice;
  part.data += packed_bytes(slice.dtype, mine.begin, slice.cols);
  part.rows = mine.size();
  const uint32_t begin = slice_begin + mine.begin;
  float* logits = buffers_.logits + begin;
  ops_.matmul(part, {input.prepared[format], input.stride[format], nullptr, rows}, logits, spec_.vocab_size);
  for (uint32_t i = 0; i < rows; ++i) {
    float* row = logits + size_t{i} * spec_.vocab_size;
    if (spec_.lm_head_bias) ops_.add(weights_.lm_head_bias.data() + begin, row, part.rows);
    if (spec_.logits_multiplier != 1) {
      for (uint32_t n = 0; n < part.rows; ++n) row[n] *= spec_.logits_multiplier;
    }
    if (spec_.logits_softcap > 0) cap_logits(row, part.rows, spec_.logits_softcap);
  }
}

void Forward::choose_candidates(uint32_t rank, uint32_t rows, uint32_t count) {
  const std::vector<Range>& ranges = lm_head().ranges;
  for (uint32_t i = 0; i < rows; ++i) {
    select_candidates(buffers_.logits + size_t{i} * spec_.vocab_size + ranges[rank].begin,
                      ranges[rank].size(), ranges[rank].begin, count, buffers_.rank_candidates[rank].row(i));
  }
  // acq_rel: whoever comes last sees what all others chose, and merges it.
  if (chosen_.fetch_add(1, std::memory_order_acq_rel) + 1 < topology_.dense_ranks) return;
  chosen_.store(0, std::memory_order_relaxed);
  std::vector<uint32_t> held;
  for (const Range& range : ranges) held.push_back(std::min(range.size(), count));
  std::vector<Candidates> parts(ranges.size());
  for (uint32_t i = 0; i < rows; ++i) {
    for (size_t r = 0; r < parts.size(); ++r) parts[r] = buffers_.rank_candidates[r].row(i);
    merge_candidates(parts, held.data(), count, buffers_.candidates.row(i));
  }
}

}  // namespace nearmoe
