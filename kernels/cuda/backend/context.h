// One model on one GPU: what a step does, in the order of the ABI's calls. Owns the streams and the
// activation memory; weights are the Model's, expert slots and transfers the Slots'. Called by abi.cc from
// one thread at a time. Decides nothing about placement: which expert runs here is told by the caller.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "graphs.h"
#include "model.h"
#include "slots.h"
#include "step_upload.h"
#include "timeline.h"

namespace nearmoe::gpu {

/// Rows of activations in the forms that kernels read; allocated for the forms that some weight wants.
struct Forms {
  cuda::ActivationSinks all{};
  cuda::Activations input() const { return {all.f32, all.high, all.low, all.q8, all.q8_meta, all.stride}; }
};

class Context {
 public:
  Context(const NmGpuOptions& options, const NmGpuModel& model);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  /// Streams and activation memory.
  NmGpuCode start();
  NmGpuCode allocate_kv(uint32_t blocks);
  NmGpuCode allocate_states(uint32_t slots);
  NmGpuCode allocate_host(uint64_t size_bytes, void** data);

  NmGpuCode begin_step(const NmGpuStep& step);
  NmGpuCode run_attention(uint32_t layer);
  NmGpuCode wait_routing(uint32_t layer, NmGpuRouting* routing);
  NmGpuCode submit_experts(const NmGpuExperts& experts);
  NmGpuCode add_partial(uint32_t layer, const float* partial);
  NmGpuCode run_logits();
  NmGpuCode wait_logits(NmGpuLogits* logits);
  NmGpuCode measure_experts(uint32_t layer, uint32_t tokens, const int32_t* slots, uint32_t count,
                            double* us);
  NmGpuCode memory(NmGpuMemory* memory);

  int32_t device() const { return options_.device; }
  Failure& failure() { return failure_; }
  Model& model() { return model_; }
  Slots& slots() { return slots_; }
  Timeline& timeline() { return timeline_; }
  const Graphs& graphs() const { return graphs_; }

 private:
  /// What the next call may be.
  enum class Phase : uint8_t { Idle, Attention, Routing, Experts, Logits };
  /// Forms of activations, as bits.
  enum : uint32_t { kFloat = 1, kPair = 2, kInt8 = 4 };
  /// In a bias's place where there is none.
  static constexpr Role kNoBias = Role::Embedding;
  struct Segment {
    Role weight, bias;
    float* y;
    uint32_t y_stride;
  };
  struct Matmul {
    const WeightSet* set;
    Forms* x;
    uint32_t rows;
    float multiplier;
    bool add;
    bool exact = false;  ///< F32 weights through gemv, whose sums are of float32, not of parts in bf16
  };
  /// Experts that one launch computes: `expert` of the layer lies in `slot`.
  struct Placed {
    uint32_t expert, slot;
  };
  /// Experts [begin, end) of a plan that are computed in one launch, with their tiles where grouped.
  struct Group {
    uint32_t begin, end, first_tile, num_tiles, rows;
  };
  static constexpr uint32_t kMaxGroups = 8;
  /// Parts of a sequence in decode; tokens that can have as many.
  static constexpr uint32_t kMaxSplits = 32, kSplitTokens = 16;
  /// What the expert kernels have in common for one layer of one step.
  struct Routed {
    uint32_t layer, tokens, top_k;
    std::vector<uint32_t> counts;  ///< tokens of each expert
    bool grouped;                  ///< through the GEMM kernels
  };

  NmGpuCode check(cudaError_t error, const char* call) { return failure_.check(error, call); }
  NmGpuCode launched(cudaError_t error, const char* kernel) { return failure_.launched(error, kernel); }
  NmGpuCode expect(Phase phase, const char* call);
  NmGpuCode allocate_activations();
  NmGpuCode allocate_forms(Forms& forms, uint32_t rows, uint32_t cols, uint32_t wanted);
  NmGpuCode check_step(const NmGpuStep& step) const;

  /// True where `rows` input rows meet a weight of this format in the tensor-core kernels.
  bool uses_gemm(DType dtype, uint32_t rows) const;
  uint32_t form_of(DType dtype, uint32_t rows) const;
  static cuda::ActivationSinks sinks(const Forms& forms, uint32_t wanted);
  uint32_t attention_forms(const WeightSet& set) const;
  uint32_t ffn_forms(uint32_t layer) const;

