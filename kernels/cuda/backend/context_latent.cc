// Latent attention of a layer in its absorbed form: the KV pool holds one compressed row per position; keyUp
// brings each head's query among those rows, valueUp brings what it attended to back (DeepSeek-V2, arXiv
// 2405.04434; the CPU's is native/runtime/forward_latent.cc).
#include <algorithm>

#include "context.h"

namespace nearmoe::gpu {

NmGpuCode Context::allocate_latents() {
  if (!model_.any_latent()) return NM_GPU_OK;
  constexpr uint32_t kAll = kFloat | kPair | kInt8;
  const uint32_t tokens = options_.max_step_tokens;
  const auto attention = [&](auto value) {
    return model_.largest(
        [&](const NmGpuLayer& l) { return Model::is_latent(l.attention) ? value(l.attention) : 0; });
  };
  const auto take = [&](size_t count, float** pointer) {
    return memory_.allocate(Purpose::Activations, count, "latent activations", pointer);
  };
  const uint32_t heads = attention([](const NmGpuAttention& a) { return a.num_heads; });
  const uint32_t query_rank = attention([](const NmGpuAttention& a) { return a.latent.query_rank; });
  const uint32_t value_dim = attention([](const NmGpuAttention& a) { return a.latent.key_value_rank; });
  latent_stride_ = round_up_32(attention(Model::latent_dim));
  query_latent_stride_ = round_up_32(query_rank);
  GPU_TRY(take(size_t{tokens} * latent_stride_, &latents_));
  GPU_TRY(take(size_t{tokens} * query_latent_stride_, &query_latents_));
  GPU_TRY(allocate_forms(query_input_, tokens, query_rank, kAll));
  GPU_TRY(take(
      size_t{tokens} * attention([](const NmGpuAttention& a) { return a.num_heads * Model::latent_dim(a); }),
      &latent_q_));
  GPU_TRY(take(size_t{tokens} *
                   attention([](const NmGpuAttention& a) { return a.num_heads * a.latent.key_value_rank; }),
               &latent_out_));
  const uint32_t cols =
      attention([](const NmGpuAttention& a) { return std::max(a.latent.nope_dim, a.latent.key_value_rank); });
  GPU_TRY(allocate_forms(head_input_, tokens * heads, cols, kAll));
  split_floats_ =
      std::max(split_floats_, cuda::latent_attention_workspace(kSplitTokens, heads, value_dim, kMaxSplits));
  return NM_GPU_OK;
}

/// The compressed rows, and the queries.
NmGpuCode Context::project_latents(uint32_t layer) {
  const NmGpuAttention& a = model_.layer(layer).attention;
  const WeightSet& set = model_.weights(layer);
  const bool compressed = a.latent.query_rank > 0;
  const Role first = compressed ? Role::QueryDown : Role::Query;
  const uint32_t forms =
      form_of(set.matrix(Role::LatentDown).dtype, tokens_) | form_of(set.matrix(first).dtype, tokens_);
  GPU_TRY(run_norm(set.vector(Role::AttentionNorm), set.vector(Role::AttentionNormBias), nullptr, tokens_, x_,
                   forms));
  GPU_TRY(
      matmul({&set, &x_, tokens_, 1.0F, false}, {{Role::LatentDown, Role::KeyBias, latents_, latent_stride_},
                                                 {first, Role::QueryBias, compressed ? query_latents_ : q_,
                                                  compressed ? query_latent_stride_ : q_stride_}}));
  if (!compressed) return NM_GPU_OK;
  Forms input = query_input_;
  input.all.stride = round_up_32(a.latent.query_rank);
  GPU_TRY(launched(cuda::norm({query_latents_, query_latent_stride_, a.latent.query_rank, nullptr, tokens_,
                               set.vector(Role::QueryNorm), nullptr, kLatentNormEps, false,
                               sinks(input, form_of(set.matrix(Role::Query).dtype, tokens_))},
                              stream_),
                   "norm"));
  return matmul({&set, &input, tokens_, 1.0F, false}, {{Role::Query, Role::QueryBias, q_, q_stride_}});
}

NmGpuCode Context::write_latents(uint32_t layer) {
  const NmGpuAttention& a = model_.layer(layer).attention;
  const WeightSet& set = model_.weights(layer);
  const auto rope = static_cast<uint32_t>(a.rope);
  Forms input = head_input_;
  input.all.stride = round_up_32(a.latent.nope_dim);
  cuda::LatentWriteArgs args{};
  args.latent = latents_;
  args.q = q_;
  args.latent_stride = latent_stride_;
  args.q_stride = q_stride_;
  args.tokens = tokens_;
  args.num_heads = a.num_heads;
  args.nope_dim = a.latent.nope_dim;
  args.latent_dim = Model::latent_dim(a);
  args.value_dim = a.latent.key_value_rank;
  args.norm = set.vector(Role::KeyNorm);
  args.eps = kLatentNormEps;
  args.rotary_dim = model_.rope(rope).rotary_dim;
  args.rotary = upload_.rotary[rope];
  args.interleaved = model_.rope(rope).style == static_cast<uint32_t>(RopeStyle::Interleaved);
  args.positions = upload_.positions;
  args.block_offsets = upload_.block_offsets;
  args.block_table = upload_.block_table;
  args.kv = kv_[layer];
  args.kv_dtype = options_.kv_dtype;
  args.nope = sinks(input, form_of(set.matrix(Role::KeyUp).dtype, tokens_));
  args.latent_q = latent_q_;
  return launched(cuda::latent_write(args, stream_), "latent_write");
}

NmGpuCode Context::matmul_heads(uint32_t layer, Role role, float* y, uint32_t y_stride, uint32_t y_cols) {
  const uint32_t heads = model_.layer(layer).attention.num_heads;
  const Matrix& weight = model_.weights(layer).matrix(role);
  const uint32_t cols = round_up_32(weight.view.cols);
  cuda::MatmulArgs args{};
  args.dtype = weight.dtype;
  args.segments[0] = {weight.view, nullptr, y, y_stride};
  args.num_segments = 1;
  args.x = head_input_.input();
  args.x.stride = heads * cols;
  args.tokens = tokens_;
  args.multiplier = 1.0F;
  args.heads = {heads, cols, y_cols, weight.head_bytes};
  return launch_matmul(args);
}

NmGpuCode Context::attend_to_latents(uint32_t layer) {
  const NmGpuAttention& a = model_.layer(layer).attention;
  cuda::LatentAttentionArgs args{};
  args.q = latent_q_;
  args.out = latent_out_;
  args.num_heads = a.num_heads;
  args.latent_dim = Model::latent_dim(a);
  args.value_dim = a.latent.key_value_rank;
  args.scale = a.scale;
  args.positions = upload_.positions;
  args.block_offsets = upload_.block_offsets;
  args.block_table = upload_.block_table;
  args.kv = kv_[layer];
  args.kv_dtype = options_.kv_dtype;
  if (upload_.num_decode_tokens > 0) {
    args.tokens = upload_.decode_tokens;
    args.num_tiles = upload_.num_decode_tokens;
    args.num_splits = decode_splits(layer);
    args.partial = split_workspace_;
    GPU_TRY(launched(cuda::latent_attention(args, stream_), "latent_attention"));
  }
  const PrefillTiles& prefill = upload_.prefill_tiles(layer);
  if (prefill.count == 0) return NM_GPU_OK;
  args.tiles = prefill.tiles;
  args.num_tiles = prefill.count;
  args.num_splits = 1;
  return launched(cuda::latent_attention(args, stream_), "latent_attention");
}

NmGpuCode Context::latent_layer(uint32_t layer) {
  const NmGpuAttention& a = model_.layer(layer).attention;
  const uint32_t heads = a.num_heads, latent_dim = Model::latent_dim(a), value_dim = a.latent.key_value_rank;
  GPU_TRY(project_latents(layer));
  GPU_TRY(write_latents(layer));
  GPU_TRY(matmul_heads(layer, Role::KeyUp, latent_q_, heads * latent_dim, latent_dim));
  GPU_TRY(attend_to_latents(layer));
  Forms input = head_input_;
  input.all.stride = round_up_32(value_dim);
  const uint32_t form = form_of(model_.weights(layer).matrix(Role::ValueUp).dtype, tokens_);
  GPU_TRY(launched(
      cuda::prepare({latent_out_, value_dim, tokens_ * heads, value_dim, sinks(input, form)}, stream_),
      "prepare"));
  return matmul_heads(layer, Role::ValueUp, attention_, q_stride_, a.latent.value_dim);
}

}  // namespace nearmoe::gpu
