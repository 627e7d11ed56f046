#include "model.h"

#include "../../dtypes.h"
#include "../../quant_format.h"

namespace nearmoe::gpu {
namespace {

/// Matrices that come one for each head.
bool is_of_heads(uint32_t role) {
  return role == static_cast<uint32_t>(Role::KeyUp) || role == static_cast<uint32_t>(Role::ValueUp);
}

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

WeightSet* Model::set_of(uint32_t role, int32_t layer, const char* call) {
  const bool legal = role < kNumRoles && (of_no_layer(static_cast<Role>(role))
                                              ? layer == -1
                                              : layer >= 0 && layer < static_cast<int32_t>(spec_.num_layers));
  if (legal) return &weights_[static_cast<size_t>(layer + 1)];
  failure_.fail(NM_GPU_INVALID_ARGUMENT, call, describe(role, layer) + ": no such weight in this model");
  return nullptr;
}

NmGpuCode Model::check_matrix(const char* call, uint32_t role, int32_t layer, const NmGpuMatrix& matrix,
                              Matrix* checked, size_t* bytes) const {
  uint32_t rows = 0, cols = 0;
  const auto bad = [&](NmGpuCode code, const std::string& text) {
    return failure_.fail(code, call, describe(role, layer) + ": " + text);
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
  *checked = {make_view(dtype, rows, cols, 0, bytes), dtype};
  if (matrix.size_bytes != *bytes || !matrix.data) {
    return bad(NM_GPU_INVALID_ARGUMENT, "expected " + std::to_string(*bytes) + " packed bytes, got " +
                                            std::to_string(matrix.size_bytes));
  }
  return NM_GPU_OK;
}

NmGpuCode Model::upload_matrix(uint32_t role, int32_t layer, const NmGpuMatrix& matrix) {
  constexpr const char* kCall = "upload_matrix";
  if (is_of_heads(role))
    return failure_.fail(NM_GPU_INVALID_ARGUMENT, kCall,
                         describe(role, layer) + ": goes through upload_heads");
  WeightSet* set = set_of(role, layer, kCall);
  if (!set) return failure_.record().code;
  Matrix uploaded;
  size_t bytes = 0;
  GPU_TRY(check_matrix(kCall, role, layer, matrix, &uploaded, &bytes));
  return place(kCall, role, layer, &matrix, 1, bytes, uploaded, set->matrices[role]);
}

NmGpuCode Model::upload_heads(uint32_t role, int32_t layer, const NmGpuMatrix* heads, uint32_t count) {
  constexpr const char* kCall = "upload_heads";
  WeightSet* set = set_of(role, layer, kCall);
  if (!set) return failure_.record().code;
  const uint32_t expected = is_of_heads(role) ? layers_[static_cast<size_t>(layer)].attention.num_heads : 0;
  if (count != expected || count == 0)
    return failure_.fail(NM_GPU_INVALID_ARGUMENT, kCall,
                         describe(role, layer) + ": expected " + std::to_string(expected) + " heads, got " +
                             std::to_string(count));
  Matrix uploaded;
  size_t bytes = 0;
  for (uint32_t head = 0; head < count; ++head) {
    GPU_TRY(check_matrix(kCall, role, layer, heads[head], &uploaded, &bytes));
    if (heads[head].dtype != heads[0].dtype)
      return failure_.fail(NM_GPU_UNSUPPORTED, kCall, describe(role, layer) + ": heads of several formats");
  }
  uploaded.head_bytes = bytes;
  return place(kCall, role, layer, heads, count, bytes, uploaded, set->matrices[role]);
}

/// Copies `count` matrices of `bytes` each, one behind the other, to the device.
NmGpuCode Model::place(const char* call, uint32_t role, int32_t layer, const NmGpuMatrix* matrices,
                       uint32_t count, size_t bytes, Matrix uploaded, Matrix& target) {
  if (target.present())
    return failure_.fail(NM_GPU_INVALID_ARGUMENT, call, describe(role, layer) + ": was given twice");
  uint8_t* device = nullptr;
  GPU_TRY(memory_.allocate(Purpose::Weights, count * bytes, describe(role, layer).c_str(), &device));
  for (uint32_t i = 0; i < count; ++i) {
    GPU_TRY(failure_.check(cudaMemcpy(device + i * bytes, matrices[i].data, bytes, cudaMemcpyHostToDevice),
                           "cudaMemcpy"));
  }
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

NmGpuCode Model::require_all(uint32_t index, bool wanted, std::initializer_list<Role> matrices,
                             std::initializer_list<Role> vectors) const {
  if (!wanted) return NM_GPU_OK;
  const WeightSet& set = weights(index);
  const auto layer = static_cast<int32_t>(index);
  for (const Role role : matrices) GPU_TRY(require(set.matrix(role).present(), role, layer));
  for (const Role role : vectors) GPU_TRY(require(set.vector(role), role, layer));
  return NM_GPU_OK;
}

NmGpuCode Model::require_attention(uint32_t index) const {
  const NmGpuAttention& a = layers_[index].attention;
  const bool latent = is_latent(a), compressed = latent && a.latent.query_rank > 0;
  const bool weighted = a.qk_norm == NM_GPU_QK_NORM_HEAD || a.qk_norm == NM_GPU_QK_NORM_FULL;
  GPU_TRY(require_all(index, true, {Role::Query, Role::Output}, {}));
  GPU_TRY(require_all(index, !latent, {Role::Key}, {}));
  GPU_TRY(require_all(index, !latent && !a.keys_as_values, {Role::Value}, {}));
  GPU_TRY(require_all(index, latent, {Role::LatentDown, Role::KeyUp, Role::ValueUp}, {Role::KeyNorm}));
  GPU_TRY(require_all(index, compressed, {Role::QueryDown}, {Role::QueryNorm}));
  GPU_TRY(require_all(index, weighted, {}, {Role::QueryNorm, Role::KeyNorm}));
  GPU_TRY(require_all(index, a.output_gate, {Role::OutputGate}, {}));
  return require_all(index, a.sinks, {}, {Role::AttentionSinks});
}

/// What the layer's description promises beside the dense block.
NmGpuCode Model::require_parts(uint32_t index) const {
  const NmGpuLayer& layer = layers_[index];
  const NmGpuFfn& f = layer.ffn;
  GPU_TRY(require_all(index, true, {}, {Role::AttentionNorm, Role::FfnNorm}));
  GPU_TRY(layer.recurrent.kind == NM_GPU_RECURRENT_NONE ? require_attention(index)
                                                        : require_recurrent(index));
  GPU_TRY(require_all(index, layer.post_norms, {}, {Role::AttentionPostNorm, Role::FfnPostNorm}));
  GPU_TRY(require_all(index, layer.output_scale, {}, {Role::LayerScale}));
  GPU_TRY(require_all(index, f.branch_norms, {},
                      {Role::SharedPostNorm, Role::ExpertNorm, Role::ExpertPostNorm, Role::RouterNorm}));
  GPU_TRY(require_all(index, f.is_moe, {Role::Router}, {}));
  GPU_TRY(require_all(index, f.is_moe && f.router.expert_scale, {}, {Role::RouterExpertScale}));
  GPU_TRY(require_all(index, f.is_moe && f.router.selection_bias, {}, {Role::RouterSelectionBias}));
  GPU_TRY(require_all(index, f.expert_bias, {},
                      {Role::ExpertGateBias, Role::ExpertUpBias, Role::ExpertDownBias}));
  return require_all(index, f.shared_gate_sigmoid, {}, {Role::SharedExpertGate});
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
