// How a model comes to the GPU: its description, the dense weights, memory for KV cache and experts.
#include <algorithm>
#include <string>

#include "gpu_device.h"

namespace nearmoe {
namespace {

constexpr uint32_t kMaxExpertSlices = 64;

Status unsupported(const std::string& what) {
  return Status::error(Code::Gpu, "the GPU kernels do not do " + what + "; load the model with gpu 'off'");
}

uint32_t hidden_cols(const GatedFfn& expert) {
  uint32_t cols = 0;
  for (const PackedMatrix& slice : expert.gate.slices) cols += (slice.rows + 31) / 32 * 32;
  return cols;
}

NmGpuAttention describe(const AttentionSpec& spec) {
  NmGpuAttention out{};
  out.num_heads = spec.num_heads;
  out.num_kv_heads = spec.num_kv_heads;
  out.head_dim = spec.head_dim;
  out.qk_norm = static_cast<uint32_t>(spec.qk_norm);
  out.clip_qkv = spec.clip_qkv;
  out.scale = spec.scale;
  out.sliding_window = spec.sliding_window;
  out.rope = spec.rope;
  out.sinks = spec.sinks;
  out.chunk_size = spec.chunk_size;
  out.temperature_scale = spec.temperature_scale;
  out.temperature_floor = spec.temperature_floor;
  out.value_norm = spec.value_norm;
  out.keys_as_values = spec.keys_as_values;
  out.output_gate = spec.output_gate;
  const LatentSpec& latent = spec.latent;
  if (spec.is_latent)
    out.latent = {latent.query_rank, latent.key_value_rank, latent.nope_dim, latent.rope_dim,
                  latent.value_dim};
  return out;
}

NmGpuRecurrent describe(const RecurrentSpec& spec) {
  return {static_cast<uint32_t>(spec.kind),
          spec.conv_width,
          spec.channels,
          spec.num_key_heads,
          spec.num_value_heads,
          spec.key_dim,
          spec.value_dim,
          spec.tiled};
}

NmGpuFfn describe(const FfnSpec& spec, const LayerWeights& weights) {
  NmGpuFfn out{};
  out.is_moe = spec.is_moe;
  out.activation = static_cast<uint32_t>(spec.activation);
  out.intermediate_size = spec.intermediate_size;
  if (!spec.is_moe) return out;
  out.num_experts = spec.num_experts;
  out.top_k = spec.top_k;
  out.router = {static_cast<uint32_t>(spec.router.scoring),
                spec.router.norm_topk_prob,
                spec.router.jitter_eps,
                spec.router.selection_bias,
                spec.router.num_groups,
                spec.router.chosen_groups,
                static_cast<uint32_t>(spec.router.group_score),
                spec.router.weight_multiplier,
                spec.router.logit_multiplier,
                spec.router.expert_scale,
                spec.router.scales_input};
  out.branch_norms = spec.branch_norms;
  out.expert_bias = spec.expert_bias;
  out.shared_intermediate_size = spec.shared_intermediate_size;
  out.shared_gate_sigmoid = spec.shared_gate_sigmoid;
  out.gate_dtype = static_cast<uint32_t>(weights.experts[0].gate.slices[0].dtype);
  out.down_dtype = static_cast<uint32_t>(weights.experts[0].down.slices[0].dtype);
  for (const GatedFfn& expert : weights.experts)
    out.hidden_cols = std::max(out.hidden_cols, hidden_cols(expert));
  return out;
}

/// What the units can compute and the GPU's kernels cannot.
Status check_supported(const ModelSpec& spec, const Topology& topology) {
  if (topology.max_group_ranks() > kMaxExpertSlices) {
    return unsupported("experts cut over more than 64 threads (here " +
                       std::to_string(topology.max_group_ranks()) + ")");
  }
  for (const LayerSpec& layer : spec.layers) {
    const RouterSpec& router = layer.ffn.router;
    if (router.logit_multiplier != 1 && router.logit_bias)
      return unsupported("a bias on multiplied router logits");
  }
  return {};
}

}  // namespace

NmGpuMatrix gpu_matrix(const PackedMatrix& m) {
  return {m.data, slice_bytes(m), m.rows, m.cols, static_cast<uint32_t>(m.dtype), m.col_begin};
}

Status make_compute_device(ModelSpec spec, DeviceOptions options, const std::atomic<int32_t>* cancel_flags,
                           uint32_t cancel_slots, std::unique_ptr<ComputeDevice>* device) {
  if (options.gpu_backend.empty()) {
    *device =
        std::make_unique<ComputeDevice>(std::move(spec), std::move(options), cancel_flags, cancel_slots);
    return {};
  }
  options.lookahead = false;  // the backend has no guesses to give
  const NmGpuBackend* backend = nullptr;
  if (Status s = open_gpu_library(options.gpu_backend, &backend); !s.ok()) return s;
  std::vector<NmGpuDevice> devices;
  if (Status s = probe_gpu(backend, &devices); !s.ok()) return s;
  *device =
      std::make_unique<GpuDevice>(std::move(spec), std::move(options), cancel_flags, cancel_slots, backend);
  return {};
}

GpuDevice::~GpuDevice() {
  for (const auto& job : unit_jobs_) {
    if (job != nullptr) job->wait(0);
  }
  if (prepare_job_ != nullptr) prepare_job_->wait(0);
  backend_->destroy(context_);
}

Status GpuDevice::create_context() {
  std::vector<NmGpuLayer> layers;
  for (size_t i = 0; i < spec_.layers.size(); ++i)
    layers.push_back({describe(spec_.layers[i].attention),
                      describe(spec_.layers[i].ffn, store_.weights().layers[i]), spec_.layers[i].post_norms,
                      spec_.layers[i].output_scale, describe(spec_.layers[i].recurrent)});
  std::vector<NmGpuRope> ropes;
  for (const RopeSpec& rope : spec_.ropes)
    ropes.push_back({static_cast<uint32_t>(rope.style), rope.rotary_dim});
  NmGpuModel model{};
  model.hidden_size = spec_.hidden_size;
  model.vocab_size = spec_.vocab_size;
  model.norm = static_cast<uint32_t>(spec_.norm);
  model.norm_eps = spec_.norm_eps;
  model.num_ropes = static_cast<uint32_t>(ropes.size());
  model.num_layers = static_cast<uint32_t>(layers.size());
  model.ropes = ropes.data();
  model.layers = layers.data();
  model.tied_embeddings = spec_.tied_embeddings;
  model.embedding_multiplier = spec_.embedding_multiplier;
  model.residual_multiplier = spec_.residual_multiplier;
  model.logits_multiplier = spec_.logits_multiplier;
  model.logits_softcap = spec_.logits_softcap;
  NmGpuOptions options{};
  options.max_step_tokens = options_.max_step_tokens;
  options.max_logit_rows = options_.max_logit_rows;
  options.kv_dtype = static_cast<uint32_t>(options_.kv_dtype);
  options.timing = 1;
  NmGpuError error{};
  return backend_->create(&options, &model, &context_, &error) == NM_GPU_OK ? Status{} : gpu_status(error);
}

Status GpuDevice::upload(Role role, int32_t layer, const PackedMatrix& matrix) {
  const NmGpuMatrix described = gpu_matrix(matrix);
  return done(backend_->upload_matrix(context_, static_cast<uint32_t>(role), layer, &described));
}

Status GpuDevice::upload(Role role, int32_t layer, const SlicedMatrix& matrix) {
  return matrix.present() ? upload(role, layer, matrix.slices[0]) : Status{};
}

Status GpuDevice::upload(Role role, int32_t layer, const std::vector<float>& values) {
  if (values.empty()) return {};
  return done(backend_->upload_vector(context_, static_cast<uint32_t>(role), layer, values.data(),
                                      static_cast<uint32_t>(values.size())));
}

Status GpuDevice::upload_heads(Role role, int32_t layer, const std::vector<PackedMatrix>& heads) {
  if (heads.empty()) return {};
  std::vector<NmGpuMatrix> described;
  for (const PackedMatrix& head : heads) described.push_back(gpu_matrix(head));
  return done(backend_->upload_heads(context_, static_cast<uint32_t>(role), layer, described.data(),
                                     static_cast<uint32_t>(described.size())));
}

Status GpuDevice::upload_expert_biases(uint32_t index) {
  const std::vector<GatedFfn>& experts = store_.weights().layers[index].experts;
  const std::pair<Role, std::vector<float> GatedFfn::*> biases[] = {
      {Role::ExpertGateBias, &GatedFfn::gate_bias},
      {Role::ExpertUpBias, &GatedFfn::up_bias},
      {Role::ExpertDownBias, &GatedFfn::down_bias}};
  for (const auto& [role, member] : biases) {
    std::vector<float> all;
    for (const GatedFfn& expert : experts)
      all.insert(all.end(), (expert.*member).begin(), (expert.*member).end());
    if (Status s = upload(role, static_cast<int32_t>(index), all); !s.ok()) return s;
  }
  return {};
}

Status GpuDevice::upload_layer(uint32_t index) {
  const LayerWeights& w = store_.weights().layers[index];
  const bool moe = spec_.layers[index].ffn.is_moe;
  const auto layer = static_cast<int32_t>(index);
  const std::pair<Role, const SlicedMatrix*> matrices[] = {
      {Role::QueryDown, &w.query_down},
      {Role::LatentDown, &w.latent_down},
      {Role::Query, &w.query},
      {Role::Key, &w.key},
      {Role::Value, &w.value},
      {Role::Output, &w.output},
      {Role::OutputGate, &w.output_gate},
      {Role::ConvGate, &w.conv_gate},
      {Role::ConvInput, &w.conv_input},
      {Role::DeltaBeta, &w.delta_beta},
      {Role::DeltaDecay, &w.delta_decay},
      {moe ? Role::SharedGate : Role::Gate, &w.dense.gate},
      {moe ? Role::SharedUp : Role::Up, &w.dense.up},
      {moe ? Role::SharedDown : Role::Down, &w.dense.down}};
  for (const auto& [role, matrix] : matrices) {
    if (Status s = upload(role, layer, *matrix); !s.ok()) return s;
  }
  const std::pair<Role, const std::vector<float>*> vectors[] = {
      {Role::AttentionNorm, &w.attention_norm},
      {Role::AttentionNormBias, &w.attention_norm_bias},
      {Role::FfnNorm, &w.ffn_norm},
      {Role::FfnNormBias, &w.ffn_norm_bias},
      {Role::QueryBias, &w.query_bias},
      {Role::KeyBias, &w.key_bias},
      {Role::ValueBias, &w.value_bias},
      {Role::QueryNorm, &w.query_norm},
      {Role::KeyNorm, &w.key_norm},
      {Role::OutputBias, &w.output_bias},
      {Role::AttentionSinks, &w.attention_sinks},
      {Role::RouterBias, &w.router_bias},
      {Role::RouterSelectionBias, &w.router_selection_bias},
      {Role::SharedExpertGate, &w.shared_expert_gate},
      {Role::AttentionPostNorm, &w.attention_post_norm},
      {Role::FfnPostNorm, &w.ffn_post_norm},
      {Role::SharedPostNorm, &w.shared_post_norm},
      {Role::ExpertNorm, &w.expert_norm},
      {Role::ExpertPostNorm, &w.expert_post_norm},
      {Role::RouterNorm, &w.router_norm},
      {Role::RouterExpertScale, &w.router_expert_scale},
      {Role::LayerScale, &w.layer_scale},
      {Role::ConvKernel, &w.conv_kernel},
      {Role::DeltaDecayRate, &w.decay_rate},
      {Role::DeltaDecayBias, &w.decay_bias},
      {Role::DeltaNorm, &w.delta_norm}};
  for (const auto& [role, values] : vectors) {
    if (Status s = upload(role, layer, *values); !s.ok()) return s;
  }
  if (Status s = upload_heads(Role::KeyUp, layer, w.key_up); !s.ok()) return s;
  if (Status s = upload_heads(Role::ValueUp, layer, w.value_up); !s.ok()) return s;
  if (Status s = upload_expert_biases(index); !s.ok()) return s;
  return moe ? upload(Role::Router, layer, w.router) : Status{};
}

Status GpuDevice::upload_weights() {
  const ModelWeights& w = store_.weights();
  if (Status s = upload(Role::Embedding, -1, w.embedding); !s.ok()) return s;
  if (Status s = upload(Role::LmHead, -1, w.lm_head); !s.ok()) return s;
  const std::pair<Role, const std::vector<float>*> vectors[] = {{Role::FinalNorm, &w.final_norm},
                                                                {Role::FinalNormBias, &w.final_norm_bias},
                                                                {Role::LmHeadBias, &w.lm_head_bias}};
  for (const auto& [role, values] : vectors) {
    if (Status s = upload(role, -1, *values); !s.ok()) return s;
  }
  for (uint32_t i = 0; i < spec_.layers.size(); ++i) {
    if (Status s = upload_layer(i); !s.ok()) return s;
  }
  return done(backend_->finish_upload(context_));
}

Status GpuDevice::finish_load() {
  if (Status s = ComputeDevice::finish_load(); !s.ok()) return s;
  if (Status s = check_supported(spec_, options_.topology); !s.ok()) return s;
  if (Status s = create_context(); !s.ok()) return s;
  if (Status s = upload_weights(); !s.ok()) return s;
  store_.release_dense();
  const Topology& topology = options_.topology;
  const size_t partial = size_t{options_.max_step_tokens} * spec_.hidden_size;
  void* pinned = nullptr;
  pinned_bytes_ = topology.units * partial * sizeof(float);
  if (Status s = done(backend_->allocate_host(context_, pinned_bytes_, &pinned)); !s.ok()) return s;
  unit_partials_ = static_cast<float*>(pinned);
  if (topology.threads_per_unit > 1)
    rank_partials_.assign(topology.unit_ranks(), std::vector<float>(partial));
  unit_jobs_.resize(topology.units);
  for (uint32_t unit = 0; unit < topology.units; ++unit) {
    // What cannot be page-locked is copied through the library's staging ring.
    const Arena& arena = store_.unit_arena(unit);
    const NmGpuCode code = backend_->register_host(context_, arena.data(), arena.used_bytes());
    if (code != NM_GPU_OK && code != NM_GPU_UNSUPPORTED) return done(code);
  }
  return {};
}

Status GpuDevice::allocate_kv(uint32_t blocks) {
  if (blocks == 0 || kv_blocks_ != 0 || context_ == nullptr)
    return Status::error(Code::InvalidArgument, "the KV cache is allocated once, after the weights");
  if (Status s = done(backend_->allocate_kv(context_, blocks)); !s.ok()) return s;
  kv_blocks_ = blocks;
  return {};
}

Status GpuDevice::allocate_states(uint32_t slots) {
  if (slots == 0 || state_slots_ != 0 || context_ == nullptr || !spec_.has_states())
    return Status::error(Code::InvalidArgument,
                         "states are allocated once, after the weights of a model that has them");
  if (Status s = done(backend_->allocate_states(context_, slots)); !s.ok()) return s;
  state_slots_ = slots;
  return {};
}

/// One slot is always there, to measure with.
Status GpuDevice::allocate_expert_slots(uint32_t count, uint32_t* got) {
  if (context_ == nullptr || kv_blocks_ == 0 || !slots_.empty())
    return Status::error(Code::InvalidArgument, "expert slots are allocated once, after the KV cache");
  uint32_t allocated = 0;
  if (Status s = done(backend_->allocate_slots(context_, std::max(count, 1U), slot_bytes_, &allocated));
      !s.ok())
    return s;
  if (allocated == 0)
    return Status::error(Code::Gpu,
                         "the GPU's memory does not hold a single expert beside the other weights and the "
                         "KV cache: lower `maxContext`, `kvTokens` or `maxBatchTokens`");
  slots_.resize(allocated);
  in_flight_.assign(allocated, false);
  *got = std::min(count, allocated);
  return {};
}

NmGpuMemory GpuDevice::memory() const {
  NmGpuMemory memory{};
  if (context_ != nullptr && backend_->memory(context_, &memory) != NM_GPU_OK) memory = {};
  return memory;
}

size_t GpuDevice::kv_bytes() const { return memory().kv_bytes; }
size_t GpuDevice::state_bytes() const { return memory().state_bytes; }

}  // namespace nearmoe
