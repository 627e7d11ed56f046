// A small random MoE model for native tests: a spec, a file with its weights, and devices loaded from it.
#pragma once

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "native/runtime/compute_device.h"

namespace nearmoe::testing {

inline ModelSpec tiny_spec() {
  ModelSpec spec;
  spec.hidden_size = 40;
  spec.vocab_size = 75;
  spec.norm_eps = 1e-6F;
  spec.ropes.push_back({RopeStyle::Neox, 8});
  for (int i = 0; i < 3; ++i) {
    LayerSpec layer;
    layer.attention.num_heads = 6;
    layer.attention.num_kv_heads = 3;
    layer.attention.head_dim = 8;
    layer.attention.qk_norm = QkNorm::Head;
    layer.attention.scale = 0.35F;
    layer.attention.rope = 0;
    layer.ffn.is_moe = i != 1;
    layer.ffn.intermediate_size = 20;
    if (layer.ffn.is_moe) {
      layer.ffn.num_experts = 7;
      layer.ffn.top_k = 3;
      layer.ffn.router.norm_topk_prob = true;
      layer.ffn.shared_intermediate_size = i == 2 ? 12 : 0;
      layer.ffn.shared_gate_sigmoid = i == 2;
    }
    spec.layers.push_back(layer);
  }
  return spec;
}

/// A delta net, gated attention, a short convolution.
inline ModelSpec recurrent_spec() {
  ModelSpec spec = tiny_spec();
  RecurrentSpec& delta = spec.layers[0].recurrent;
  delta.kind = RecurrentKind::GatedDelta;
  delta.conv_width = 4;
  delta.num_key_heads = 2;
  delta.num_value_heads = 4;
  delta.key_dim = 6;
  delta.value_dim = 10;
  spec.layers[1].attention.output_gate = true;
  RecurrentSpec& conv = spec.layers[2].recurrent;
  conv.kind = RecurrentKind::ShortConv;
  conv.conv_width = 3;
  conv.channels = spec.hidden_size;
  spec.layers[0].attention = spec.layers[2].attention = {};
  return spec;
}

/// The kinds of attention, router and experts that tiny_spec lacks.
inline ModelSpec mixed_spec() {
  ModelSpec spec = tiny_spec();
  for (const size_t i : {size_t{0}, size_t{2}}) {
    AttentionSpec& attention = spec.layers[i].attention;
    attention.is_latent = true;
    attention.latent = {i == 0 ? 20U : 0U, 12, 6, 8, 5};
    attention.head_dim = 14;
    attention.num_kv_heads = 1;
    attention.qk_norm = QkNorm::None;
  }
  spec.layers[1].attention.sinks = true;
  spec.layers[1].attention.sliding_window = 9;
  FfnSpec& grouped = spec.layers[0].ffn;
  grouped.num_experts = 8;
  grouped.router.scoring = Scoring::Sigmoid;
  grouped.router.selection_bias = true;
  grouped.router.num_groups = 4;
  grouped.router.chosen_groups = 2;
  grouped.router.group_score = GroupScore::TopTwoSum;
  grouped.router.weight_multiplier = 2.5F;
  FfnSpec& biased = spec.layers[2].ffn;
  biased.router.scoring = Scoring::TopkSoftmax;
  biased.router.logit_bias = true;
  biased.expert_bias = true;
  biased.activation = Activation::SwigluClamped;
  biased.shared_intermediate_size = 0;
  biased.shared_gate_sigmoid = false;
  return spec;
}

/// Gemma 4's wide heads, norms behind the parts of a layer and branches, Llama 4's chunks, temperatures and
/// weights on inputs.
inline ModelSpec normed_spec() {
  ModelSpec spec = tiny_spec();
  spec.logits_softcap = 5;
  for (size_t i = 0; i < 3; ++i) {
    LayerSpec& layer = spec.layers[i];
    layer.post_norms = layer.output_scale = i != 2;
    layer.attention.qk_norm = i == 2 ? QkNorm::HeadUnit : QkNorm::Head;
    layer.attention.keys_as_values = layer.attention.value_norm = i == 0;
  }
  spec.layers[0].attention.head_dim = 260;
  FfnSpec& branches = spec.layers[0].ffn;
  branches.branch_norms = true;
  branches.shared_intermediate_size = 9;
  branches.router.expert_scale = true;
  branches.router.logit_multiplier = 0.4F;
  spec.layers[1].attention.chunk_size = 16;
  spec.layers[2].attention.temperature_scale = 0.2F;
  spec.layers[2].attention.temperature_floor = 4;
  spec.layers[2].attention.rope = -1;
  spec.layers[2].ffn.router.scoring = Scoring::TopkSigmoid;
  spec.layers[2].ffn.router.scales_input = true;
  return spec;
}

/// Sizes that formats with blocks of 256 columns can hold; three superblocks do not divide over two ranks.
inline ModelSpec superblock_spec() {
  ModelSpec spec = tiny_spec();
  spec.hidden_size = 256;
  for (LayerSpec& layer : spec.layers) {
    layer.attention.num_heads = 32;
    layer.attention.num_kv_heads = 2;
    layer.ffn.intermediate_size = 768;
    if (layer.ffn.shared_intermediate_size > 0) layer.ffn.shared_intermediate_size = 256;
  }
  return spec;
}

/// Writes float weights for a spec to a file in the load table's order; removes the file at the end.
class WeightFile {
 public:
  explicit WeightFile(const ModelSpec& spec) {
    std::string name = "/tmp/nearmoe-test-XXXXXX";
    const int fd = mkstemp(name.data());
    if (fd < 0) std::abort();
    path_ = name;
    file_ = fdopen(fd, "wb");
    const auto hidden = spec.hidden_size;
    add(Role::Embedding, -1, -1, spec.vocab_size, hidden);
    add(Role::FinalNorm, -1, -1, 1, hidden);
    add(Role::LmHead, -1, -1, spec.vocab_size, hidden);
    for (size_t i = 0; i < spec.layers.size(); ++i)
      add_layer(spec.layers[i], static_cast<int32_t>(i), hidden);
    std::fclose(file_);
  }
  ~WeightFile() { std::remove(path_.c_str()); }
  WeightFile(const WeightFile&) = delete;
  WeightFile& operator=(const WeightFile&) = delete;

