// A small model on the engine's GPU device over the emulated backend library, step by step; every call may
// fail, and the first failure is kept. Run with NEARMOE_GPU_LIBRARY_PATH naming the library's folder.
#pragma once

#include <cmath>
#include <cstdio>

#include "native/runtime/gpu_device.h"
#include "tiny_model.h"

namespace nearmoe::testing {

inline int gpu_failures = 0;

inline void check(bool ok, const std::string& what) {
  if (ok) return;
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  ++gpu_failures;
}

inline DeviceOptions options_of(uint32_t units, uint32_t threads, uint32_t tp_degree, bool gpu) {
  DeviceOptions options;
  options.topology = {units, threads, tp_degree, gpu ? 1 : units * threads, gpu};
  options.gpu_backend = gpu ? "emulated" : "";
  options.pin_threads = false;
  options.kv_dtype = KvDType::F32;
  options.max_step_tokens = 64;
  options.max_logit_rows = 8;
  options.arena_bytes = size_t{1} << 26;
  return options;
}

/// A device on its way from options to logits; every call may fail.
class GpuRun {
 public:
  GpuRun(const ModelSpec& spec, const WeightFile& file, DeviceOptions options, uint32_t slots)
      : flags_(4), spec_(spec), gpu_(options.topology.gpu_lane) {
    status_ = make_compute_device(spec, std::move(options), flags_.data(), 4, &device_);
    uint32_t index = 0, got = 0;
    then([&] { return device_->start(); });
    then([&] { return device_->open_file(file.path(), &index); });
    then([&] { return device_->load_weights(file.rows()); });
    then([&] { return device_->finish_load(); });
    then([&] { return device_->allocate_kv(kTestKvBlocks); });
    if (spec_.has_states()) then([&] { return device_->allocate_states(2 * kTestKvBlocks); });
    if (gpu_) then([&] { return device_->allocate_expert_slots(slots, &got); });
    slots_ = got;
  }

  const Status& status() const { return status_; }
  uint32_t slots() const { return slots_; }
  ComputeDevice& device() { return *device_; }

  /// Tokens of one sequence of a step: they begin at `position`; its KV blocks are `first_block` and those
  /// before.
  struct Part {
    std::vector<int32_t> tokens;
    uint32_t position, first_block;
  };

  /// The logits of each part's last token; nothing after a failure.
  std::vector<float> step(const std::vector<Part>& parts) {
    const std::vector<int32_t> wire = wire_of(parts);
    std::vector<float> ropes;
    for (size_t i = 0; i < parts.size(); ++i) ropes.insert(ropes.end(), {1.0F, 1.0F, 0.3F, 0.1F, 0.03F});
    uint32_t ticket = 0;
    bool aborted = false;
    then([&] { return device_->begin_step(wire.data(), wire.size(), ropes.data(), ropes.size()); });
    if (!gpu_)
      then([&] { return device_->submit_layers(0, static_cast<uint32_t>(spec_.layers.size()), &ticket); });
    if (!gpu_) then([&] { return device_->wait(ticket, &aborted); });
    for (uint32_t layer = 0; gpu_ && layer < spec_.layers.size(); ++layer) planned_layer(layer);
    then([&] { return device_->submit_logits(0, &ticket); });
    then([&] { return device_->wait(ticket, &aborted); });
    if (!status_.ok()) return {};
    const float* logits = device_->buffers().logits;
    std::vector<float> out(logits, logits + parts.size() * spec_.vocab_size);
    device_->drain();
    return out;
  }

  /// Prefill of `prompt`, then its tokens again one by one behind it; the logits of all steps, empty after a
  /// failure.
  std::vector<float> logits(const std::vector<int32_t>& prompt) {
    std::vector<float> all = step({{prompt, 0, 3}});
    for (uint32_t i = 0; i < 3; ++i) {
      const std::vector<float> more = step({{{prompt[i]}, static_cast<uint32_t>(prompt.size()) + i, 3}});
      all.insert(all.end(), more.begin(), more.end());
    }
    return status_.ok() ? all : std::vector<float>();
  }

  /// From now on two experts of each MoE layer, 1 and 2, stay in two slots, and no others come. Otherwise
  /// every third expert stays on the units, the others take turns over the slots, and expert 0 is prefetched.
  void keep_experts() { resident_.assign(slots_, false); }

 private:
  template <class Call>
  void then(Call call) {
    if (status_.ok()) status_ = call();
  }