  NmGpuCode run_norm(const float* weight, const float* bias, const uint32_t* rows, uint32_t count, Forms& out,
                     uint32_t wanted);
  /// Segments of one format go through one launch.
  NmGpuCode matmul(const Matmul& matmul, const std::vector<Segment>& segments);
  NmGpuCode launch_matmul(cuda::MatmulArgs args, bool exact = false);
  NmGpuCode project_qkv(uint32_t layer);
  NmGpuCode rotate_and_store(uint32_t layer);
  /// Parts in which the step's longest single-token sequence is cut.
  uint32_t decode_splits(uint32_t layer) const;
  NmGpuCode attend(uint32_t layer);
  // Latent attention (context_latent.cc).
  NmGpuCode allocate_latents();
  NmGpuCode project_latents(uint32_t layer);
  NmGpuCode write_latents(uint32_t layer);
  NmGpuCode attend_to_latents(uint32_t layer);
  /// y[t][head] = the head's matrix times columns head * stride ... of head_input_'s rows.
  NmGpuCode matmul_heads(uint32_t layer, Role role, float* y, uint32_t y_stride, uint32_t y_cols);
  NmGpuCode latent_layer(uint32_t layer);
  // Layers with a state in attention's place (context_state.cc).
  NmGpuCode allocate_state_rows();
  std::string check_states(const NmGpuSequence& sequence) const;
  /// `matrices`: the states of the delta rule, not those of the convolution.
  cuda::StateStep state_step(uint32_t layer, bool matrices) const;
  NmGpuCode project_states(uint32_t layer, std::initializer_list<Role> roles);
  NmGpuCode short_conv(uint32_t layer);
  NmGpuCode delta_rule(uint32_t layer);
  NmGpuCode state_layer(uint32_t layer);
  // Layers with norms on what their parts put out (context_norms.cc).
  NmGpuCode allocate_parts();
  /// Where the layer's parts add what they put out: the residual stream, or a buffer whose norm joins it.
  float* part_target(uint32_t layer) { return model_.layer(layer).post_norms ? part_out_ : hidden_; }
  float* expert_target(uint32_t layer) {
    return model_.layer(layer).ffn.branch_norms ? expert_out_ : part_target(layer);
  }
  float part_multiplier(uint32_t layer) const {
    return model_.layer(layer).post_norms ? 1.0F : model_.spec().residual_multiplier;
  }
  Forms& expert_forms(uint32_t layer) { return model_.layer(layer).ffn.branch_norms ? expert_x_ : x_; }
  Forms& router_forms(uint32_t layer) { return model_.layer(layer).ffn.branch_norms ? router_x_ : x_; }
  NmGpuCode norm_add(const float* x, const float* weight, float* out, float multiplier, const float* scale,
                     bool overwrite);
  NmGpuCode clear(float* rows);
  /// The inputs of router and experts that normalise for themselves.
  NmGpuCode run_branch_norms(uint32_t layer);
  NmGpuCode finish_attention_part(uint32_t layer);
  /// Once everything is in that the layer's feed-forward part puts out.
  NmGpuCode finish_ffn_part(uint32_t layer);
  /// The layer whose feed-forward part joins the residual stream before anything else does, or -1; told once.
  /// It is the same one in every step, so that graphs may hold it.
  int64_t take_unsettled() { return std::exchange(unsettled_, -1); }
  NmGpuCode settle(int64_t layer);
  NmGpuCode route(uint32_t layer);
  /// The dense block of a layer, or its shared expert.
  NmGpuCode run_dense(uint32_t layer);
  /// `unsettled`, below: of take_unsettled().
  NmGpuCode layer_body(uint32_t layer, int64_t unsettled);
  /// As a graph, where the step consists of single tokens: what it submits is then told by the key alone.
  template <class Body>
  NmGpuCode replayed(const GraphKey& key, Body body) {
    return upload_.single_tokens ? graphs_.run(key, stream_, body) : body();
  }

  NmGpuCode compute_logits(int64_t unsettled);