  const std::string& path() const { return path_; }
  const std::vector<LoadRow>& rows() const { return rows_; }

 private:
  void add_layer(const LayerSpec& layer, int32_t i, uint32_t hidden) {
    const AttentionSpec& a = layer.attention;
    add(Role::AttentionNorm, i, -1, 1, hidden);
    add(Role::FfnNorm, i, -1, 1, hidden);
    if (layer.recurrent.present()) {
      add_recurrent(layer.recurrent, i, hidden);
    } else if (a.is_latent) {
      add_latent(a, i, hidden);
    } else {
      add(Role::Query, i, -1, a.q_size(), hidden);
      add(Role::Key, i, -1, a.kv_size(), hidden);
      if (!a.keys_as_values) add(Role::Value, i, -1, a.kv_size(), hidden);
      add(Role::Output, i, -1, hidden, a.q_size());
      if (a.qk_norm == QkNorm::Head) add(Role::QueryNorm, i, -1, 1, a.head_dim);
      if (a.qk_norm == QkNorm::Head) add(Role::KeyNorm, i, -1, 1, a.head_dim);
      if (a.output_gate) add(Role::OutputGate, i, -1, a.q_size(), hidden);
    }
    if (a.sinks) add(Role::AttentionSinks, i, -1, 1, a.num_heads);
    add_norms(layer, i, hidden);
    const FfnSpec& ffn = layer.ffn;
    if (!ffn.is_moe) return add_ffn(Role::Gate, Role::Up, Role::Down, i, -1, ffn.intermediate_size, hidden);
    add(Role::Router, i, -1, ffn.num_experts, hidden);
    if (ffn.router.logit_bias) add(Role::RouterBias, i, -1, 1, ffn.num_experts);
    if (ffn.router.selection_bias) add(Role::RouterSelectionBias, i, -1, 1, ffn.num_experts);
    for (uint32_t e = 0; e < ffn.num_experts; ++e) {
      const auto expert = static_cast<int32_t>(e);
      add_ffn(Role::ExpertGate, Role::ExpertUp, Role::ExpertDown, i, expert, ffn.intermediate_size, hidden);
      if (!ffn.expert_bias) continue;
      add(Role::ExpertGateBias, i, expert, 1, ffn.intermediate_size);
      add(Role::ExpertUpBias, i, expert, 1, ffn.intermediate_size);
      add(Role::ExpertDownBias, i, expert, 1, hidden);
    }
    if (ffn.shared_intermediate_size == 0) return;
    add_ffn(Role::SharedGate, Role::SharedUp, Role::SharedDown, i, -1, ffn.shared_intermediate_size, hidden);
    if (ffn.shared_gate_sigmoid) add(Role::SharedExpertGate, i, -1, 1, hidden);
  }
  void add_norms(const LayerSpec& layer, int32_t i, uint32_t hidden) {
    if (layer.post_norms) {
      for (const Role role : {Role::AttentionPostNorm, Role::FfnPostNorm}) add(role, i, -1, 1, hidden);
    }
    if (layer.ffn.branch_norms) {
      for (const Role role : {Role::SharedPostNorm, Role::ExpertNorm, Role::ExpertPostNorm, Role::RouterNorm})
        add(role, i, -1, 1, hidden);
    }
    if (layer.ffn.router.expert_scale) add(Role::RouterExpertScale, i, -1, 1, layer.ffn.num_experts);
    if (layer.output_scale) add(Role::LayerScale, i, -1, 1, 1);
  }
  void add_recurrent(const RecurrentSpec& r, int32_t i, uint32_t hidden) {
    add(Role::ConvKernel, i, -1, r.conv_channels(), r.conv_width);
    add(Role::OutputGate, i, -1, r.out_size(), hidden);
    add(Role::Output, i, -1, hidden, r.out_size());
    if (r.kind == RecurrentKind::ShortConv) {
      add(Role::ConvGate, i, -1, r.channels, hidden);
      add(Role::ConvInput, i, -1, r.channels, hidden);
      return;
    }
    add(Role::Query, i, -1, r.keys_size(), hidden);
    add(Role::Key, i, -1, r.keys_size(), hidden);
    add(Role::Value, i, -1, r.values_size(), hidden);
    add(Role::DeltaBeta, i, -1, r.num_value_heads, hidden);
    add(Role::DeltaDecay, i, -1, r.num_value_heads, hidden);
    add(Role::DeltaDecayRate, i, -1, 1, r.num_value_heads);
    rows_.back().transform = Transform::NegativeExp;
    add(Role::DeltaDecayBias, i, -1, 1, r.num_value_heads);
    add(Role::DeltaNorm, i, -1, 1, r.value_dim);
  }
  void add_latent(const AttentionSpec& a, int32_t i, uint32_t hidden) {
    const LatentSpec& latent = a.latent;
    if (latent.query_rank > 0) {
      add(Role::QueryDown, i, -1, latent.query_rank, hidden);
      add(Role::QueryNorm, i, -1, 1, latent.query_rank);
    }
    add(Role::Query, i, -1, a.q_size(), latent.query_rank > 0 ? latent.query_rank : hidden);
    add(Role::Output, i, -1, hidden, a.out_size());
    add(Role::LatentDown, i, -1, latent.row_size(), hidden);
    add(Role::KeyNorm, i, -1, 1, latent.key_value_rank);
    for (uint32_t head = 0; head < a.num_heads; ++head) {
      add(Role::KeyUp, i, static_cast<int32_t>(head), latent.key_value_rank, latent.nope_dim);
      add(Role::ValueUp, i, static_cast<int32_t>(head), latent.value_dim, latent.key_value_rank);
    }
  }
  void add_ffn(Role gate, Role up, Role down, int32_t layer, int32_t expert, uint32_t size, uint32_t hidden) {
    add(gate, layer, expert, size, hidden);
    add(up, layer, expert, size, hidden);
    add(down, layer, expert, hidden, size);
  }
  void add(Role role, int32_t layer, int32_t expert, uint32_t rows, uint32_t cols) {
    rows_.push_back({role, layer, expert, 0, offset_, DType::F32, rows, cols});
    std::normal_distribution<float> normal(rows == 1 ? 1.0F : 0.0F, 0.3F);
    for (uint32_t i = 0; i < rows * cols; ++i) {
      const float value = normal(random_);
      if (std::fwrite(&value, sizeof value, 1, file_) != 1) std::abort();
    }
    offset_ += uint64_t{rows} * cols * sizeof(float);
  }