  /// A sequence has two slots for its states, by its first block, and goes from one to the other.
  std::vector<int32_t> wire_of(const std::vector<Part>& parts) {
    std::vector<int32_t> wire = {static_cast<int32_t>(parts.size()), 0}, blocks, ids;
    for (const Part& part : parts) {
      const auto count = static_cast<uint32_t>(part.tokens.size());
      const uint32_t num_blocks = (part.position + count + kKvBlockTokens - 1) / kKvBlockTokens;
      uint32_t source = 0, target = 0;
      if (spec_.has_states()) {
        uint32_t& last = last_state_[part.first_block];
        source = part.position > 0 ? last : 0;
        last = target = 2 * part.first_block + (last % 2 == 1 ? 2 : 1);
      }
      for (const uint32_t value : {count, part.position, 1U, 0U, num_blocks, source, target})
        wire.push_back(static_cast<int32_t>(value));
      for (uint32_t i = 0; i < num_blocks; ++i) blocks.push_back(static_cast<int32_t>(part.first_block - i));
      ids.insert(ids.end(), part.tokens.begin(), part.tokens.end());
    }
    wire[1] = static_cast<int32_t>(ids.size());
    wire.insert(wire.end(), blocks.begin(), blocks.end());
    wire.insert(wire.end(), ids.begin(), ids.end());
    return wire;
  }

  /// The slot of an expert that this layer computes on the GPU, or -1; `taken`: slots that the layer uses
  /// already.
  int32_t slot_of(uint32_t layer, uint32_t expert, uint32_t taken) const {
    if (!resident_.empty()) {
      const uint32_t slot = layer / 2 * 2 + expert - 1;
      return (expert == 1 || expert == 2) && slot < slots_ ? static_cast<int32_t>(slot) : -1;
    }
    return expert % 3 != 0 && taken + 1 < slots_ ? static_cast<int32_t>(taken) : -1;
  }

  /// Attention, then a plan.
  void planned_layer(uint32_t layer) {
    uint32_t ticket = 0;
    bool aborted = false;
    then([&] { return device_->submit_attention(layer, &ticket); });
    then([&] { return device_->wait(ticket, &aborted); });
    if (!status_.ok() || !spec_.layers[layer].ffn.is_moe) return;
    device_->take_completed_slots();
    const ExpertGroups& groups = device_->buffers().groups;
    std::vector<int32_t> plan = {static_cast<int32_t>(layer), 0};
    uint32_t taken = 0;
    for (uint32_t e = 0; e < spec_.layers[layer].ffn.num_experts; ++e) {
      if (groups.offsets[e] == groups.offsets[e + 1]) continue;
      ++plan[1];
      const int32_t slot = slot_of(layer, e, taken);
      const auto group = static_cast<int32_t>(device_->store().topology().group_of(e));
      const bool comes = slot >= 0 && (resident_.empty() || !resident_[static_cast<size_t>(slot)]);
      for (const int32_t value : {static_cast<int32_t>(e), slot >= 0 ? -1 : group, slot, comes ? 1 : 0})
        plan.push_back(value);
      if (comes && !resident_.empty()) resident_[static_cast<size_t>(slot)] = true;
      if (slot >= 0) ++taken;
    }
    then([&] { return device_->submit_experts(plan.data(), plan.size(), &ticket); });
    if (resident_.empty() && layer + 2 < spec_.layers.size())
      then([&] { return device_->submit_prefetch(layer + 2, 0, slots_ - 1); });
  }

  std::vector<std::atomic<int32_t>> flags_;
  ModelSpec spec_;
  bool gpu_;
  Status status_;
  std::unique_ptr<ComputeDevice> device_;
  uint32_t slots_ = 0;
  uint32_t last_state_[kTestKvBlocks] = {};  ///< by first block: where the sequence's state is, plus 1
  std::vector<bool> resident_;               ///< with keep_experts: slots that hold their expert
};

/// Largest difference as a share of the largest value; infinite where something is no number.
inline double error_of(const std::vector<float>& got, const std::vector<float>& expected) {
  double largest = 0, error = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double value = static_cast<double>(expected[i]),
                 off = std::fabs(static_cast<double>(got[i]) - value);
    if (std::isnan(off)) return INFINITY;
    largest = std::fmax(largest, std::fabs(value));
    error = std::fmax(error, off);
  }
  return error / largest;
}

inline std::vector<int32_t> prompt_of(uint32_t tokens) {
  std::vector<int32_t> prompt;
  for (uint32_t i = 0; i < tokens; ++i) prompt.push_back(static_cast<int32_t>(i * 7 % 75));
  return prompt;
}

}  // namespace nearmoe::testing
