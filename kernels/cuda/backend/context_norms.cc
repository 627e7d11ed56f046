// Layers with norms on what their parts put out and with branches that normalise for themselves (Gemma 4; the
// CPU's are native/runtime/forward_norms.cc). Such parts write to buffers of their own; a feed-forward part
// is complete with the units' last partial sum, so its norm waits for the next call.
#include "context.h"

namespace nearmoe::gpu {

NmGpuCode Context::allocate_parts() {
  constexpr uint32_t kAll = kFloat | kPair | kInt8;
  const uint32_t tokens = options_.max_step_tokens, hidden = model_.spec().hidden_size;
  const size_t rows = size_t{tokens} * hidden_stride_;
  if (model_.largest([](const NmGpuLayer& l) { return l.post_norms; }) == 0) return NM_GPU_OK;
  GPU_TRY(memory_.allocate(Purpose::Activations, rows, "activations", &part_out_));
  if (model_.largest([](const NmGpuLayer& l) { return l.ffn.branch_norms; }) == 0) return NM_GPU_OK;
  GPU_TRY(memory_.allocate(Purpose::Activations, rows, "activations", &expert_out_));
  GPU_TRY(allocate_forms(expert_x_, tokens, hidden, kAll));
  return allocate_forms(router_x_, tokens, hidden, kAll);
}

NmGpuCode Context::norm_add(const float* x, const float* weight, float* out, float multiplier,
                            const float* scale, bool overwrite) {
  const NmGpuModel& spec = model_.spec();
  return launched(
      cuda::norm_add({x, hidden_stride_, spec.hidden_size, tokens_, weight, spec.norm_eps,
                      spec.norm == NM_GPU_NORM_LAYER, out, hidden_stride_, multiplier, scale, overwrite},
                     stream_),
      "norm_add");
}

NmGpuCode Context::clear(float* rows) {
  return check(cudaMemsetAsync(rows, 0, size_t{tokens_} * hidden_stride_ * sizeof(float), stream_),
               "cudaMemsetAsync");
}

NmGpuCode Context::run_branch_norms(uint32_t layer) {
  const NmGpuFfn& ffn = model_.layer(layer).ffn;
  if (!ffn.branch_norms) return NM_GPU_OK;
  const WeightSet& set = model_.weights(layer);
  GPU_TRY(run_norm(set.vector(Role::RouterNorm), nullptr, nullptr, tokens_, router_x_,
                   form_of(set.matrix(Role::Router).dtype, tokens_)));
  // Floats for the NDP units.
  return run_norm(set.vector(Role::ExpertNorm), nullptr, nullptr, tokens_, expert_x_,
                  kFloat | form_of(static_cast<DType>(ffn.gate_dtype), tokens_));
}

/// Then the buffers are empty for the feed-forward part, which adds to them.
NmGpuCode Context::finish_attention_part(uint32_t layer) {
  if (!model_.layer(layer).post_norms) return NM_GPU_OK;
  GPU_TRY(norm_add(part_out_, model_.weights(layer).vector(Role::AttentionPostNorm), hidden_,
                   model_.spec().residual_multiplier, nullptr, false));
  GPU_TRY(clear(part_out_));
  return model_.layer(layer).ffn.branch_norms ? clear(expert_out_) : NM_GPU_OK;
}

NmGpuCode Context::finish_ffn_part(uint32_t layer) {
  if (!model_.layer(layer).post_norms) return NM_GPU_OK;
  const WeightSet& set = model_.weights(layer);
  if (model_.layer(layer).ffn.branch_norms) {
    // In place: a block has read its row before it writes it.
    GPU_TRY(norm_add(part_out_, set.vector(Role::SharedPostNorm), part_out_, 1.0F, nullptr, true));
    GPU_TRY(norm_add(expert_out_, set.vector(Role::ExpertPostNorm), part_out_, 1.0F, nullptr, false));
  }
  return norm_add(part_out_, set.vector(Role::FfnPostNorm), hidden_, model_.spec().residual_multiplier,
                  set.vector(Role::LayerScale), false);
}

NmGpuCode Context::settle(int64_t layer) {
  return layer < 0 ? NM_GPU_OK : finish_ffn_part(static_cast<uint32_t>(layer));
}

}  // namespace nearmoe::gpu
