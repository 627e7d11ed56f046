// A model's shape and its dense weights in device memory: copied from the ABI's description, checked,
// uploaded, and complete or named by what is missing. Experts live in slots.h. Used by the context's run
// parts.
#pragma once

#include <array>
#include <initializer_list>
#include <vector>

#include "../attention_kernels.h"
#include "../state_kernels.h"
#include "memory.h"
#include "native/runtime/model_spec.h"

namespace nearmoe::gpu {

struct Matrix {
  cuda::WeightView view{};
  DType dtype = DType::F32;
  size_t head_bytes = 0;  ///< from one head's matrix to the next; 0 where there is one matrix
  bool present() const { return view.data != nullptr; }
};

/// Weights of one layer, or of no layer (embedding, final norm, lm_head), by role.
struct WeightSet {
  std::array<Matrix, kNumRoles> matrices;
  std::array<const float*, kNumRoles> vectors{};
  const cuda::ExpertView* dense = nullptr;  ///< device: the dense block or shared expert as one slice
  const Matrix& matrix(Role role) const { return matrices[static_cast<size_t>(role)]; }
  const float* vector(Role role) const { return vectors[static_cast<size_t>(role)]; }
};

class Model {
 public:
  Model(Failure& failure, Memory& memory, const NmGpuModel& spec);

  /// INVALID_ARGUMENT or UNSUPPORTED with the field that the kernels cannot do.
  NmGpuCode check_spec() const;
  NmGpuCode upload_matrix(uint32_t role, int32_t layer, const NmGpuMatrix& matrix);
  NmGpuCode upload_heads(uint32_t role, int32_t layer, const NmGpuMatrix* heads, uint32_t count);
  NmGpuCode upload_vector(uint32_t role, int32_t layer, const float* values, uint32_t count);
  NmGpuCode finish();
  bool complete() const { return complete_; }

  const NmGpuModel& spec() const { return spec_; }
  const NmGpuLayer& layer(uint32_t index) const { return layers_[index]; }
  const NmGpuRope& rope(uint32_t index) const { return ropes_[index]; }
  const WeightSet& weights(uint32_t layer) const { return weights_[layer + 1]; }
  const WeightSet& top() const { return weights_[0]; }
  uint32_t num_layers() const { return spec_.num_layers; }

  static bool is_latent(const NmGpuAttention& a) { return a.latent.key_value_rank > 0; }
  /// Width of the compressed row with its rotated part.
  static uint32_t latent_dim(const NmGpuAttention& a) { return a.latent.key_value_rank + a.latent.rope_dim; }
  static uint32_t q_size(const NmGpuAttention& a) { return a.num_heads * a.head_dim; }
  /// What the layer has in attention's place, of kind None where that is attention.
  static RecurrentSpec recurrent(const NmGpuLayer& layer) {
    const NmGpuRecurrent& r = layer.recurrent;
    return {static_cast<RecurrentKind>(r.kind),
            r.conv_width,
            r.channels,
            r.num_key_heads,
            r.num_value_heads,
            r.key_dim,
            r.value_dim,
            r.tiled != 0};
  }
  /// Width of what attention or what is in its place puts out.
  static uint32_t out_size(const NmGpuLayer& layer) {
    const NmGpuAttention& a = layer.attention;
    if (layer.recurrent.kind != NM_GPU_RECURRENT_NONE) return recurrent(layer).out_size();
    return is_latent(a) ? a.num_heads * a.latent.value_dim : q_size(a);
  }
  /// Bytes of a layer's part of one KV block.
  static size_t kv_block_bytes(const NmGpuAttention& a, uint32_t kv_dtype);
  /// Tokens of one sequence that a block of the layer's prefill kernel works on.
  static uint32_t prefill_tile_tokens(const NmGpuAttention& a);
  static uint32_t kv_size(const NmGpuAttention& a) { return a.num_kv_heads * a.head_dim; }
  /// Intermediate size of the part every token passes: dense block or shared expert; 0 if there is none.
  static uint32_t dense_size(const NmGpuFfn& f) {
    return f.is_moe ? f.shared_intermediate_size : f.intermediate_size;
  }
  bool any_dense() const;
  bool any_latent() const;
  bool any_state() const;
  /// The biases of a routed expert, where its layer has some.
  void set_biases(uint32_t layer, uint32_t expert, cuda::ExpertView& view) const;
  template <class F>
  uint32_t largest(F value) const {
    uint32_t most = 0;
    for (const NmGpuLayer& layer : layers_) most = value(layer) > most ? value(layer) : most;
    return most;
  }

 private:
  WeightSet* set_of(uint32_t role, int32_t layer, const char* call);
  NmGpuCode check_attention(uint32_t layer) const;
  NmGpuCode check_recurrent(uint32_t layer) const;
  NmGpuCode check_ffn(uint32_t layer) const;
  NmGpuCode bad_field(uint32_t layer, const char* field, const std::string& expected, uint64_t got) const;
  /// Checks a matrix against the role's shape and the kernels' formats; its view, without data, and its size.
  NmGpuCode check_matrix(const char* call, uint32_t role, int32_t layer, const NmGpuMatrix& matrix,
                         Matrix* checked, size_t* bytes) const;
  NmGpuCode place(const char* call, uint32_t role, int32_t layer, const NmGpuMatrix* matrices, uint32_t count,
                  size_t bytes, Matrix uploaded, Matrix& target);
  bool shape_of(uint32_t role, int32_t layer, uint32_t* rows, uint32_t* cols) const;
  /// The same for what a layer has in attention's place (model_states.cc).
  static bool state_shape_of(Role role, const RecurrentSpec& spec, uint32_t* rows);
  static uint32_t state_vector_size(Role role, const RecurrentSpec& spec);
  NmGpuCode require_attention(uint32_t layer) const;
  NmGpuCode require_recurrent(uint32_t layer) const;
  NmGpuCode require_all(uint32_t layer, bool wanted, std::initializer_list<Role> matrices,
                        std::initializer_list<Role> vectors) const;
  uint32_t vector_size(uint32_t role, int32_t layer) const;
  NmGpuCode build_dense(uint32_t layer);
  NmGpuCode require_parts(uint32_t layer) const;
  NmGpuCode require(bool present, Role role, int32_t layer) const;

  Failure& failure_;
  Memory& memory_;
  NmGpuModel spec_;
  std::vector<NmGpuRope> ropes_;
  std::vector<NmGpuLayer> layers_;
  std::vector<WeightSet> weights_;  // [0] of no layer, then the layers
  bool complete_ = false;
};

/// View of a packed matrix (kernels/quant_format.h); its size in bytes in *size_bytes.
cuda::WeightView make_view(DType dtype, uint32_t rows, uint32_t cols, uint32_t col_begin, size_t* size_bytes);
/// The three matrices of a slice as ExpertSlice: its hidden columns begin at `hidden_offset`, its rows of
/// gate and up are those of the whole expert from `first_row` on.
cuda::ExpertSlice make_slice(const uint8_t* gate, const uint8_t* up, const uint8_t* down,
                             const cuda::WeightView& down_view, uint32_t rows, uint32_t hidden_offset,
                             uint32_t first_row);
/// Roles of weights that belong to no layer.
inline bool of_no_layer(Role role) { return role <= Role::LmHeadBias; }
inline uint32_t round_up_32(uint32_t n) { return (n + 31) / 32 * 32; }
std::string describe(uint32_t role, int32_t layer);

}  // namespace nearmoe::gpu
