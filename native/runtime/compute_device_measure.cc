// Timing of expert work, transfers and memory with the loaded weights: what the cost model starts from.
#include <algorithm>
#include <memory>

#include "clock.h"
#include "compute_device.h"

namespace nearmoe {
namespace {

/// Experts timed in one go: enough that decode-sized work does not run from cache.
constexpr uint32_t kMeasuredExperts = 8;

}  // namespace

uint32_t ComputeDevice::first_moe_layer() const {
  uint32_t layer = 0;
  while (layer < spec_.layers.size() && !spec_.layers[layer].ffn.is_moe) ++layer;
  return layer;
}

/// Every token routed to the first `experts` experts of NDP group 0, with a smooth made-up input.
void ComputeDevice::fake_routing(uint32_t layer, uint32_t tokens, uint32_t experts) {
  const FfnSpec& ffn = spec_.layers[layer].ffn;
  std::vector<int32_t> ids;
  for (uint32_t t = 0; t < tokens; ++t) {
    for (uint32_t e = 0; e < experts; ++e)
      ids.push_back(static_cast<int32_t>(e * options_.topology.groups()));
  }
  const std::vector<float> weights(ids.size(), 1.0F);
  buffers_.groups.build(ids.data(), weights.data(), tokens, experts, ffn.num_experts);
  LayerInput& input = ffn.branch_norms ? buffers_.expert_input : buffers_.input;
  const size_t n = spec_.hidden_size;
  for (size_t i = 0; i < tokens * n; ++i) input.normed[i] = static_cast<float>(i % 13) * 0.1F - 0.6F;
  for (size_t f = 0; f < input.prepared.size(); ++f) {
    if (static_cast<ActFormat>(f) == ActFormat::Q8 && n % 32 != 0) continue;
    ops_->prepare_activations(static_cast<ActFormat>(f), input.normed, n, tokens, n, input.prepared[f]);
  }
}

Status ComputeDevice::measure_experts(bool on_gpu, uint32_t tokens, double* us) {
  const uint32_t layer = first_moe_layer();
  if (layer == spec_.layers.size()) return Status::error(Code::InvalidArgument, "no MoE layer to measure");
  if (Status s = check_loaded(true); !s.ok()) return s;
  const FfnSpec& ffn = spec_.layers[layer].ffn;
  const Topology& topology = options_.topology;
  const uint32_t experts = std::min({kMeasuredExperts, ffn.top_k, ffn.num_experts / topology.groups()});
  if (tokens == 0 || tokens > options_.max_step_tokens || experts == 0) {
    return Status::error(Code::InvalidArgument, "measureExperts: token count or expert count out of range");
  }
  drain();
  fake_routing(layer, tokens, experts);
  // All of one NDP group, so that the result is the time an expert takes on its group.
  std::vector<ExpertTask> tasks;
  for (uint32_t i = 0; i < experts; ++i) tasks.push_back({i * topology.groups(), nullptr});
  const double start = now_us();
  if (on_gpu) {
    submit_dense(TraceEvent::Kind::Experts, static_cast<int32_t>(layer),
                 [this, layer, &tasks](uint32_t rank) { forward_->run_gpu_experts(rank, layer, tasks); });
  } else {
    submit_units(TraceEvent::Kind::Experts, static_cast<int32_t>(layer),
                 [this, layer, &tasks](uint32_t rank) { forward_->run_unit_experts(rank, layer, tasks); });
  }
  drain();
  *us = (now_us() - start) / experts;
  step_ = {};
  return {};
}

Status ComputeDevice::measure_transfer(double* us) {
  const uint32_t layer = first_moe_layer();
  if (transfers_ == nullptr || slots_.empty() || layer == spec_.layers.size()) {
    return Status::error(Code::InvalidArgument, "nothing to measure: no VRAM slots");
  }
  transfers_->drain();
  const double start = now_us();
  if (Status s = queue_transfer(layer, 0, 0, true); !s.ok()) return s;
  transfers_->drain();
  *us = now_us() - start;
  slots_[0] = {};
  collect_transfers();
  completed_slots_.clear();
  return {};
}

}  // namespace nearmoe
