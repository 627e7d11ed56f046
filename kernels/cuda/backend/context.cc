// Life of a context: streams, activation memory, the start of a step, logits. Layers are in
// context_attention.cc and context_experts.cc.
#include "context.h"

#include <algorithm>

namespace nearmoe::gpu {
namespace {

/// Groups of experts that one layer computes one after the other: the residents, then those that arrive.
constexpr uint32_t kGemvRows = cuda::kGemvTokens;

}  // namespace

Context::Context(const NmGpuOptions& options, const NmGpuModel& model)
    : options_(options),
      memory_(failure_, options.vram_limit_bytes),
      model_(failure_, memory_, model),
      timeline_(failure_, options.timing != 0),
      slots_(failure_, memory_, model_, timeline_),
      graphs_(failure_),
      upload_(failure_, memory_, model_) {}

Context::~Context() {
  if (stream_) (void)cudaStreamSynchronize(stream_);
  if (routed_) (void)cudaEventDestroy(routed_);
  if (finished_) (void)cudaEventDestroy(finished_);
  if (stream_) (void)cudaStreamDestroy(stream_);
}

bool Context::uses_gemm(DType dtype, uint32_t rows) const {
  return rows > kGemvRows && (float_gemm_ || cuda::wants_q8(dtype));
}

uint32_t Context::form_of(DType dtype, uint32_t rows) const {
  return cuda::wants_q8(dtype) ? kInt8 : uses_gemm(dtype, rows) ? kPair : kFloat;
}

cuda::ActivationSinks Context::sinks(const Forms& forms, uint32_t wanted) {
  cuda::ActivationSinks out = forms.all;
  if (!(wanted & kFloat)) out.f32 = nullptr;
  if (!(wanted & kPair)) out.high = out.low = nullptr;
  if (!(wanted & kInt8)) {
    out.q8 = nullptr;
    out.q8_meta = nullptr;
  }
  return out;
}

NmGpuCode Context::expect(Phase phase, const char* call) {
  if (failure_.sticky()) return NM_GPU_DEVICE_ERROR;
  if (phase_ == phase) return NM_GPU_OK;
  return failure_.fail(NM_GPU_WRONG_ORDER, call, std::string(call) + " does not fit the step under way");
}

NmGpuCode Context::start() {
  GPU_TRY(model_.check_spec());
  if (options_.max_step_tokens == 0 || options_.max_logit_rows == 0) {
    return failure_.fail(NM_GPU_INVALID_ARGUMENT, "create",
                         "expected max_step_tokens and max_logit_rows above 0");
  }
  if (options_.kv_dtype > static_cast<uint32_t>(KvDType::BF16)) {
    return failure_.fail(NM_GPU_UNSUPPORTED, "create", "the GPU's KV cache is f32, f16 or bf16, not q8_0");
  }
  GPU_TRY(check(cudaSetDevice(options_.device), "cudaSetDevice"));
  int value = 0;
  GPU_TRY(check(cudaDeviceGetAttribute(&value, cudaDevAttrIntegrated, options_.device),
                "cudaDeviceGetAttribute"));
  unified_ = value != 0;
  GPU_TRY(check(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, options_.device),
                "cudaDeviceGetAttribute"));
  multiprocessors_ = static_cast<uint32_t>(value > 0 ? value : 1);
  GPU_TRY(check(cudaDeviceGetAttribute(&value, cudaDevAttrComputeCapabilityMajor, options_.device),
                "cudaDeviceGetAttribute"));
  float_gemm_ = value >= 8;
  if (!float_gemm_ && model_.any_latent())
    return failure_.fail(NM_GPU_UNSUPPORTED, "create",
                         "latent attention needs tensor cores for bf16 (compute capability 8.0 or newer)");
  int least = 0, greatest = 0;
  GPU_TRY(check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "cudaDeviceGetStreamPriorityRange"));
  GPU_TRY(check(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest), "cudaStreamCreate"));
  GPU_TRY(check(cudaEventCreateWithFlags(&routed_, cudaEventDisableTiming), "cudaEventCreate"));
  GPU_TRY(check(cudaEventCreateWithFlags(&finished_, cudaEventDisableTiming), "cudaEventCreate"));
  GPU_TRY(timeline_.start(stream_));
  graphs_.start(3 * model_.num_layers() + 1);
  GPU_TRY(slots_.start(unified_, options_.staging_bytes));
  return allocate_activations();
}