  std::string path_;
  std::FILE* file_ = nullptr;
  std::vector<LoadRow> rows_;
  uint64_t offset_ = 0;
  std::mt19937 random_{7};
};

struct Sequence {
  std::vector<int32_t> tokens;
  uint32_t position = 0;
  std::vector<int32_t> blocks;
  int32_t cancel_slot = 0;
  int32_t state_source = -1;
  int32_t state_target = -1;
};

inline constexpr uint32_t kTestKvBlocks = 48;
inline constexpr uint32_t kTestStepTokens = 1200;
inline constexpr uint32_t kTestSlots = 4;
inline constexpr uint32_t kTestStates = 6;

/// A loaded device with its cancel flags. With `quantised`, matrices are made-up blocks of that format
/// instead.
class TestDevice {
 public:
  TestDevice(const ModelSpec& spec, const WeightFile& file, Topology topology, DType quantised = DType::F32)
      : flags_(4) {
    DeviceOptions options;
    options.slice_cols = traits(quantised).slice_cols;
    options.topology = topology;
    options.pin_threads = false;
    options.kv_dtype = KvDType::F32;
    options.max_step_tokens = kTestStepTokens;
    options.max_logit_rows = 8;
    options.arena_bytes = size_t{1} << 26;
    device_ =
        std::make_unique<ComputeDevice>(spec, options, flags_.data(), static_cast<uint32_t>(flags_.size()));
    uint32_t index = 0;
    must(device_->start());
    if (quantised == DType::F32) {
      must(device_->open_file(file.path(), &index));
      must(device_->load_weights(file.rows()));
    } else {
      must(device_->open_synthetic(size_t{1} << 26, &index));
      must(device_->load_weights(requantised(file.rows(), quantised)));
    }
    must(device_->finish_load());
    must(device_->allocate_kv(kTestKvBlocks));
    if (spec.has_states()) must(device_->allocate_states(kTestStates));
    uint32_t slots = 0;
    if (topology.gpu_lane) must(device_->allocate_expert_slots(kTestSlots, &slots));
  }

