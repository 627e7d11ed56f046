// The feed-forward half of a layer: routing, dense blocks and shared experts, routed experts on units or in
// VRAM.
#include <algorithm>
#include <cmath>

#include "forward.h"
#include "router.h"

namespace nearmoe {
namespace {

float sigmoid_of_dot(const std::vector<float>& weight, const float* x) {
  float sums[16] = {};
  size_t i = 0;
  for (; i + 16 <= weight.size(); i += 16) {
    for (size_t j = 0; j < 16; ++j) sums[j] += weight[i + j] * x[i + j];
  }
  float dot = 0;
  for (; i < weight.size(); ++i) dot += weight[i] * x[i];
  for (const float sum : sums) dot += sum;
  return 1.0F / (1.0F + std::exp(-dot));
}

void scale_rows(const float* scales, float* rows, uint32_t count, uint32_t n) {
  for (uint32_t i = 0; i < count; ++i) {
    for (uint32_t j = 0; j < n; ++j) rows[size_t{i} * n + j] *= scales[i];
  }
}

}  // namespace

FfnSlice expert_slice(const GatedFfn& expert, uint32_t slice, const std::byte* slab) {
  const SlicedMatrix* matrices[3] = {&expert.gate, &expert.up, &expert.down};
  FfnSlice out;
  PackedMatrix* targets[3] = {&out.gate, &out.up, &out.down};
  size_t offset = 0;
  for (uint32_t s = 0; s <= slice; ++s) {
    for (int m = 0; m < 3; ++m) {
      const PackedMatrix& source = matrices[m]->slices[s];
      if (s == slice) {
        *targets[m] = source;
        if (slab != nullptr) targets[m]->data = slab + offset;
      }
      offset += slice_bytes(source);
    }
  }
  if (!expert.gate_bias.empty()) {
    out.gate_bias = expert.gate_bias.data() + expert.gate.ranges[slice].begin;
    out.up_bias = expert.up_bias.data() + expert.up.ranges[slice].begin;
    out.down_bias = slice == 0 ? expert.down_bias.data() : nullptr;
  }
  return out;
}

size_t slab_size(const GatedFfn& expert) {
  size_t bytes = 0;
  for (const SlicedMatrix* matrix : {&expert.gate, &expert.up, &expert.down}) {
    for (const PackedMatrix& s : matrix->slices) bytes += slice_bytes(s);
  }
  return bytes;
}

void Forward::route(uint32_t rank, uint32_t layer) {
  const FfnSpec& ffn = spec_.layers[layer].ffn;
  const PackedMatrix& router = weights_.layers[layer].router;
  const LayerInput& input = router_input_of(rank, layer);
  const auto format = static_cast<size_t>(traits(router.dtype).activation);
  const Range tokens = my_tokens(rank);
  RankScratch& scratch = dense_scratch(rank);
  // Where tokens are not shared, every rank routes them all for itself and rank 0's result is the one
  // reported.
  for (uint32_t first = tokens.begin; first < tokens.end; first += kFfnTile) {
    const uint32_t count = std::min(kFfnTile, tokens.end - first);
    ops_.matmul(router,
                {input.prepared[format] + first * input.stride[format], input.stride[format], nullptr, count},
                scratch.router_logits, ffn.num_experts);
    for (uint32_t i = 0; i < count; ++i) {
      const size_t at = shares_tokens() || rank == 0 ? topk_offset(layer) + size_t{first + i} * ffn.top_k : 0;
      int32_t* ids =
          shares_tokens() || rank == 0 ? buffers_.topk_ids + at : scratch.own_ids.data() + i * ffn.top_k;
      float* weights = shares_tokens() || rank == 0 ? buffers_.topk_weights + at
                                                    : scratch.own_weights.data() + i * ffn.top_k;
      route_token(ffn, weights_.layers[layer], scratch.router_logits + size_t{i} * ffn.num_experts, ids,
                  weights);
    }
  }
  scratch.clock.lap(TimedOp::Router);
}

void Forward::add_bias(const float* bias, float* rows, uint32_t count, uint32_t n) const {
  if (bias == nullptr) return;
  for (uint32_t i = 0; i < count; ++i) ops_.add(bias, rows + size_t{i} * n, n);
}

void Forward::ffn_tile(const FfnSlice& slice, Activation activation, const LayerInput& input,
                       const uint32_t* tokens, uint32_t first, uint32_t count, RankScratch& scratch,
                       const float* input_scales) {
  const auto& [gate, up, down, gate_bias, up_bias, down_bias] = slice;
  auto view = [&](const PackedMatrix& matrix) {
    const auto format = static_cast<size_t>(traits(matrix.dtype).activation);
    const size_t stride = input.stride[format];
    const std::byte* base = input.prepared[format];
    return tokens != nullptr ? ActView{base, stride, tokens + first, count}
                             : ActView{base + first * stride, stride, nullptr, count};
  };
  ops_.matmul(gate, view(gate), scratch.gate, gate.rows);
  ops_.matmul(up, view(up), scratch.up, up.rows);
  if (input_scales != nullptr) {
    // Both products are linear in x: scaling them is scaling it.
    scale_rows(input_scales, scratch.gate, count, gate.rows);
    scale_rows(input_scales, scratch.up, count, up.rows);
  }
  add_bias(gate_bias, scratch.gate, count, gate.rows);
  add_bias(up_bias, scratch.up, count, up.rows);
  scratch.clock.lap(TimedOp::GateUp);
  ops_.gated_activation(activation, scratch.gate, scratch.up, scratch.gate, size_t{count} * gate.rows);
  const ActFormat format = traits(down.dtype).activation;
  ops_.prepare_activations(format, scratch.gate, gate.rows, count, gate.rows, scratch.ffn_mid);
  scratch.clock.lap(TimedOp::Activation);
  ops_.matmul(down, {scratch.ffn_mid, activation_stride(format, gate.rows), nullptr, count}, scratch.ffn_out,
              spec_.hidden_size);
  add_bias(down_bias, scratch.ffn_out, count, spec_.hidden_size);
  scratch.clock.lap(TimedOp::Down);
}

void Forward::dense_ffn(uint32_t rank, uint32_t layer) {
  const FfnSpec& ffn = spec_.layers[layer].ffn;
  const LayerWeights& weights = weights_.layers[layer];
  const uint32_t n = spec_.hidden_size;
  float* partial = buffers_.ffn_partials[rank];
  std::fill(partial, partial + size_t{step_->tokens} * n, 0.0F);
  if (ffn.dense_intermediate_size() == 0 || weights.dense.gate.slices[rank].rows == 0) return;
  RankScratch& scratch = dense_scratch(rank);
  const LayerInput& input = input_of(rank);
  for (uint32_t first = 0, count = 0; first < step_->tokens; first += count) {
    count = ffn_tile_size(step_->tokens - first);
    ffn_tile(expert_slice(weights.dense, rank, nullptr), ffn.activation, input, nullptr, first, count,
             scratch);
    for (uint32_t i = 0; i < count; ++i) {
      const size_t at = size_t{first + i} * n;
      const float weight = ffn.is_moe && ffn.shared_gate_sigmoid
                               ? sigmoid_of_dot(weights.shared_expert_gate, input.normed + at)
                               : 1.0F;
      ops_.accumulate(scratch.ffn_out + size_t{i} * n, weight, partial + at, n);
    }
    scratch.clock.lap(TimedOp::Combine);
  }
}

void Forward::accumulate_expert(uint32_t layer, uint32_t expert, uint32_t slice, const ExpertGroups& groups,
                                const LayerInput& input, float* partial, RankScratch& scratch) {
  const FfnSpec& ffn = spec_.layers[layer].ffn;
  const uint32_t n = spec_.hidden_size;
  const FfnSlice matrices = expert_slice(weights_.layers[layer].experts[expert], slice, nullptr);
  const uint32_t end = groups.offsets[expert + 1];
  for (uint32_t pair = groups.offsets[expert], count = 0; pair < end; pair += count) {
    count = ffn_tile_size(end - pair);
    const float* weights = groups.weights.data() + pair;
    ffn_tile(matrices, ffn.activation, input, groups.tokens.data(), pair, count, scratch,
             ffn.router.scales_input ? weights : nullptr);
    for (uint32_t i = 0; i < count; ++i) {
      ops_.accumulate(scratch.ffn_out + size_t{i} * n, ffn.router.scales_input ? 1.0F : weights[i],
                      partial + size_t{groups.tokens[pair + i]} * n, n);
    }
    scratch.clock.lap(TimedOp::Combine);
  }
}

/// No GPU lane: this rank's slice of every chosen expert of its NDP group, added to its partial sum.
void Forward::own_experts(uint32_t rank, uint32_t layer) {
  const FfnSpec& ffn = spec_.layers[layer].ffn;
  RankScratch& scratch = dense_scratch(rank);
  const bool own_routing = !shares_tokens() && rank != 0;
  scratch.groups.build(own_routing ? scratch.own_ids.data() : buffers_.topk_ids + topk_offset(layer),
                       own_routing ? scratch.own_weights.data() : buffers_.topk_weights + topk_offset(layer),
                       step_->tokens, ffn.top_k, ffn.num_experts);
  const ExpertGroups& groups = scratch.groups;
  float* partial = buffers_.ffn_partials[rank];
  if (ffn.branch_norms) {
    partial = buffers_.expert_partials[rank];
    std::fill_n(partial, size_t{step_->tokens} * spec_.hidden_size, 0.0F);
  }
  for (uint32_t e = 0; e < ffn.num_experts; ++e) {
    const uint32_t group = topology_.group_of(e);
    const uint32_t first_rank = topology_.group_first_rank(group);
    const bool mine = rank >= first_rank && rank < first_rank + topology_.group_ranks(group);
    if (!mine || groups.offsets[e] == groups.offsets[e + 1]) continue;
    const GatedFfn& expert = weights_.layers[layer].experts[e];
    const uint32_t slice = rank - first_rank;
    if (expert.gate.slices[slice].rows == 0) continue;
    accumulate_expert(layer, e, slice, groups, expert_input_of(rank, layer), partial, scratch);
  }
}

void Forward::ffn_part(uint32_t rank, uint32_t layer) {
  prepare_input(rank, layer, Part::Ffn);
  const FfnSpec& ffn = spec_.layers[layer].ffn;
  if (ffn.is_moe) {
    route(rank, layer);
    if (shares_tokens()) meet(rank);
  }
  dense_ffn(rank, layer);
  if (ffn.is_moe) own_experts(rank, layer);
}

void Forward::contribute(uint32_t layer, uint32_t expert, uint32_t slice, const FfnSlice& matrices,
                         RankScratch& scratch) {
  const FfnSpec& ffn = spec_.layers[layer].ffn;
  const ExpertGroups& groups = buffers_.groups;
  const uint32_t n = spec_.hidden_size;
  const size_t pair_stride = size_t{topology_.max_group_ranks()} * n;
  const uint32_t end = groups.offsets[expert + 1];
  for (uint32_t pair = groups.offsets[expert], count = 0; pair < end; pair += count) {
    count = ffn_tile_size(end - pair);
    float* out = buffers_.contributions + pair * pair_stride + size_t{slice} * n;
    if (matrices.gate.rows == 0) {
      for (uint32_t i = 0; i < count; ++i) std::fill(out + i * pair_stride, out + i * pair_stride + n, 0.0F);
      continue;
    }
    ffn_tile(matrices, ffn.activation, shared_expert_input(layer), groups.tokens.data(), pair, count, scratch,
             ffn.router.scales_input ? groups.weights.data() + pair : nullptr);
    for (uint32_t i = 0; i < count; ++i) {
      const float* y = scratch.ffn_out + size_t{i} * n;
      std::copy(y, y + n, out + i * pair_stride);
    }
    scratch.clock.lap(TimedOp::Combine);
  }
}

void Forward::run_gpu_experts(uint32_t rank, uint32_t layer, const std::vector<ExpertTask>& tasks) {
  buffers_.dense_scratch[rank].clock.start();
  for (const ExpertTask& task : tasks) {
    const GatedFfn& expert = weights_.layers[layer].experts[task.expert];
    for (uint32_t slice = rank; slice < expert.gate.slices.size(); slice += topology_.dense_ranks) {
      contribute(layer, task.expert, slice, expert_slice(expert, slice, task.slab),
                 buffers_.dense_scratch[rank]);
    }
  }
}

void Forward::run_unit_experts(uint32_t unit_rank, uint32_t layer, const std::vector<ExpertTask>& tasks) {
  buffers_.unit_scratch[unit_rank].clock.start();
  for (const ExpertTask& task : tasks) {
    const uint32_t group = topology_.group_of(task.expert);
    const uint32_t first = topology_.group_first_rank(group);
    if (unit_rank < first || unit_rank >= first + topology_.group_ranks(group)) continue;
    const GatedFfn& expert = weights_.layers[layer].experts[task.expert];
    contribute(layer, task.expert, unit_rank - first, expert_slice(expert, unit_rank - first, nullptr),
               buffers_.unit_scratch[unit_rank]);
  }
}

void Forward::run_unit_partial(uint32_t unit_rank, uint32_t layer, const std::vector<ExpertTask>& tasks,
                               float* partial) {
  buffers_.unit_scratch[unit_rank].clock.start();
  std::fill(partial, partial + size_t{step_->tokens} * spec_.hidden_size, 0.0F);
  for (const ExpertTask& task : tasks) {
    const uint32_t group = topology_.group_of(task.expert);
    const uint32_t first = topology_.group_first_rank(group);
    if (unit_rank < first || unit_rank >= first + topology_.group_ranks(group)) continue;
    const uint32_t slice = unit_rank - first;
    if (weights_.layers[layer].experts[task.expert].gate.slices[slice].rows == 0) continue;
    accumulate_expert(layer, task.expert, slice, buffers_.groups, buffers_.input, partial,
                      buffers_.unit_scratch[unit_rank]);
  }
}

}  // namespace nearmoe