NmGpuCode Context::allocate_forms(Forms& forms, uint32_t rows, uint32_t cols, uint32_t wanted) {
  cuda::ActivationSinks& out = forms.all;
  out.stride = round_up_32(cols);
  const size_t n = size_t{rows} * out.stride;
  const auto take = [&](size_t count, auto** pointer) {
    return memory_.allocate(Purpose::Activations, count, "activations", pointer);
  };
  if (wanted & kFloat) GPU_TRY(take(n, &out.f32));
  if (wanted & kPair) {
    GPU_TRY(take(n, &out.high));
    GPU_TRY(take(n, &out.low));
  }
  if (wanted & kInt8) {
    GPU_TRY(take(n, &out.q8));
    GPU_TRY(take(n / 32, &out.q8_meta));
  }
  return NM_GPU_OK;
}

NmGpuCode Context::allocate_activations() {
  constexpr uint32_t kAll = kFloat | kPair | kInt8;
  const uint32_t tokens = options_.max_step_tokens, hidden = model_.spec().hidden_size;
  const auto ffn = [&](auto value) {
    return model_.largest([&](const NmGpuLayer& l) { return value(l.ffn); });
  };
  const auto attention = [&](auto value) {
    return model_.largest([&](const NmGpuLayer& l) { return value(l.attention); });
  };
  const auto take = [&](size_t count, auto** pointer) {
    return memory_.allocate(Purpose::Activations, count, "activations", pointer);
  };
  hidden_stride_ = round_up_32(hidden);
  const uint32_t q_size = std::max(attention(Model::q_size), model_.largest(Model::out_size));
  q_stride_ = round_up_32(q_size);
  kv_stride_ = round_up_32(attention(Model::kv_size));
  GPU_TRY(take(size_t{tokens} * hidden_stride_, &hidden_));
  GPU_TRY(allocate_forms(x_, tokens, hidden, kAll));
  GPU_TRY(take(size_t{tokens} * q_stride_, &q_));
  GPU_TRY(take(size_t{tokens} * kv_stride_, &k_));
  GPU_TRY(take(size_t{tokens} * kv_stride_, &v_));
  GPU_TRY(take(size_t{tokens} * q_stride_, &attention_));
  GPU_TRY(allocate_forms(attention_input_, tokens, q_size, kAll));
  if (attention([](const NmGpuAttention& a) { return a.output_gate; }) > 0)
    GPU_TRY(take(size_t{tokens} * q_stride_, &output_gate_));
  const uint32_t heads = attention([](const NmGpuAttention& a) { return a.num_heads; });
  const uint32_t padded =
      attention([](const NmGpuAttention& a) { return cuda::padded_head_dim(a.head_dim); });
  split_floats_ = std::max(cuda::attention_decode_workspace(tokens, heads, padded, 1),
                           cuda::attention_decode_workspace(kSplitTokens, heads, padded, kMaxSplits));
  GPU_TRY(allocate_latents());
  GPU_TRY(allocate_parts());
  GPU_TRY(allocate_state_rows());
  GPU_TRY(take(split_floats_, &split_workspace_));
  const uint32_t experts = ffn([](const NmGpuFfn& f) { return f.is_moe ? f.num_experts : 0; });
  const uint32_t top_k = ffn([](const NmGpuFfn& f) { return f.is_moe ? f.top_k : 0; });
  const uint32_t rows = tokens * std::max(top_k, 1U);
  max_pairs_ = tokens * top_k;
  router_stride_ = round_up_32(experts);
  GPU_TRY(take(size_t{tokens} * router_stride_, &router_logits_));
  GPU_TRY(take(max_pairs_, &ids_));
  GPU_TRY(take(max_pairs_, &weights_));
  GPU_TRY(take(tokens, &gates_));
  GPU_TRY(take(size_t{experts} * tokens, &lists_));
  GPU_TRY(take(experts, &counts_));
  expert_cols_ = std::max(ffn([](const NmGpuFfn& f) { return round_up_32(Model::dense_size(f)); }),
                          ffn([](const NmGpuFfn& f) { return f.is_moe ? f.hidden_cols : 0; }));
  GPU_TRY(take(size_t{rows} * expert_cols_, &expert_hidden_));
  GPU_TRY(allocate_forms(expert_input_, rows, expert_cols_, kAll));
  GPU_TRY(take(size_t{rows} * hidden_stride_, &expert_outputs_));
  GPU_TRY(take(size_t{options_.max_logit_rows} * model_.spec().vocab_size, &logits_));
  GPU_TRY(allocate_forms(final_input_, options_.max_logit_rows, hidden, kAll));
  max_tiles_ = max_pairs_ / cuda::expert_gemm_tile_tokens() + experts;
  const size_t plan_bytes = plan_size(experts, max_tiles_);
  GPU_TRY(take(plan_bytes, &plan_device_));
  GPU_TRY(memory_.allocate_pinned(plan_bytes, "plan", &plan_host_));
  GPU_TRY(memory_.allocate_pinned(max_pairs_, "routing", &host_ids_));
  GPU_TRY(memory_.allocate_pinned(max_pairs_, "routing", &host_weights_));
  GPU_TRY(memory_.allocate_pinned(size_t{tokens} * hidden_stride_, "hidden state", &host_hidden_));
  return memory_.allocate_pinned(size_t{options_.max_logit_rows} * model_.spec().vocab_size, "logits",
                                 &host_logits_);
}