  static std::vector<LoadRow> requantised(std::vector<LoadRow> rows, DType dtype) {
    uint64_t offset = 0;
    for (LoadRow& row : rows) {
      if (row.rows > 1 && row.role != Role::Router) row.dtype = dtype;
      row.offset = offset;
      offset += (source_bytes(row.dtype, row.rows, row.cols) + 63) / 64 * 64;
    }
    return rows;
  }

  ComputeDevice* operator->() { return device_.get(); }
  std::atomic<int32_t>& flag(size_t slot) { return flags_[slot]; }

  static void must(const Status& status) {
    if (status.ok()) return;
    std::fprintf(stderr, "unexpected error: %s %s\n", code_name(status.code), status.message.c_str());
    std::exit(1);
  }

  Status begin(const std::vector<Sequence>& sequences) {
    std::vector<int32_t> wire = {static_cast<int32_t>(sequences.size()), 0};
    std::vector<float> ropes;
    for (const Sequence& s : sequences) {
      wire[1] += static_cast<int32_t>(s.tokens.size());
      wire.insert(wire.end(),
                  {static_cast<int32_t>(s.tokens.size()), static_cast<int32_t>(s.position), 1, s.cancel_slot,
                   static_cast<int32_t>(s.blocks.size()), 1 + s.state_source, 1 + s.state_target});
      ropes.insert(ropes.end(), {1.0F, 1.0F, 0.3F, 0.1F, 0.03F});
    }
    for (const Sequence& s : sequences) wire.insert(wire.end(), s.blocks.begin(), s.blocks.end());
    for (const Sequence& s : sequences) wire.insert(wire.end(), s.tokens.begin(), s.tokens.end());
    return device_->begin_step(wire.data(), wire.size(), ropes.data(), ropes.size());
  }

 private:
  std::vector<std::atomic<int32_t>> flags_;
  std::unique_ptr<ComputeDevice> device_;
};

}  // namespace nearmoe::testing
