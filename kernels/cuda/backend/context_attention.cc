// The attention half of a layer, its router, and the dense block or shared expert.
#include <algorithm>

#include "context.h"

namespace nearmoe::gpu {
namespace {

/// A part of a sequence shorter than this does not pay for its merging.
constexpr uint32_t kSplitPositions = 192;
/// Its keys and values are to be so many times its sums, which are written and read once.
constexpr size_t kSplitShare = 12;

}  // namespace

NmGpuCode Context::run_norm(const float* weight, const float* bias, const uint32_t* rows, uint32_t count,
                            Forms& out, uint32_t wanted) {
  const NmGpuModel& spec = model_.spec();
  return launched(cuda::norm({hidden_, hidden_stride_, spec.hidden_size, rows, count, weight, bias,
                              spec.norm_eps, spec.norm == NM_GPU_NORM_LAYER, sinks(out, wanted)},
                             stream_),
                  "norm");
}

NmGpuCode Context::launch_matmul(cuda::MatmulArgs args, bool exact) {
  if (!(exact && args.dtype == DType::F32) && uses_gemm(args.dtype, args.tokens))
    return launched(cuda::gemm(args, stream_), "gemm");
  const uint32_t tokens = args.tokens, stride = args.x.stride;
  for (uint32_t first = 0; first < tokens; first += cuda::kGemvTokens) {
    cuda::MatmulArgs part = args;
    part.tokens = std::min(cuda::kGemvTokens, tokens - first);
    const size_t skip = size_t{first} * stride;
    if (part.x.f32) part.x.f32 += skip;
    if (part.x.q8) part.x.q8 += skip;
    if (part.x.q8_meta) part.x.q8_meta += skip / 32;
    for (uint32_t s = 0; s < part.num_segments; ++s)
      part.segments[s].y += size_t{first} * part.segments[s].y_stride;
    GPU_TRY(launched(cuda::gemv(part, stream_), "gemv"));
  }
  return NM_GPU_OK;
}

NmGpuCode Context::matmul(const Matmul& matmul, const std::vector<Segment>& segments) {
  for (size_t first = 0; first < segments.size();) {
    cuda::MatmulArgs args{};
    args.dtype = matmul.set->matrix(segments[first].weight).dtype;
    for (; first < segments.size() && args.num_segments < cuda::kMaxSegments; ++first) {
      const Segment& segment = segments[first];
      const Matrix& weight = matmul.set->matrix(segment.weight);
      if (weight.dtype != args.dtype) break;
      args.segments[args.num_segments++] = {weight.view, matmul.set->vector(segment.bias), segment.y,
                                            segment.y_stride};
    }
    args.x = matmul.x->input();
    args.tokens = matmul.rows;
    args.multiplier = matmul.multiplier;
    args.add = matmul.add;
    GPU_TRY(launch_matmul(args, matmul.exact));
  }
  return NM_GPU_OK;
}

uint32_t Context::attention_forms(const WeightSet& set) const {
  uint32_t forms = 0;
  for (const Role role : {Role::Query, Role::Key, Role::Value, Role::OutputGate}) {
    if (set.matrix(role).present()) forms |= form_of(set.matrix(role).dtype, tokens_);
  }
  return forms;
}

uint32_t Context::ffn_forms(uint32_t layer) const {
  const NmGpuFfn& ffn = model_.layer(layer).ffn;
  const WeightSet& set = model_.weights(layer);
  uint32_t forms = 0;
  if (Model::dense_size(ffn) > 0)
    forms |= form_of(set.matrix(ffn.is_moe ? Role::SharedGate : Role::Gate).dtype, tokens_);
  if (!ffn.is_moe) return forms;
  if (ffn.branch_norms)
    return forms | kFloat;  // the shared expert's gate; the others have inputs of their own
  // Floats for the NDP units and the shared expert's gate.
  return forms | kFloat | form_of(set.matrix(Role::Router).dtype, tokens_) |
         form_of(static_cast<DType>(ffn.gate_dtype), tokens_);
}

NmGpuCode Context::project_qkv(uint32_t layer) {
  const WeightSet& set = model_.weights(layer);
  GPU_TRY(run_norm(set.vector(Role::AttentionNorm), set.vector(Role::AttentionNormBias), nullptr, tokens_, x_,
                   attention_forms(set)));
  std::vector<Segment> segments = {{Role::Query, Role::QueryBias, q_, q_stride_},
                                   {Role::Key, Role::KeyBias, k_, kv_stride_}};
  if (!model_.layer(layer).attention.keys_as_values)
    segments.push_back({Role::Value, Role::ValueBias, v_, kv_stride_});
  if (model_.layer(layer).attention.output_gate)
    segments.push_back({Role::OutputGate, kNoBias, output_gate_, q_stride_});
  return matmul({&set, &x_, tokens_, 1.0F, false}, segments);
}

NmGpuCode Context::rotate_and_store(uint32_t layer) {
  const NmGpuAttention& a = model_.layer(layer).attention;
  const WeightSet& set = model_.weights(layer);
  const bool rotates = a.rope >= 0;
  const auto rope = static_cast<uint32_t>(std::max(a.rope, 0));
  cuda::RopeKvArgs args{};
  args.q = q_;
  args.k = k_;
  args.v = a.keys_as_values ? k_ : v_;
  args.q_stride = q_stride_;
  args.k_stride = args.v_stride = kv_stride_;
  args.tokens = tokens_;
  args.num_heads = a.num_heads;
  args.num_kv_heads = a.num_kv_heads;
  args.head_dim = a.head_dim;
  const bool unit = a.qk_norm == NM_GPU_QK_NORM_HEAD_UNIT;
  args.qk_norm = unit ? cuda::QkNormKind::Head : static_cast<cuda::QkNormKind>(a.qk_norm);
  args.q_norm = unit ? nullptr : set.vector(Role::QueryNorm);
  args.k_norm = unit ? nullptr : set.vector(Role::KeyNorm);
  args.value_norm = a.value_norm != 0;
  args.temperature_scale = a.temperature_scale;
  args.temperature_floor = a.temperature_floor;
  args.eps = model_.spec().norm_eps;
  args.clip = a.clip_qkv;
  args.rotary_dim = rotates ? model_.rope(rope).rotary_dim : 0;
  args.rotary = rotates ? upload_.rotary[rope] : nullptr;
  args.interleaved = rotates && model_.rope(rope).style == static_cast<uint32_t>(RopeStyle::Interleaved);
  args.positions = upload_.positions;
  args.block_offsets = upload_.block_offsets;
  args.block_table = upload_.block_table;
  args.kv = kv_[layer];
  args.kv_dtype = options_.kv_dtype;
  args.padded_head_dim = cuda::padded_head_dim(a.head_dim);
  return launched(cuda::rope_kv_write(args, stream_), "rope_kv_write");
}

/// Two blocks for each multiprocessor, as far as sequence and workspace allow; 1 in layers with a state.
uint32_t Context::decode_splits(uint32_t layer) const {
  const NmGpuAttention& a = model_.layer(layer).attention;
  if (a.num_heads == 0) return 1;
  const bool latent = Model::is_latent(a);
  const uint32_t blocks = latent ? cuda::latent_head_blocks(a.num_heads, options_.kv_dtype) : a.num_kv_heads;
  const size_t token_floats =
      latent ? cuda::latent_attention_workspace(1, a.num_heads, a.latent.key_value_rank, 1)
             : cuda::attention_decode_workspace(1, a.num_heads, cuda::padded_head_dim(a.head_dim), 1);
  const uint32_t tokens = std::max(upload_.num_decode_tokens, 1U);
  const uint32_t wanted = 2 * multiprocessors_ / std::max(tokens * blocks, 1U) + 1;
  // More heads than one block has are work enough to go by multiprocessors instead of by bytes.
  const size_t position_bytes = Model::kv_block_bytes(a, options_.kv_dtype) / cuda::kKvTokens;
  const size_t least = latent && blocks == 1 ? kSplitShare * 2 * token_floats * sizeof(float) / position_bytes
                                             : kSplitPositions;
  const uint32_t useful =
      upload_.longest_decode / std::max(kSplitPositions, static_cast<uint32_t>(least)) + 1;
  const auto room = static_cast<uint32_t>(split_floats_ / (tokens * token_floats));
  return std::max(std::min({wanted, useful, room, kMaxSplits}), 1U);
}

NmGpuCode Context::attend(uint32_t layer) {
  const NmGpuAttention& a = model_.layer(layer).attention;
  const uint32_t padded = cuda::padded_head_dim(a.head_dim);
  const cuda::AttentionArgs args{q_,
                                 q_stride_,
                                 attention_,
                                 q_stride_,
                                 a.num_heads,
                                 a.num_kv_heads,
                                 a.head_dim,
                                 padded,
                                 a.scale,
                                 a.softcap,
                                 a.sliding_window,
                                 a.chunk_size,
                                 model_.weights(layer).vector(Role::AttentionSinks),
                                 upload_.positions,
                                 upload_.block_offsets,
                                 upload_.block_table,
                                 kv_[layer],
                                 options_.kv_dtype};
  if (upload_.num_decode_tokens > 0) {
    const uint32_t tokens = upload_.num_decode_tokens, splits = decode_splits(layer);
    GPU_TRY(launched(
        cuda::attention_decode({args, upload_.decode_tokens, tokens, splits, split_workspace_}, stream_),
        "attention_decode"));
  }
  const PrefillTiles& prefill = upload_.prefill_tiles(layer);
  if (prefill.count > 0)
    GPU_TRY(launched(cuda::attention_prefill({args, prefill.tiles, prefill.count}, stream_),
                     "attention_prefill"));
  return NM_GPU_OK;
}

NmGpuCode Context::route(uint32_t layer) {
  const NmGpuFfn& ffn = model_.layer(layer).ffn;
  const WeightSet& set = model_.weights(layer);
  const NmGpuRouter& r = ffn.router;
  const Forms& experts = expert_forms(layer);
  GPU_TRY(matmul({&set, &router_forms(layer), tokens_, r.logit_multiplier, false},
                 {{Role::Router, Role::RouterBias, router_logits_, router_stride_}}));
  const cuda::RouterRule rule{ffn.num_experts,
                              ffn.top_k,
                              static_cast<cuda::ScoringKind>(r.scoring),
                              r.norm_topk_prob != 0,
                              r.jitter_eps,
                              set.vector(Role::RouterSelectionBias),
                              r.num_groups,
                              r.chosen_groups,
                              static_cast<cuda::GroupScoreKind>(r.group_score),
                              r.weight_multiplier,
                              set.vector(Role::RouterExpertScale)};
  GPU_TRY(launched(cuda::router({router_logits_, router_stride_, tokens_, rule, ids_, weights_}, stream_),
                   "router"));
  const size_t pairs = size_t{tokens_} * ffn.top_k;
  const auto fetch = [&](void* to, const void* from, size_t bytes) {
    return check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_), "cudaMemcpyAsync");
  };
  GPU_TRY(fetch(host_ids_, ids_, pairs * sizeof(int32_t)));
  GPU_TRY(fetch(host_weights_, weights_, pairs * sizeof(float)));
  return fetch(host_hidden_, experts.all.f32, size_t{tokens_} * hidden_stride_ * sizeof(float));
}