NmGpuCode Context::allocate_kv(uint32_t blocks) {
  if (!kv_.empty())
    return failure_.fail(NM_GPU_WRONG_ORDER, "allocate_kv", "the KV cache was allocated already");
  std::vector<uint8_t*> layers;
  for (uint32_t i = 0; i < model_.num_layers(); ++i) {
    const size_t block = Model::kv_block_bytes(model_.layer(i).attention, options_.kv_dtype);
    layers.push_back(nullptr);
    GPU_TRY(memory_.allocate(Purpose::Kv, block * blocks, "KV cache", &layers.back()));
  }
  kv_ = std::move(layers);
  kv_blocks_ = blocks;
  return NM_GPU_OK;
}

NmGpuCode Context::allocate_host(uint64_t size_bytes, void** data) {
  return memory_.allocate_pinned(size_bytes, "partial sums", data);
}

NmGpuCode Context::check_step(const NmGpuStep& step) const {
  const auto bad = [&](const std::string& text) {
    return const_cast<Failure&>(failure_).fail(NM_GPU_INVALID_ARGUMENT, "begin_step", text);
  };
  uint64_t tokens = 0, rows = 0;
  for (uint32_t s = 0; s < step.num_sequences; ++s) {
    const NmGpuSequence& sequence = step.sequences[s];
    const uint64_t positions = uint64_t{sequence.first_position} + sequence.count;
    if (sequence.count == 0 || sequence.logit_rows > sequence.count ||
        positions > uint64_t{sequence.num_blocks} * cuda::kKvTokens) {
      return bad("sequence " + std::to_string(s) + ": its counts do not fit each other");
    }
    if (const std::string text = check_states(sequence); !text.empty()) return bad(text);
    for (uint32_t b = 0; b < sequence.num_blocks; ++b) {
      if (sequence.blocks[b] >= kv_blocks_) return bad("no KV block " + std::to_string(sequence.blocks[b]));
    }
    tokens += sequence.count;
    rows += sequence.logit_rows;
  }
  if (tokens == 0 || tokens != step.num_tokens || tokens > options_.max_step_tokens)
    return bad("expected 1 to " + std::to_string(options_.max_step_tokens) + " tokens, got " +
               std::to_string(tokens));
  if (rows > options_.max_logit_rows)
    return bad("expected at most " + std::to_string(options_.max_logit_rows) + " rows of logits, got " +
               std::to_string(rows));
  for (uint32_t t = 0; t < step.num_tokens; ++t) {
    if (step.token_ids[t] < 0 || static_cast<uint32_t>(step.token_ids[t]) >= model_.spec().vocab_size)
      return bad("no token " + std::to_string(step.token_ids[t]));
  }
  return NM_GPU_OK;
}

