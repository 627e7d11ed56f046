// What a model's description allows and demands: its checks, and the shape of each weight.
#include "model.h"

namespace nearmoe::gpu {

bool Model::any_latent() const {
  return largest([](const NmGpuLayer& layer) { return layer.attention.latent.key_value_rank; }) > 0;
}

size_t Model::kv_block_bytes(const NmGpuAttention& a, uint32_t kv_dtype) {
  if (a.num_heads == 0) return 0;
  if (is_latent(a)) return cuda::latent_pool_block_bytes(kv_dtype, latent_dim(a));
  return cuda::kv_pool_block_bytes(kv_dtype, cuda::padded_head_dim(a.head_dim)) * a.num_kv_heads;
}

uint32_t Model::prefill_tile_tokens(const NmGpuAttention& a) {
  if (is_latent(a)) return cuda::latent_tile_tokens(a.num_heads);
  return cuda::prefill_tile_tokens(a.num_heads / a.num_kv_heads, cuda::padded_head_dim(a.head_dim));
}

NmGpuCode Model::bad_field(uint32_t layer, const char* field, const std::string& expected,
                           uint64_t got) const {
  return failure_.fail(NM_GPU_INVALID_ARGUMENT, "create",
                       "layer " + std::to_string(layer) + ": expected " + field + " " + expected + ", got " +
                           std::to_string(got));
}

NmGpuCode Model::check_attention(uint32_t layer) const {
  const NmGpuAttention& a = layers_[layer].attention;
  const bool latent = is_latent(a);
  if (a.num_kv_heads == 0 || a.num_heads == 0 || a.num_heads % a.num_kv_heads != 0)
    return bad_field(layer, "num_heads", "to be a multiple of num_kv_heads", a.num_heads);
  if (!latent && (a.head_dim == 0 || a.head_dim % 2 != 0 || cuda::padded_head_dim(a.head_dim) == 0))
    return bad_field(layer, "head_dim", "even and at most 512", a.head_dim);
  if (a.rope >= static_cast<int32_t>(ropes_.size()) || (latent && a.rope < 0))
    return bad_field(layer, "rope", latent ? "in 0 .. num_ropes - 1" : "below num_ropes",
                     static_cast<uint64_t>(a.rope));
  const uint32_t rotated = latent ? a.latent.rope_dim : a.head_dim;
  if (a.rope >= 0) {
    const uint32_t rotary = ropes_[static_cast<size_t>(a.rope)].rotary_dim;
    if (rotary > rotated || rotary % 2 != 0)
      return bad_field(layer, "rotary_dim", "even and at most that of a head", rotary);
  }
  if (!latent) return NM_GPU_OK;
  if (a.num_kv_heads != 1) return bad_field(layer, "num_kv_heads", "1 beside latents", a.num_kv_heads);
  if (a.head_dim != a.latent.nope_dim + a.latent.rope_dim || a.latent.nope_dim == 0 ||
      a.latent.value_dim == 0)
    return bad_field(layer, "head_dim", "nope_dim + rope_dim, these and value_dim above 0", a.head_dim);
  if (a.latent.key_value_rank > cuda::kMaxLatentValueDim || latent_dim(a) > cuda::kMaxLatentDim)
    return bad_field(layer, "key_value_rank", "at most 512, and 576 with rope_dim", a.latent.key_value_rank);
  return NM_GPU_OK;
}

NmGpuCode Model::check_ffn(uint32_t layer) const {
  const NmGpuFfn& f = layers_[layer].ffn;
  const bool post_norms = layers_[layer].post_norms != 0;
  if (f.branch_norms && (!post_norms || !f.is_moe || f.shared_intermediate_size == 0))
    return bad_field(layer, "branch_norms", "with post_norms, experts and a shared expert", f.branch_norms);
  if (layers_[layer].output_scale && !post_norms)
    return bad_field(layer, "output_scale", "with post_norms only", layers_[layer].output_scale);
  if (!f.is_moe)
    return f.intermediate_size > 0 ? NM_GPU_OK : bad_field(layer, "intermediate_size", "above 0", 0);
  if (f.num_experts == 0 || f.num_experts > cuda::kMaxExperts)
    return bad_field(layer, "num_experts", "in 1 .. 1024", f.num_experts);
  if (f.top_k == 0 || f.top_k > cuda::kMaxTopK || f.top_k > f.num_experts)
    return bad_field(layer, "top_k", "in 1 .. min(32, num_experts)", f.top_k);
  const NmGpuRouter& r = f.router;
  if (r.num_groups == 0 || r.num_groups > cuda::kMaxExpertGroups || f.num_experts % r.num_groups != 0)
    return bad_field(layer, "num_groups", "in 1 .. 32 and to divide the experts evenly", r.num_groups);
  if (r.chosen_groups == 0 || r.chosen_groups > r.num_groups ||
      f.top_k > f.num_experts / r.num_groups * r.chosen_groups)
    return bad_field(layer, "chosen_groups", "with room for top_k experts", r.chosen_groups);
  return NM_GPU_OK;
}

NmGpuCode Model::check_spec() const {
  if (spec_.hidden_size == 0 || spec_.vocab_size == 0 || spec_.num_layers == 0) {
    return failure_.fail(NM_GPU_INVALID_ARGUMENT, "create",
                         "expected hidden_size, vocab_size and num_layers above 0");
  }
  for (uint32_t i = 0; i < spec_.num_layers; ++i) {
    const bool has_state = layers_[i].recurrent.kind != NM_GPU_RECURRENT_NONE;
    GPU_TRY(has_state ? check_recurrent(i) : check_attention(i));
    GPU_TRY(check_ffn(i));
  }
  return NM_GPU_OK;
}

bool Model::shape_of(uint32_t role, int32_t layer, uint32_t* rows, uint32_t* cols) const {
  *cols = spec_.hidden_size;
  if (of_no_layer(static_cast<Role>(role))) {
    *rows = spec_.vocab_size;
    return static_cast<Role>(role) == Role::Embedding || static_cast<Role>(role) == Role::LmHead;
  }
  const NmGpuLayer& l = layers_[static_cast<size_t>(layer)];
  const uint32_t dense = dense_size(l.ffn);
  const bool latent = is_latent(l.attention);
  const NmGpuLatent& compressed = l.attention.latent;
  const bool has_state = l.recurrent.kind != NM_GPU_RECURRENT_NONE;
  if (has_state && state_shape_of(static_cast<Role>(role), recurrent(l), rows)) return true;
  switch (static_cast<Role>(role)) {
    case Role::Query:
      *rows = q_size(l.attention);
      if (latent && compressed.query_rank > 0) *cols = compressed.query_rank;
      return !has_state;
    case Role::Key:
      *rows = kv_size(l.attention);
      return !latent && !has_state;
    case Role::Value:
      *rows = kv_size(l.attention);
      return !latent && !has_state && !l.attention.keys_as_values;
    case Role::OutputGate:
      *rows = q_size(l.attention);
      return l.attention.output_gate != 0;
    case Role::QueryDown:
      *rows = compressed.query_rank;
      return latent && compressed.query_rank > 0;
    case Role::LatentDown:
      *rows = latent_dim(l.attention);
      return latent;
    case Role::KeyUp:
      *rows = compressed.key_value_rank;
      *cols = compressed.nope_dim;
      return latent;
    case Role::ValueUp:
      *rows = compressed.value_dim;
      *cols = compressed.key_value_rank;
      return latent;
    case Role::Output:
      *rows = spec_.hidden_size;
      *cols = out_size(l);
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
  const NmGpuLayer& l = layers_[static_cast<size_t>(layer)];
  const NmGpuAttention& a = l.attention;
  const NmGpuFfn& f = l.ffn;
  if (l.recurrent.kind != NM_GPU_RECURRENT_NONE) {
    if (const uint32_t size = state_vector_size(r, recurrent(l)); size > 0) return size;
  }
  const bool full = a.qk_norm == NM_GPU_QK_NORM_FULL;
  switch (r) {
    case Role::QueryBias:
      return q_size(a);
    case Role::KeyBias:
    case Role::ValueBias:
      return kv_size(a);
    case Role::QueryNorm:
      return is_latent(a) ? a.latent.query_rank : full ? q_size(a) : a.head_dim;
    case Role::KeyNorm:
      return is_latent(a) ? a.latent.key_value_rank : full ? kv_size(a) : a.head_dim;
    case Role::AttentionSinks:
      return a.sinks ? a.num_heads : 0;
    case Role::RouterBias:
      return f.is_moe ? f.num_experts : 0;
    case Role::RouterSelectionBias:
      return f.is_moe && f.router.selection_bias ? f.num_experts : 0;
    case Role::ExpertGateBias:
    case Role::ExpertUpBias:
      return f.expert_bias ? f.num_experts * f.intermediate_size : 0;
    case Role::RouterExpertScale:
      return f.is_moe && f.router.expert_scale ? f.num_experts : 0;
    case Role::LayerScale:
      return l.output_scale ? 1 : 0;
    case Role::AttentionPostNorm:
    case Role::FfnPostNorm:
      return l.post_norms ? spec_.hidden_size : 0;
    case Role::SharedPostNorm:
    case Role::ExpertNorm:
    case Role::ExpertPostNorm:
    case Role::RouterNorm:
      return f.branch_norms ? spec_.hidden_size : 0;
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

}  // namespace nearmoe::gpu