  cuda::ExpertShape expert_shape(uint32_t layer) const;
  /// Weights on what goes into the layer's experts; null where they are on what comes out.
  const float* input_scales(uint32_t layer) const {
    return model_.layer(layer).ffn.router.scales_input ? weights_ : nullptr;
  }
  cuda::PairRouting pair_routing(const Routed& routed, const int32_t* table) const;
  Routed routed(uint32_t layer, uint32_t tokens, uint32_t top_k) const;
  /// The given experts, resident ones first and together, the others as they arrive.
  NmGpuCode run_experts(const Routed& routed, const std::vector<Placed>& experts, uint32_t num_resident);
  static std::vector<Group> group_experts(size_t count, uint32_t num_resident);
  size_t write_plan(const Routed& routed, const std::vector<Placed>& experts, std::vector<Group>& groups);
  NmGpuCode copy_plan(size_t bytes);
  /// Makes the compute stream wait until the group's experts are in their slots.
  NmGpuCode wait_for(uint32_t layer, const std::vector<Placed>& experts, const Group& group);
  NmGpuCode mark_used(uint32_t layer, const std::vector<Placed>& experts);
  /// Bytes of a plan: a slot table of the layer, one of each group, and tiles.
  static size_t plan_size(uint32_t experts, uint32_t tiles);
  /// One group through the GEMV kernels.
  NmGpuCode run_few(const Routed& routed, const std::vector<Placed>& experts, size_t plan_bytes);
  NmGpuCode run_gemv_group(const Routed& routed, const int32_t* table);
  NmGpuCode run_gemm_group(const Routed& routed, const cuda::ExpertTile* tiles, uint32_t num_tiles,
                           uint32_t rows);
  NmGpuCode combine(const Routed& routed, const int32_t* table);

  NmGpuOptions options_;
  Failure failure_;
  Memory memory_;
  Model model_;
  Timeline timeline_;
  Slots slots_;
  Graphs graphs_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t routed_ = nullptr, finished_ = nullptr;
  bool unified_ = false;
  bool float_gemm_ = true;  ///< the device multiplies bf16 matrices
  uint32_t multiprocessors_ = 1;

  // Activations, for max_step_tokens tokens (T).
  uint32_t hidden_stride_ = 0;
  float* hidden_ = nullptr;                            ///< the residual stream [T][hidden_stride]
  Forms x_;                                            ///< norm output
  float *part_out_ = nullptr, *expert_out_ = nullptr;  ///< as hidden_: what a part puts out before its norm
  Forms expert_x_, router_x_;                          ///< norm outputs of layers where they differ from x_
  int64_t unsettled_ = -1;  ///< layer whose feed-forward part is not in the residual stream yet
  float *q_ = nullptr, *k_ = nullptr, *v_ = nullptr,
        *attention_ = nullptr;  ///< [T][stride of the widest layer]
  uint32_t q_stride_ = 0, kv_stride_ = 0;
  Forms attention_input_;         ///< of the output projection
  float* output_gate_ = nullptr;  ///< [T][q_stride]: projections of the layers whose attention is gated
  // Latent attention, strides of the widest layer: compressed rows and queries, the latter in forms; queries
  // among the latents and what they attended to [T][Q][...]; input of keyUp and valueUp, row t * Q + head.
  float *latents_ = nullptr, *query_latents_ = nullptr;
  uint32_t latent_stride_ = 0, query_latent_stride_ = 0;
  Forms query_input_, head_input_;
  float *latent_q_ = nullptr, *latent_out_ = nullptr;
  float* split_workspace_ = nullptr;
  size_t split_floats_ = 0;
  float* router_logits_ = nullptr;
  uint32_t router_stride_ = 0;
  int32_t* ids_ = nullptr;
  float *weights_ = nullptr, *gates_ = nullptr;
  uint32_t *lists_ = nullptr, *counts_ = nullptr;  ///< dispatch
  float* expert_hidden_ = nullptr;
  Forms expert_input_;  ///< of the down matrices
  uint32_t expert_cols_ = 0, max_pairs_ = 0;
  float* expert_outputs_ = nullptr;
  float* logits_ = nullptr;
  Forms final_input_;
  std::vector<uint8_t*> kv_;  ///< per layer
  uint32_t kv_blocks_ = 0;
  // Layers with states: projections and what comes out of the convolution [T][state_stride], slots.
  float *state_rows_ = nullptr, *convolved_ = nullptr, *states_ = nullptr;
  uint32_t state_stride_ = 0, num_states_ = 0;
  size_t slot_floats_ = 0;
  std::vector<size_t> state_offsets_;  ///< of a layer, in a slot

  // Plans of a layer's experts: slot tables and GEMM tiles, written by the host, read by the device.
  uint8_t *plan_host_ = nullptr, *plan_device_ = nullptr;
  uint32_t max_tiles_ = 0;

  // Results in pinned memory.
  int32_t* host_ids_ = nullptr;
  float *host_weights_ = nullptr, *host_hidden_ = nullptr, *host_logits_ = nullptr;

  StepUpload upload_;
  Phase phase_ = Phase::Idle;
  uint32_t tokens_ = 0, logit_rows_ = 0, next_layer_ = 0;
};

}  // namespace nearmoe::gpu