NmGpuCode Context::layer_body(uint32_t layer, int64_t unsettled) {
  GPU_TRY(settle(unsettled));
  const NmGpuAttention& a = model_.layer(layer).attention;
  const WeightSet& set = model_.weights(layer);
  const uint32_t out_size = Model::out_size(model_.layer(layer));
  if (model_.layer(layer).recurrent.kind != NM_GPU_RECURRENT_NONE) {
    GPU_TRY(state_layer(layer));
  } else if (Model::is_latent(a)) {
    GPU_TRY(latent_layer(layer));
  } else {
    GPU_TRY(project_qkv(layer));
    GPU_TRY(rotate_and_store(layer));
    GPU_TRY(attend(layer));
  }
  Forms input = attention_input_;
  input.all.stride = round_up_32(out_size);
  const uint32_t form = form_of(set.matrix(Role::Output).dtype, tokens_);
  const float* gate = a.output_gate ? output_gate_ : nullptr;
  GPU_TRY(launched(
      cuda::prepare({attention_, q_stride_, tokens_, out_size, sinks(input, form), gate, q_stride_}, stream_),
      "prepare"));
  const bool straight = !model_.layer(layer).post_norms;
  GPU_TRY(matmul({&set, &input, tokens_, part_multiplier(layer), straight},
                 {{Role::Output, Role::OutputBias, part_target(layer), hidden_stride_}}));
  GPU_TRY(finish_attention_part(layer));
  GPU_TRY(run_norm(set.vector(Role::FfnNorm), set.vector(Role::FfnNormBias), nullptr, tokens_, x_,
                   ffn_forms(layer)));
  GPU_TRY(run_branch_norms(layer));
  if (model_.layer(layer).ffn.is_moe) return route(layer);
  GPU_TRY(run_dense(layer));
  return finish_ffn_part(layer);
}