NmGpuCode Context::begin_step(const NmGpuStep& step) {
  if (failure_.sticky()) return NM_GPU_DEVICE_ERROR;
  if (!model_.complete() || kv_.empty() || (model_.any_state() && !states_))
    return failure_.fail(NM_GPU_WRONG_ORDER, "begin_step",
                         "expected uploaded weights, a KV cache and, where the model has states, slots");
  GPU_TRY(check_step(step));
  phase_ = Phase::Idle;
  GPU_TRY(check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"));
  graphs_.make_room();
  bool moved = false;
  GPU_TRY(upload_.upload(step, !float_gemm_, stream_, &moved));
  if (moved) graphs_.clear();
  tokens_ = step.num_tokens;
  logit_rows_ = 0;
  for (uint32_t s = 0; s < step.num_sequences; ++s) logit_rows_ += step.sequences[s].logit_rows;
  const Matrix& embedding = model_.top().matrix(Role::Embedding);
  GPU_TRY(launched(cuda::embedding({embedding.dtype, embedding.view, upload_.token_ids, hidden_,
                                    hidden_stride_, tokens_, model_.spec().embedding_multiplier},
                                   stream_),
                   "embedding"));
  next_layer_ = 0;
  unsettled_ = -1;
  phase_ = Phase::Attention;
  return NM_GPU_OK;
}

NmGpuCode Context::compute_logits(int64_t unsettled) {
  const NmGpuModel& spec = model_.spec();
  const WeightSet& top = model_.top();
  const Role head = spec.tied_embeddings ? Role::Embedding : Role::LmHead;
  GPU_TRY(settle(unsettled));
  GPU_TRY(run_norm(top.vector(Role::FinalNorm), top.vector(Role::FinalNormBias), upload_.logit_rows,
                   logit_rows_, final_input_, form_of(top.matrix(head).dtype, logit_rows_)));
  GPU_TRY(matmul({&top, &final_input_, logit_rows_, spec.logits_multiplier, false},
                 {{head, Role::LmHeadBias, logits_, spec.vocab_size}}));
  if (spec.logits_softcap > 0) {
    GPU_TRY(
        launched(cuda::soft_cap({logits_, spec.vocab_size, logit_rows_, spec.vocab_size, spec.logits_softcap},
                                stream_),
                 "soft_cap"));
  }
  const size_t bytes = size_t{logit_rows_} * spec.vocab_size * sizeof(float);
  return check(cudaMemcpyAsync(host_logits_, logits_, bytes, cudaMemcpyDeviceToHost, stream_),
               "cudaMemcpyAsync");
}

NmGpuCode Context::run_logits() {
  GPU_TRY(expect(next_layer_ == model_.num_layers() ? Phase::Attention : Phase::Idle, "run_logits"));
  const int64_t unsettled = take_unsettled();
  if (logit_rows_ > 0) {
    GPU_TRY(timeline_.begin(NM_GPU_LANE_COMPUTE, NM_GPU_EVENT_LOGITS, -1, stream_));
    GPU_TRY(replayed({GraphKey::Part::Logits, 0, tokens_, logit_rows_},
                     [&] { return compute_logits(unsettled); }));
    GPU_TRY(timeline_.end(stream_));
  }
  GPU_TRY(check(cudaEventRecord(finished_, stream_), "cudaEventRecord"));
  phase_ = Phase::Logits;
  return NM_GPU_OK;
}

NmGpuCode Context::wait_logits(NmGpuLogits* logits) {
  GPU_TRY(expect(Phase::Logits, "wait_logits"));
  GPU_TRY(check(cudaEventSynchronize(finished_), "cudaEventSynchronize"));
  *logits = {logit_rows_, model_.spec().vocab_size, host_logits_};
  phase_ = Phase::Idle;
  return NM_GPU_OK;
}

NmGpuCode Context::memory(NmGpuMemory* memory) {
  size_t free_bytes = 0, total_bytes = 0;
  GPU_TRY(check(cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo"));
  *memory = {memory_.held(Purpose::Weights),
             memory_.held(Purpose::Kv),
             memory_.held(Purpose::States),
             memory_.held(Purpose::Slots),
             memory_.held(Purpose::Activations),
             memory_.held(Purpose::Pinned),
             free_bytes};
  return NM_GPU_OK;
}

}  // namespace nearmoe::gpu
