// The GPU's share of a MoE layer: which kernels compute the experts that the plan gave it, in which order,
// and the units' partial sums.
#include <algorithm>
#include <cstring>

#include "context.h"
#include "native/runtime/clock.h"

namespace nearmoe::gpu {

size_t Context::plan_size(uint32_t experts, uint32_t tiles) {
  return (kMaxGroups + 1) * size_t{experts} * sizeof(int32_t) + size_t{tiles} * sizeof(cuda::ExpertTile);
}

cuda::ExpertShape Context::expert_shape(uint32_t layer) const {
  const NmGpuFfn& ffn = model_.layer(layer).ffn;
  size_t bytes = 0;
  const auto gate = static_cast<DType>(ffn.gate_dtype);
  return {gate,
          static_cast<DType>(ffn.down_dtype),
          make_view(gate, 0, model_.spec().hidden_size, 0, &bytes),
          model_.spec().hidden_size,
          ffn.hidden_cols,
          static_cast<cuda::ActivationKind>(ffn.activation)};
}

Context::Routed Context::routed(uint32_t layer, uint32_t tokens, uint32_t top_k) const {
  const NmGpuFfn& ffn = model_.layer(layer).ffn;
  Routed out{layer, tokens, top_k, std::vector<uint32_t>(ffn.num_experts), false};
  for (uint32_t pair = 0; pair < tokens * top_k; ++pair) ++out.counts[static_cast<size_t>(host_ids_[pair])];
  out.grouped = uses_gemm(static_cast<DType>(ffn.gate_dtype), tokens) &&
                uses_gemm(static_cast<DType>(ffn.down_dtype), tokens);
  return out;
}

cuda::PairRouting Context::pair_routing(const Routed& routed, const int32_t* table) const {
  const float* weights = input_scales(routed.layer) ? nullptr : weights_;
  return {slots_.views(), ids_, table, weights, routed.tokens, routed.top_k};
}

NmGpuCode Context::run_gemv_group(const Routed& routed, const int32_t* table) {
  const cuda::ExpertShape shape = expert_shape(routed.layer);
  Forms hidden = expert_input_;
  hidden.all.stride = shape.hidden_cols;
  const uint32_t form = cuda::wants_q8(shape.down_dtype) ? kInt8 : kFloat;
  return launched(
      cuda::expert_gemv(
          {shape, pair_routing(routed, table), expert_forms(routed.layer).input(), input_scales(routed.layer),
           sinks(hidden, form), expert_target(routed.layer), hidden_stride_, part_multiplier(routed.layer)},
          stream_),
      "expert_gemv");
}

NmGpuCode Context::run_gemm_group(const Routed& routed, const cuda::ExpertTile* tiles, uint32_t num_tiles,
                                  uint32_t rows) {
  const cuda::ExpertShape shape = expert_shape(routed.layer);
  Forms prepared = expert_input_;
  prepared.all.stride = shape.hidden_cols;
  return launched(
      cuda::expert_gemm(
          {shape, slots_.views(), tiles, num_tiles, lists_, routed.top_k, rows,
           expert_forms(routed.layer).input(), input_scales(routed.layer), expert_hidden_, shape.hidden_cols,
           sinks(prepared, form_of(shape.down_dtype, routed.tokens)), expert_outputs_, hidden_stride_},
          stream_),
      "expert_gemm");
}

NmGpuCode Context::combine(const Routed& routed, const int32_t* table) {
  return launched(cuda::combine({expert_target(routed.layer), hidden_stride_, model_.spec().hidden_size,
                                 pair_routing(routed, table), expert_outputs_, hidden_stride_,
                                 part_multiplier(routed.layer)},
                                stream_),
                  "combine");
}

/// The residents, then what arrives, cut so that at most kMaxGroups come out.
std::vector<Context::Group> Context::group_experts(size_t count, uint32_t num_resident) {
  std::vector<Group> groups;
  const auto total = static_cast<uint32_t>(count);
  if (num_resident > 0) groups.push_back({0, num_resident, 0, 0, 0});
  const uint32_t each = (total - num_resident + kMaxGroups - 2) / (kMaxGroups - 1);
  for (uint32_t at = num_resident; at < total; at += each)
    groups.push_back({at, std::min(at + each, total), 0, 0, 0});
  return groups;
}

/// Writes slot tables and tiles of the groups to the host's copy; returns its size.
size_t Context::write_plan(const Routed& routed, const std::vector<Placed>& experts,
                           std::vector<Group>& groups) {
  const auto num_experts = static_cast<uint32_t>(routed.counts.size());
  auto* tables = reinterpret_cast<int32_t*>(plan_host_);
  std::fill(tables, tables + (groups.size() + 1) * num_experts, -1);
  auto* tiles = reinterpret_cast<cuda::ExpertTile*>(tables + (groups.size() + 1) * num_experts);
  const uint32_t tile_tokens = cuda::expert_gemm_tile_tokens();
  uint32_t tile = 0;
  for (size_t g = 0; g < groups.size(); ++g) {
    Group& group = groups[g];
    group.first_tile = tile;
    uint32_t row = 0;
    for (uint32_t i = group.begin; i < group.end; ++i) {
      const auto [expert, slot] = experts[i];
      tables[expert] = tables[(g + 1) * num_experts + expert] = static_cast<int32_t>(slot);
      const uint32_t count = routed.counts[expert];
      for (uint32_t at = 0; routed.grouped && at < count; at += tile_tokens) {
        const uint32_t n = std::min(tile_tokens, count - at);
        tiles[tile++] = {slot, expert * options_.max_step_tokens + at, n, row};
        row += n;
      }
    }
    group.num_tiles = tile - group.first_tile;
    group.rows = row;
  }
  return static_cast<size_t>(reinterpret_cast<uint8_t*>(tiles + tile) - plan_host_);
}

NmGpuCode Context::copy_plan(size_t bytes) {
  return check(cudaMemcpyAsync(plan_device_, plan_host_, bytes, cudaMemcpyHostToDevice, stream_),
               "cudaMemcpyAsync");
}

NmGpuCode Context::wait_for(uint32_t layer, const std::vector<Placed>& experts, const Group& group) {
  for (uint32_t i = group.begin; i < group.end; ++i)
    GPU_TRY(slots_.wait_for(experts[i].slot, layer, experts[i].expert, stream_));
  return NM_GPU_OK;
}

NmGpuCode Context::mark_used(uint32_t layer, const std::vector<Placed>& experts) {
  std::vector<uint32_t> used;
  for (const Placed& placed : experts) used.push_back(placed.slot);
  return slots_.used(layer, used, stream_);
}

NmGpuCode Context::run_experts(const Routed& routed, const std::vector<Placed>& experts,
                               uint32_t num_resident) {
  if (experts.empty()) return NM_GPU_OK;
  std::vector<Group> groups = group_experts(experts.size(), num_resident);
  const auto num_experts = static_cast<uint32_t>(routed.counts.size());
  const size_t bytes = write_plan(routed, experts, groups);
  if (groups.size() == 1 && !routed.grouped) return run_few(routed, experts, bytes);
  GPU_TRY(copy_plan(bytes));
  const auto* tables = reinterpret_cast<const int32_t*>(plan_device_);
  const auto* tiles = reinterpret_cast<const cuda::ExpertTile*>(tables + (groups.size() + 1) * num_experts);
  if (routed.grouped) {
    GPU_TRY(launched(cuda::dispatch({ids_, routed.tokens, routed.top_k, num_experts, options_.max_step_tokens,
                                     lists_, counts_},
                                    stream_),
                     "dispatch"));
  }
  for (size_t g = 0; g < groups.size(); ++g) {
    const Group& group = groups[g];
    GPU_TRY(wait_for(routed.layer, experts, group));
    GPU_TRY(timeline_.begin(NM_GPU_LANE_COMPUTE, NM_GPU_EVENT_EXPERTS, static_cast<int32_t>(routed.layer),
                            stream_));
    if (!routed.grouped) {
      GPU_TRY(run_gemv_group(routed, tables + (g + 1) * num_experts));
    } else if (group.num_tiles > 0) {
      GPU_TRY(run_gemm_group(routed, tiles + group.first_tile, group.num_tiles, group.rows));
    }
    if (routed.grouped && g + 1 == groups.size()) GPU_TRY(combine(routed, tables));
    GPU_TRY(timeline_.end(stream_));
  }
  return mark_used(routed.layer, experts);
}

/// One group through the GEMV kernels, a graph: what differs from step to step is in the plan.
NmGpuCode Context::run_few(const Routed& routed, const std::vector<Placed>& experts, size_t plan_bytes) {
  GPU_TRY(wait_for(routed.layer, experts, {0, static_cast<uint32_t>(experts.size()), 0, 0, 0}));
  GPU_TRY(timeline_.begin(NM_GPU_LANE_COMPUTE, NM_GPU_EVENT_EXPERTS, static_cast<int32_t>(routed.layer),
                          stream_));
  GPU_TRY(replayed({GraphKey::Part::Experts, routed.layer, routed.tokens, routed.top_k}, [&] {
    const NmGpuCode copied = copy_plan(plan_bytes);
    const auto* tables = reinterpret_cast<const int32_t*>(plan_device_);
    return copied == NM_GPU_OK ? run_gemv_group(routed, tables + routed.counts.size()) : copied;
  }));
  GPU_TRY(timeline_.end(stream_));
  return mark_used(routed.layer, experts);
}

NmGpuCode Context::submit_experts(const NmGpuExperts& experts) {
  GPU_TRY(expect(Phase::Experts, "submit_experts"));
  const auto bad = [&](const std::string& text) {
    return failure_.fail(NM_GPU_INVALID_ARGUMENT, "submit_experts", text);
  };
  if (experts.layer + 1 != next_layer_) return bad("expected layer " + std::to_string(next_layer_ - 1));
  const NmGpuFfn& ffn = model_.layer(experts.layer).ffn;
  if (experts.num_resident > experts.count || experts.count > ffn.num_experts)
    return bad("more experts than the layer has");
  std::vector<Placed> placed;
  std::vector<bool> seen(ffn.num_experts);
  for (uint32_t i = 0; i < experts.count; ++i) {
    const auto expert = static_cast<uint32_t>(experts.expert_ids[i]);
    if (expert >= ffn.num_experts || seen[expert])
      return bad("expert " + std::to_string(expert) + " is not to be had, or comes twice");
    seen[expert] = true;
    placed.push_back({expert, static_cast<uint32_t>(experts.slots[i])});
  }
  if (model_.layer(experts.layer).post_norms) unsettled_ = experts.layer;
  if (Model::dense_size(ffn) > 0) {
    GPU_TRY(timeline_.begin(NM_GPU_LANE_COMPUTE, NM_GPU_EVENT_SHARED_EXPERT,
                            static_cast<int32_t>(experts.layer), stream_));
    GPU_TRY(replayed({GraphKey::Part::SharedExpert, experts.layer, tokens_, 0},
                     [&] { return run_dense(experts.layer); }));
    GPU_TRY(timeline_.end(stream_));
  }
  GPU_TRY(run_experts(routed(experts.layer, tokens_, ffn.top_k), placed, experts.num_resident));
  phase_ = Phase::Attention;
  return NM_GPU_OK;
}

NmGpuCode Context::add_partial(uint32_t layer, const float* partial) {
  GPU_TRY(expect(Phase::Attention, "add_partial"));
  const uint32_t hidden = model_.spec().hidden_size;
  if (layer + 1 != next_layer_ || !memory_.owns_pinned(partial, size_t{tokens_} * hidden * sizeof(float))) {
    return failure_.fail(NM_GPU_INVALID_ARGUMENT, "add_partial",
                         "expected the layer submitted last, and memory of allocate_host");
  }
  float* device = nullptr;
  GPU_TRY(
      check(cudaHostGetDevicePointer(&device, const_cast<float*>(partial), 0), "cudaHostGetDevicePointer"));
  return launched(
      cuda::add_partial(
          {expert_target(layer), hidden_stride_, hidden, tokens_, device, part_multiplier(layer)}, stream_),
      "add_partial");
}

NmGpuCode Context::measure_experts(uint32_t layer, uint32_t tokens, const int32_t* slots, uint32_t count,
                                   double* us) {
  if (failure_.sticky()) return NM_GPU_DEVICE_ERROR;
  const bool moe = layer < model_.num_layers() && model_.layer(layer).ffn.is_moe;
  if (!moe || count == 0 || tokens == 0 || tokens > options_.max_step_tokens ||
      size_t{tokens} * count > max_pairs_ || count > model_.layer(layer).ffn.num_experts) {
    return failure_.fail(NM_GPU_INVALID_ARGUMENT, "measure_experts", "layer, tokens or experts out of range");
  }
  phase_ = Phase::Idle;
  GPU_TRY(check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"));
  std::vector<Placed> placed;
  for (uint32_t i = 0; i < count; ++i)
    placed.push_back({slots_.expert_of(slots[i]), static_cast<uint32_t>(slots[i])});
  std::sort(placed.begin(), placed.end(),
            [](const Placed& a, const Placed& b) { return a.expert < b.expert; });
  for (uint32_t t = 0; t < tokens; ++t) {
    for (uint32_t i = 0; i < count; ++i) {
      host_ids_[t * count + i] = static_cast<int32_t>(placed[i].expert);
      host_weights_[t * count + i] = 1.0F;
    }
  }
  const size_t pairs = size_t{tokens} * count;
  GPU_TRY(
      check(cudaMemcpyAsync(ids_, host_ids_, pairs * 4, cudaMemcpyHostToDevice, stream_), "cudaMemcpyAsync"));
  GPU_TRY(check(cudaMemcpyAsync(weights_, host_weights_, pairs * 4, cudaMemcpyHostToDevice, stream_),
                "cudaMemcpyAsync"));
  // Zeros are as good as any input: no kernel's time depends on values.
  const cuda::ActivationSinks& x = expert_forms(layer).all;
  const size_t rows = size_t{tokens} * x.stride;
  const auto zero = [&](void* data, size_t bytes) {
    return check(cudaMemsetAsync(data, 0, bytes, stream_), "cudaMemsetAsync");
  };
  GPU_TRY(zero(expert_target(layer), size_t{tokens} * hidden_stride_ * sizeof(float)));
  GPU_TRY(zero(x.f32, rows * sizeof(float)));
  GPU_TRY(zero(x.high, rows * 2));
  GPU_TRY(zero(x.low, rows * 2));
  GPU_TRY(zero(x.q8, rows));
  GPU_TRY(zero(x.q8_meta, rows / 32 * sizeof(float2)));
  GPU_TRY(check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"));
  const double start = now_us();
  GPU_TRY(run_experts(routed(layer, tokens, count), placed, count));
  GPU_TRY(check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"));
  *us = (now_us() - start) / count;
  return NM_GPU_OK;
}

}  // namespace nearmoe::gpu