NmGpuCode Context::run_attention(uint32_t layer) {
  GPU_TRY(expect(Phase::Attention, "run_attention"));
  if (layer != next_layer_ || layer >= model_.num_layers())
    return failure_.fail(NM_GPU_WRONG_ORDER, "run_attention",
                         "expected layer " + std::to_string(next_layer_));
  const bool moe = model_.layer(layer).ffn.is_moe != 0;
  GPU_TRY(timeline_.begin(NM_GPU_LANE_COMPUTE, NM_GPU_EVENT_ATTENTION, static_cast<int32_t>(layer), stream_));
  const int64_t unsettled = take_unsettled();
  GPU_TRY(replayed({GraphKey::Part::Attention, layer, tokens_, decode_splits(layer)},
                   [&] { return layer_body(layer, unsettled); }));
  GPU_TRY(timeline_.end(stream_));
  if (moe) GPU_TRY(check(cudaEventRecord(routed_, stream_), "cudaEventRecord"));
  next_layer_ = layer + 1;
  phase_ = moe ? Phase::Routing : Phase::Attention;
  return NM_GPU_OK;
}

NmGpuCode Context::wait_routing(uint32_t layer, NmGpuRouting* routing) {
  GPU_TRY(expect(Phase::Routing, "wait_routing"));
  if (layer + 1 != next_layer_)
    return failure_.fail(NM_GPU_WRONG_ORDER, "wait_routing",
                         "expected layer " + std::to_string(next_layer_ - 1));
  GPU_TRY(check(cudaEventSynchronize(routed_), "cudaEventSynchronize"));
  *routing = {host_ids_, host_weights_, host_hidden_, hidden_stride_, tokens_, model_.layer(layer).ffn.top_k};
  phase_ = Phase::Experts;
  return NM_GPU_OK;
}

