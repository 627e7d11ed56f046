#include "model.h"

#include "../../dtypes.h"
#include "../../quant_format.h"

namespace nearmoe::gpu {
namespace {

bool of_no_layer(Role role) { return role <= Role::LmHeadBias; }

}  // namespace

std::string describe(uint32_t role, int32_t layer) {
  std::string text = role < kNumRoles ? role_name(static_cast<Role>(role)) : "role " + std::to_string(role);
  return layer >= 0 ? text + " of layer " + std::to_string(layer) : text;
}

cuda::WeightView make_view(DType dtype, uint32_t rows, uint32_t cols, uint32_t col_begin,
                           size_t* size_bytes) {
  cuda::WeightView view{};
  view.rows = rows;
  view.cols = cols;
  size_t group_bytes = 0;
  if (const QuantFormat* format = quant_format(dtype)) {
    const PackedLayout layout = packed_layout(*format, cols, col_begin);
    group_bytes = layout.group_bytes;
    view.superblocks = static_cast<uint32_t>(layout.superblocks);
    view.phase = static_cast<uint32_t>(layout.phase);
  } else {
    group_bytes = float_group_bytes(dtype, cols);
  }
  view.group_bytes = static_cast<uint32_t>(group_bytes);
  *size_bytes = (size_t{rows} + kRowGroup - 1) / kRowGroup * group_bytes;
  return view;
}

cuda::ExpertSlice make_slice(const uint8_t* gate, const uint8_t* up, const uint8_t* down,
                             const cuda::WeightView& down_view, uint32_t rows, uint32_t hidden_offset,
                             uint32_t first_row) {
  return {
      gate,     up, down, rows, hidden_offset, down_view.group_bytes, down_view.superblocks, down_view.phase,
      first_row};
}

Model::Model(Failure& failure, Memory& memory, const NmGpuModel& spec)
    : failure_(failure),
      memory_(memory),
      spec_(spec),
      ropes_(spec.ropes, spec.ropes + spec.num_ropes),
      layers_(spec.layers, spec.layers + spec.num_layers),
      weights_(spec.num_layers + 1) {
  spec_.ropes = ropes_.data();
  spec_.layers = layers_.data();
}

bool Model::any_dense() const {
  for (const NmGpuLayer& layer : layers_) {
    if (dense_size(layer.ffn) > 0) return true;
  }
  return false;
}

void Model::set_biases(uint32_t layer, uint32_t expert, cuda::ExpertView& view) const {
  const WeightSet& set = weights(layer);
  const auto of_expert = [&](Role role, uint32_t size) {
    const float* all = set.vector(role);
    return all ? all + size_t{expert} * size : nullptr;
  };
  view.gate_bias = of_expert(Role::ExpertGateBias, layers_[layer].ffn.intermediate_size);
  view.up_bias = of_expert(Role::ExpertUpBias, layers_[layer].ffn.intermediate_size);
  view.down_bias = of_expert(Role::ExpertDownBias, spec_.hidden_size);
}

NmGpuCode Model::check_spec() const {
  const auto bad = [&](size_t layer, const char* field, const std::string& expected, uint64_t got) {
    return failure_.fail(NM_GPU_INVALID_ARGUMENT, "create",
                         "layer " + std::to_string(layer) + ": expected " + field + " " + expected +
                             ", got " + std::to_string(got));
  };
  if (spec_.hidden_size == 0 || spec_.vocab_size == 0 || spec_.num_layers == 0) {
    return failure_.fail(NM_GPU_INVALID_ARGUMENT, "create",
                         "expected hidden_size, vocab_size and num_layers above 0");
  }
  for (size_t i = 0; i < layers_.size(); ++i) {
    const NmGpuAttention& a = layers_[i].attention;
    const NmGpuFfn& f = layers_[i].ffn;
    if (a.num_kv_heads == 0 || a.num_heads == 0 || a.num_heads % a.num_kv_heads != 0) {
      return bad(i, "num_heads", "to be a multiple of num_kv_heads", a.num_heads);
    }
    if (a.head_dim == 0 || a.head_dim % 2 != 0 || cuda::padded_head_dim(a.head_dim) == 0) {
      return bad(i, "head_dim", "even and at most 256", a.head_dim);
    }
    if (a.rope >= static_cast<int32_t>(ropes_.size()))
      return bad(i, "rope", "below num_ropes", static_cast<uint64_t>(a.rope));
    if (a.rope >= 0) {
      const uint32_t rotary = ropes_[static_cast<size_t>(a.rope)].rotary_dim;
      if (rotary > a.head_dim || rotary % 2 != 0)
        return bad(i, "rotary_dim", "even and at most head_dim", rotary);
    }
    if (!f.is_moe) {
      if (f.intermediate_size == 0) return bad(i, "intermediate_size", "above 0", 0);
      continue;
    }
    if (f.num_experts == 0 || f.num_experts > cuda::kMaxExperts)
      return bad(i, "num_experts", "in 1 .. 1024", f.num_experts);
    if (f.top_k == 0 || f.top_k > cuda::kMaxTopK || f.top_k > f.num_experts) {
      return bad(i, "top_k", "in 1 .. min(32, num_experts)", f.top_k);
    }
    const NmGpuRouter& r = f.router;
    if (r.num_groups == 0 || f.num_experts % r.num_groups != 0)
      return bad(i, "num_groups", "to divide the experts evenly", r.num_groups);
    if (r.num_groups > cuda::kMaxExpertGroups) return bad(i, "num_groups", "at most 32", r.num_groups);
    if (r.chosen_groups == 0 || r.chosen_groups > r.num_groups ||
        f.top_k > f.num_experts / r.num_groups * r.chosen_groups) {
      return bad(i, "chosen_groups", "with room for top_k experts", r.chosen_groups);
    }
  }
  return NM_GPU_OK;
}

WeightSet* Model::set_of(uint32_t role, int32_t layer, const char* call) {
  const bool legal = role < kNumRoles && (of_no_layer(static_cast<Role>(role))
                                              ? layer == -1
                                              : layer >= 0 && layer < static_cast<int32_t>(spec_.num_layers));
  if (legal) return &weights_[static_cast<size_t>(layer + 1)];
  failure_.fail(NM_GPU_INVALID_ARGUMENT, call, describe(role, layer) + ": no such weight in this model");
  return nullptr;
}

bool Model::shape_of(uint32_t role, int32_t layer, uint32_t* rows, uint32_t* cols) const {
  *cols = spec_.hidden_size;
  if (of_no_layer(static_cast<Role>(role))) {
    *rows = spec_.vocab_size;
    return static_cast<Role>(role) == Role::Embedding || static_cast<Role>(role) == Role::LmHead;
  }
  const NmGpuLayer& l = layers_[static_cast<size_t>(layer)];
  const uint32_t dense = dense_size(l.ffn);
  switch (static_cast<Role>(role)) {
    case Role::Query:
      *rows = q_size(l.attention);
      return true;
    case Role::Key:
    case Role::Value:
      *rows = kv_size(l.attention);
      return true;
    case Role::Output:
      *rows = spec_.hidden_size;
      *cols = q_size(l.attention);
      return true;
    case Role::Gate:
    case Role::Up:
      *rows = dense;
      return !l.ffn.is_moe;
    case Role::SharedGate:
    case Role::SharedUp:
      *rows = dense;
      return l.ffn.is_moe && dense > 0;
    case Role::Down:
      *rows = spec_.hidden_size;
      *cols = dense;
      return !l.ffn.is_moe;
    case Role::SharedDown:
      *rows = spec_.hidden_size;
      *cols = dense;
      return l.ffn.is_moe && dense > 0;
    case Role::Router:
      *rows = l.ffn.num_experts;
      return l.ffn.is_moe != 0;
    default:
      return false;
  }
}

uint32_t Model::vector_size(uint32_t role, int32_t layer) const {
  const auto r = static_cast<Role>(role);
  if (r == Role::LmHeadBias) return spec_.vocab_size;
  if (r == Role::FinalNorm || r == Role::FinalNormBias) return spec_.hidden_size;
  if (of_no_layer(r)) return 0;
  const NmGpuAttention& a = layers_[static_cast<size_t>(layer)].attention;
  const NmGpuFfn& f = layers_[static_cast<size_t>(layer)].ffn;
  const bool full = a.qk_norm == NM_GPU_QK_NORM_FULL;
  switch (r) {
    case Role::QueryBias:
      return q_size(a);
    case Role::KeyBias:
    case Role::ValueBias:
      return kv_size(a);
    case Role::QueryNorm:
      return full ? q_size(a) : a.head_dim;
    case Role::KeyNorm:
      return full ? kv_size(a) : a.head_dim;
    case Role::AttentionSinks:
      return a.sinks ? a.num_heads : 0;
    case Role::RouterBias:
      return f.is_moe ? f.num_experts : 0;
    case Role::RouterSelectionBias:
      return f.is_moe && f.router.selection_bias ? f.num_experts : 0;
    case Role::ExpertGateBias:
    case Role::ExpertUpBias:
      return f.expert_bias ? f.num_experts * f.intermediate_size : 0;
    case Role::ExpertDownBias:
      return f.expert_bias ? f.num_experts * spec_.hidden_size : 0;
    case Role::AttentionNorm:
    case Role::AttentionNormBias:
    case Role::OutputBias:
    case Role::FfnNorm:
    case Role::FfnNormBias:
    case Role::SharedExpertGate:
      return spec_.hidden_size;
    default:
      return 0;
  }
}

NmGpuCode Model::upload_matrix(uint32_t role, int32_t layer, const NmGpuMatrix& matrix) {
  constexpr const char* kCall = "upload_matrix";
  WeightSet* set = set_of(role, layer, kCall);
  if (!set) return failure_.record().code;
  uint32_t rows = 0, cols = 0;
  const auto bad = [&](NmGpuCode code, const std::string& text) {
    return failure_.fail(code, kCall, describe(role, layer) + ": " + text);
  };
  if (!shape_of(role, layer, &rows, &cols))
    return bad(NM_GPU_INVALID_ARGUMENT, "is no dense matrix of this model");
  const auto dtype = static_cast<DType>(matrix.dtype);
  if (matrix.dtype >= kNumDTypes || !cuda::supports(dtype)) {
    return bad(NM_GPU_UNSUPPORTED,
               std::string("the GPU has no kernels for ") +
                   (matrix.dtype < kNumDTypes ? traits(dtype).name : std::to_string(matrix.dtype)));
  }
  if (matrix.rows != rows || matrix.cols != cols || matrix.col_begin != 0) {
    return bad(NM_GPU_INVALID_ARGUMENT, "expected [" + std::to_string(rows) + ", " + std::to_string(cols) +
                                            "], got [" + std::to_string(matrix.rows) + ", " +
                                            std::to_string(matrix.cols) + "]");
  }
  size_t bytes = 0;
  Matrix uploaded{make_view(dtype, rows, cols, 0, &bytes), dtype};
  if (matrix.size_bytes != bytes || !matrix.data) {
    return bad(NM_GPU_INVALID_ARGUMENT, "expected " + std::to_string(bytes) + " packed bytes, got " +
                                            std::to_string(matrix.size_bytes));
  }
  Matrix& target = set->matrices[role];
  if (target.present()) return bad(NM_GPU_INVALID_ARGUMENT, "was given twice");
  uint8_t* device = nullptr;
  GPU_TRY(memory_.allocate(Purpose::Weights, bytes, describe(role, layer).c_str(), &device));
  GPU_TRY(failure_.check(cudaMemcpy(device, matrix.data, bytes, cudaMemcpyHostToDevice), "cudaMemcpy"));
  uploaded.view.data = device;
  target = uploaded;
  return NM_GPU_OK;
}

NmGpuCode Model::upload_vector(uint32_t role, int32_t layer, const float* values, uint32_t count) {
  constexpr const char* kCall = "upload_vector";
  WeightSet* set = set_of(role, layer, kCall);
  if (!set) return failure_.record().code;
  const uint32_t expected = vector_size(role, layer);
  if (expected == 0 || count != expected || !values) {
    return failure_.fail(NM_GPU_INVALID_ARGUMENT, kCall,
                         describe(role, layer) + ": expected " + std::to_string(expected) + " values, got " +
                             std::to_string(count));
  }
  if (set->vectors[role])
    return failure_.fail(NM_GPU_INVALID_ARGUMENT, kCall, describe(role, layer) + ": was given twice");
  float* device = nullptr;
  GPU_TRY(memory_.allocate(Purpose::Weights, count, describe(role, layer).c_str(), &device));
  GPU_TRY(failure_.check(cudaMemcpy(device, values, count * sizeof(float), cudaMemcpyHostToDevice),
                         "cudaMemcpy"));
  set->vectors[role] = device;
  return NM_GPU_OK;
}

NmGpuCode Model::require(bool present, Role role, int32_t layer) const {
  if (present) return NM_GPU_OK;
  return failure_.fail(NM_GPU_INVALID_ARGUMENT, "finish_upload",
                       describe(static_cast<uint32_t>(role), layer) + " is missing");
}

/// The dense block or shared expert in the form that the expert kernels read.
NmGpuCode Model::build_dense(uint32_t layer) {
  WeightSet& set = weights_[layer + 1];
  const NmGpuFfn& ffn = layers_[layer].ffn;
  const uint32_t size = dense_size(ffn);
  if (size == 0) return NM_GPU_OK;
  const Role roles[3] = {ffn.is_moe ? Role::SharedGate : Role::Gate, ffn.is_moe ? Role::SharedUp : Role::Up,
                         ffn.is_moe ? Role::SharedDown : Role::Down};
  for (const Role role : roles)
    GPU_TRY(require(set.matrix(role).present(), role, static_cast<int32_t>(layer)));
  if (set.matrix(roles[0]).dtype != set.matrix(roles[1]).dtype) {
    return failure_.fail(NM_GPU_UNSUPPORTED, "finish_upload",
                         describe(static_cast<uint32_t>(roles[1]), static_cast<int32_t>(layer)) +
                             ": expected the format of gate");
  }
  cuda::ExpertView view{};
  view.num_slices = 1;
  view.hidden_cols = round_up_32(size);
  const cuda::WeightView& down = set.matrix(roles[2]).view;
  view.slices[0] =
      make_slice(set.matrix(roles[0]).view.data, set.matrix(roles[1]).view.data, down.data, down, size, 0, 0);
  cuda::ExpertView* device = nullptr;
  GPU_TRY(memory_.allocate(Purpose::Weights, 1, "dense block", &device));
  GPU_TRY(failure_.check(cudaMemcpy(device, &view, sizeof view, cudaMemcpyHostToDevice), "cudaMemcpy"));
  set.dense = device;
  return NM_GPU_OK;
}

/// What the layer's description promises beside the dense block.
NmGpuCode Model::require_parts(uint32_t index) const {
  const WeightSet& set = weights(index);
  const NmGpuAttention& a = layers_[index].attention;
  const NmGpuFfn& f = layers_[index].ffn;
  const auto layer = static_cast<int32_t>(index);
  const auto matrices = [&](bool wanted, std::initializer_list<Role> roles) {
    for (const Role role : roles) GPU_TRY(require(!wanted || set.matrix(role).present(), role, layer));
    return NmGpuCode{NM_GPU_OK};
  };
  const auto vectors = [&](bool wanted, std::initializer_list<Role> roles) {
    for (const Role role : roles) GPU_TRY(require(!wanted || set.vector(role), role, layer));
    return NmGpuCode{NM_GPU_OK};
  };
  GPU_TRY(vectors(true, {Role::AttentionNorm, Role::FfnNorm}));
  GPU_TRY(matrices(true, {Role::Query, Role::Key, Role::Value, Role::Output}));
  GPU_TRY(vectors(a.qk_norm != NM_GPU_QK_NORM_NONE, {Role::QueryNorm, Role::KeyNorm}));
  GPU_TRY(vectors(a.sinks, {Role::AttentionSinks}));
  GPU_TRY(matrices(f.is_moe, {Role::Router}));
  GPU_TRY(vectors(f.is_moe && f.router.selection_bias, {Role::RouterSelectionBias}));
  GPU_TRY(vectors(f.expert_bias, {Role::ExpertGateBias, Role::ExpertUpBias, Role::ExpertDownBias}));
  return vectors(f.shared_gate_sigmoid, {Role::SharedExpertGate});
}

NmGpuCode Model::finish() {
  GPU_TRY(require(top().matrix(Role::Embedding).present(), Role::Embedding, -1));
  GPU_TRY(require(top().vector(Role::FinalNorm), Role::FinalNorm, -1));
  GPU_TRY(require(spec_.tied_embeddings || top().matrix(Role::LmHead).present(), Role::LmHead, -1));
  for (uint32_t i = 0; i < spec_.num_layers; ++i) {
    GPU_TRY(require_parts(i));
    GPU_TRY(build_dense(i));
  }
  complete_ = true;
  return NM_GPU_OK;
}

}  // namespace nearmoe::gpu