NmGpuCode Context::run_dense(uint32_t layer) {
  const NmGpuFfn& ffn = model_.layer(layer).ffn;
  const WeightSet& set = model_.weights(layer);
  const uint32_t size = Model::dense_size(ffn), cols = round_up_32(size);
  const Matrix& gate = set.matrix(ffn.is_moe ? Role::SharedGate : Role::Gate);
  const Matrix& down = set.matrix(ffn.is_moe ? Role::SharedDown : Role::Down);
  const float* gates = nullptr;
  if (ffn.is_moe && ffn.shared_gate_sigmoid) {
    GPU_TRY(launched(cuda::shared_gate({x_.all.f32, x_.all.stride, model_.spec().hidden_size, tokens_,
                                        set.vector(Role::SharedExpertGate), gates_},
                                       stream_),
                     "shared_gate"));
    gates = gates_;
  }
  const cuda::ExpertShape shape{gate.dtype, down.dtype,
                                gate.view,  model_.spec().hidden_size,
                                cols,       static_cast<cuda::ActivationKind>(ffn.activation)};
  const cuda::PairRouting pairs{set.dense, nullptr, nullptr, gates, tokens_, 1};
  const float multiplier = part_multiplier(layer);
  float* target = part_target(layer);
  Forms hidden = expert_input_;
  hidden.all.stride = cols;
  if (!uses_gemm(gate.dtype, tokens_) || !uses_gemm(down.dtype, tokens_)) {
    const uint32_t form = cuda::wants_q8(down.dtype) ? kInt8 : kFloat;
    return launched(cuda::expert_gemv({shape, pairs, x_.input(), nullptr, sinks(hidden, form), target,
                                       hidden_stride_, multiplier},
                                      stream_),
                    "expert_gemv");
  }
  GPU_TRY(launched(
      cuda::expert_gemm({shape, set.dense, upload_.dense_tiles, upload_.num_dense_tiles, nullptr, 1, tokens_,
                         x_.input(), nullptr, expert_hidden_, cols,
                         sinks(hidden, form_of(down.dtype, tokens_)), expert_outputs_, hidden_stride_},
                        stream_),
      "expert_gemm"));
  return launched(cuda::combine({target, hidden_stride_, model_.spec().hidden_size, pairs, expert_outputs_,
                                 hidden_stride_, multiplier},
                                stream_),
                  "combine");
}

}  // namespace nearmoe::gpu
