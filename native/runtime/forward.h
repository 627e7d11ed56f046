// The forward pass as SPMD stages. Every function is called by all ranks of a group at once, each with its
// own rank, and works on that rank's share; stages that need each other's results meet at the dense barrier.
// Without a GPU lane the dense ranks are the units' ranks and run_layers does everything (tensor parallel as
// in Megatron-LM, Shoeybi et al. 2019, arXiv 1909.08053: one sum over ranks after attention, one after the
// FFN). With a GPU lane its ranks run attention and router, and experts of one plan run on the units and on
// the lane.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "buffers.h"
#include "kernels/ops.h"
#include "kv_cache.h"
#include "state_cache.h"
#include "step.h"
#include "sync.h"
#include "weights.h"

namespace nearmoe {

/// Experts of one layer that one side computes, ascending.
struct ExpertTask {
  uint32_t expert;
  const std::byte*
      slab;  ///< where the slices lie one after the other (a VRAM slot), or null: the units' own slices
};

/// One rank's part of a gated feed-forward block. Biases lie at the slice's own rows; null where there are
/// none, `down_bias` also in all slices but the first, since their partial sums are added.
struct FfnSlice {
  PackedMatrix gate, up, down;
  const float* gate_bias = nullptr;
  const float* up_bias = nullptr;
  const float* down_bias = nullptr;
};

class Forward {
 public:
  Forward(const ModelSpec& spec, const WeightStore& store, const OpTable& ops, KvCache& kv,
          StateCache& states, Buffers& buffers, const std::atomic<int32_t>* cancel_flags,
          uint32_t barrier_spins);

  /// Called by the control thread between jobs.
  void begin_step(const Step* step);
  /// A cancel flag of the step was seen up, and the step was left.
  bool aborted() const {
    return std::any_of(aborted_.begin(), aborted_.end(),
                       [](const std::atomic<bool>& seen) { return seen.load(std::memory_order_acquire); });
  }

  /// No GPU lane: layers [first, end). Cancel flags are read at the end of each layer's attention and at the
  /// end of the layer.
  void run_layers(uint32_t rank, uint32_t first, uint32_t end);
  /// GPU lane: attention and, for MoE layers, the router; dense layers complete.
  void run_attention_and_router(uint32_t rank, uint32_t layer);
  /// GPU lane: the shared expert of a MoE layer.
  void run_shared_expert(uint32_t rank, uint32_t layer) {
    dense_scratch(rank).clock.start();
    if (spec_.layers[layer].ffn.shared_intermediate_size > 0) dense_ffn(rank, layer);
  }
  /// GPU lane: this rank's slices of experts in VRAM.
  void run_gpu_experts(uint32_t rank, uint32_t layer, const std::vector<ExpertTask>& tasks);
  /// GPU lane: experts on NDP units; `unit_rank` computes its slice of those of its group.
  void run_unit_experts(uint32_t unit_rank, uint32_t layer, const std::vector<ExpertTask>& tasks);
  /// A GPU's units: brings rows [first, end) of the experts' normalised input [T][stride] to the forms that
  /// the layer's experts read.
  void prepare_expert_input(uint32_t layer, const float* normed, size_t stride, Range tokens);
  /// A GPU's units: the sum of a unit rank's slices of `tasks`, weighted by the router, in partial [T][H].
  void run_unit_partial(uint32_t unit_rank, uint32_t layer, const std::vector<ExpertTask>& tasks,
                        float* partial);
  /// Final norm and lm_head of the rows that need logits; with `candidates` > 0 (up to kMaxCandidates) also
  /// so many of each row's largest.
  void run_logits(uint32_t rank, uint32_t candidates);

  /// Experts' time of one layer per unit rank, microseconds (no GPU lane).
  const std::vector<double>& ffn_us() const { return ffn_us_; }
  const Step& step() const { return *step_; }

 private:
  enum class Part : uint8_t { Attention, Ffn };
  bool shares_tokens() const { return topology_.gpu_lane || step_->tokens > kPrivateTokens; }
  Range my_tokens(uint32_t rank) const;
  RankScratch& dense_scratch(uint32_t rank) {
    return topology_.gpu_lane ? buffers_.dense_scratch[rank] : buffers_.unit_scratch[rank];
  }
  float* hidden_row(uint32_t rank, uint32_t token);
  LayerInput& input_of(uint32_t rank) { return shares_tokens() ? buffers_.input : dense_scratch(rank).input; }
  bool has_branches(uint32_t layer) const { return spec_.layers[layer].ffn.branch_norms; }
  LayerInput& expert_input_of(uint32_t rank, uint32_t layer) {
    if (!has_branches(layer)) return input_of(rank);
    return shares_tokens() ? buffers_.expert_input : dense_scratch(rank).expert_input;
  }
  LayerInput& router_input_of(uint32_t rank, uint32_t layer) {
    if (!has_branches(layer)) return input_of(rank);
    return shares_tokens() ? buffers_.router_input : dense_scratch(rank).router_input;
  }
  /// All tokens' input of experts that no dense rank computes.
  const LayerInput& shared_expert_input(uint32_t layer) const {
    return has_branches(layer) ? buffers_.expert_input : buffers_.input;
  }

  bool is_cancelled() const;
  /// The dense barrier; the wait counts as such.
  void meet(uint32_t rank);
  /// The dense barrier behind a layer's part. False, for all ranks alike, where the step is cancelled.
  bool meet_to_go_on(uint32_t rank, Part part);
  void embed(uint32_t token, float* out) const;
  /// Adds what the previous part left: nothing yet (embeds), the ranks' partial sums, or the experts'
  /// contributions.
  void update_hidden(uint32_t layer, Part before, uint32_t token, float* hidden, RankScratch& scratch) const;
  void add_contributions(uint32_t layer, uint32_t token, float* hidden, RankScratch& scratch) const;
  /// The sum of the experts' contributions to a token, [H], in the scratch.
  float* sum_contributions(uint32_t layer, uint32_t token, RankScratch& scratch) const;
  /// The same for layers with norms on what their parts put out.
  void add_normed_attention(uint32_t layer, uint32_t token, float* hidden, RankScratch& scratch) const;
  void add_normed_ffn(uint32_t layer, uint32_t token, float* hidden, RankScratch& scratch) const;
  float* ffn_output(uint32_t layer, uint32_t token, RankScratch& scratch) const;
  void sum_partials(const std::vector<float*>& partials, uint32_t token, float* sum) const;
  /// The input of router and experts that normalise for themselves, from the hidden state.
  void prepare_branches(uint32_t rank, uint32_t layer, Range tokens);
  size_t topk_offset(uint32_t layer) const { return size_t{layer} * buffers_.max_tokens * max_top_k_; }
  void normalise(const float* x, const std::vector<float>& weight, const std::vector<float>& bias,
                 float* out) const;
  void prepare_rows(const LayerInput& input, uint32_t formats, Range rows) const;
  /// Brings the hidden state up to date, normalises and prepares it for the layer's part.
  void prepare_input(uint32_t rank, uint32_t layer, Part part);

  /// Ends with every rank's partial sum written, before the barrier.
  void attention_part(uint32_t rank, uint32_t layer);
  void project_qkv(uint32_t rank, uint32_t layer);
  void attend(uint32_t rank, uint32_t layer);
  /// `next_follows`: the rank's next call is for the head behind this one.
  void attend_head(uint32_t rank, uint32_t layer, const StepSequence& sequence, uint32_t kv_head,
                   bool next_follows);
  /// `tokens` of the sequence.
  void store_key_value(uint32_t layer, const StepSequence& sequence, uint32_t kv_head, Range tokens,
                       RankScratch& scratch);
  /// Token after token to `ready`, `stride` floats apart.
  void ready_query(uint32_t layer, const StepSequence& sequence, uint32_t kv_head, Range tokens,
                   RankScratch& scratch, float* ready, size_t stride);
  /// All but the queries and where outputs go. The blocks are in `scratch`.
  AttentionArgs attention_args(uint32_t layer, const StepSequence& sequence, uint32_t kv_head,
                               RankScratch& scratch) const;
  /// Heads that straddle ranks (forward_attention_parts.cc).
  void attend_parts(uint32_t rank, uint32_t layer);
  void attend_part(uint32_t layer, const StepSequence& sequence, uint32_t kv_head, uint32_t part,
                   AttentionArgs args, const AttentionParts& rows, RankScratch& scratch);
  void attend_head_by_parts(uint32_t layer, const StepSequence& sequence, uint32_t kv_head,
                            RankScratch& scratch);
  bool parts_are_dealt_out(const AttentionSpec& spec) const;
  void put_parts_together(uint32_t rank, uint32_t layer);
  /// Columns of a token's attention times the sigmoid of their gates, where the layer has such.
  void gate_attention(const AttentionSpec& spec, uint32_t token, Range columns);
  void add_squares(uint32_t rank, uint32_t layer);
  void full_norms(const AttentionSpec& spec, RankScratch& scratch) const;
  /// One head of a q or k projection through the spec's norm; `inverse` is 1 / rms of the whole row
  /// (QkNorm::Full).
  void normalise_head(const AttentionSpec& spec, const float* row, float inverse,
                      const std::vector<float>& weight, uint32_t first, float* head) const;
  void rotate(const AttentionSpec& spec, uint32_t token, float* heads, uint32_t count) const;
  void project_output(uint32_t rank, uint32_t layer);
  void latent_attention_part(uint32_t rank, uint32_t layer);
  void project_latents(uint32_t rank, uint32_t layer);
  void ready_latents(uint32_t rank, uint32_t layer);
  void rotate_latent(const AttentionSpec& spec, uint32_t token, float* part) const;
  void attend_latents(uint32_t rank, uint32_t layer);
  void attend_latent_tile(uint32_t rank, uint32_t layer, const StepSequence& sequence, Range tokens,
                          Range heads);
  void absorb_query(uint32_t layer, uint32_t head, Range rows, float* out, size_t ld,
                    RankScratch& scratch) const;
  void project_value(uint32_t layer, uint32_t head, Range rows, const float* weighted, size_t ld,
                     RankScratch& scratch);

  /// In attention_part's place where the layer has a state.
  void recurrent_part(uint32_t rank, uint32_t layer);
  void short_conv(uint32_t rank, uint32_t layer);
  void project_delta(uint32_t rank, uint32_t layer);
  /// Channels [begin, end) of a sequence through the convolution, in place at `column` of the projections.
  void convolve(uint32_t layer, const StepSequence& sequence, uint32_t column, Range channels, bool silu);
  void delta_heads(uint32_t rank, uint32_t layer);
  void ready_delta_keys(uint32_t layer, const StepSequence& sequence, uint32_t key_head,
                        RankScratch& scratch) const;
  void delta_head(uint32_t layer, const StepSequence& sequence, uint32_t head, RankScratch& scratch);

  void ffn_part(uint32_t rank, uint32_t layer);
  void route(uint32_t rank, uint32_t layer);
  /// Where buffers have room for guesses: the next MoE layer's experts, guessed from this layer's hidden
  /// state.
  void guess_next(uint32_t rank, uint32_t layer);
  void dense_ffn(uint32_t rank, uint32_t layer);
  void own_experts(uint32_t rank, uint32_t layer);
  /// The weighted outputs of an expert's slice, added to partial [T][H].
  void accumulate_expert(uint32_t layer, uint32_t expert, uint32_t slice, const ExpertGroups& groups,
                         const LayerInput& input, float* partial, RankScratch& scratch);
  /// One tile of a gated FFN slice: scratch.ffn_out [count][H] = down(act(gate x) * up x); `input_scales`
  /// [count] multiply the x.
  void add_bias(const float* bias, float* rows, uint32_t count, uint32_t n) const;
  void ffn_tile(const FfnSlice& slice, Activation activation, const LayerInput& input, const uint32_t* tokens,
                uint32_t first, uint32_t count, RankScratch& scratch, const float* input_scales = nullptr);
  const SlicedMatrix& lm_head() const {
    return spec_.tied_embeddings ? weights_.embedding : weights_.lm_head;
  }
  /// This rank's part of the vocabulary for all rows.
  bool project_logits(uint32_t rank);
  /// Logits of the rows `mine` of a rank's slice of the head, which begins at row `slice_begin` of the whole.
  void logit_rows(const PackedMatrix& slice, Range mine, uint32_t slice_begin);
  void choose_candidates(uint32_t rank, uint32_t rows, uint32_t count);
  void contribute(uint32_t layer, uint32_t expert, uint32_t slice, const FfnSlice& matrices,
                  RankScratch& scratch);

  const ModelSpec& spec_;
  const WeightStore& store_;
  const ModelWeights& weights_;
  const Topology& topology_;
  const OpTable& ops_;
  KvCache& kv_;
  StateCache& states_;
  Buffers& buffers_;
  const std::atomic<int32_t>* cancel_flags_;
  uint32_t max_top_k_;
  Barrier barrier_;
  const Step* step_ = nullptr;
  /// [part]: raised by rank 0 before the barrier behind that part, read by all ranks behind it. Two, so that
  /// rank 0 touches none before all ranks have read it: the other part's barrier lies between. Also raised by
  /// any rank amid the logits, where nobody waits for another.
  std::array<std::atomic<bool>, 2> aborted_{};
  std::atomic<uint32_t> chosen_{0};       // dense ranks whose candidates are there
  std::vector<double> ffn_us_;            // [layer][rank]
  std::vector<uint32_t> input_formats_;   // [layer][part]: bit per ActFormat that consumers want
  std::vector<uint32_t> expert_formats_;  // [layer]: the same of the experts alone
  std::vector<float> ones_;               // [max head dim]: the weight of norms that have none
};

/// A rank's rows of a projection for all tokens, into `out` (token stride `ld`).
void project(const OpTable& ops, const SlicedMatrix& matrix, uint32_t rank, const LayerInput& input,
             uint32_t tokens, float* out, size_t ld);
/// An expert's slice; with a slab, its matrices point into it.
FfnSlice expert_slice(const GatedFfn& expert, uint32_t slice, const std::byte* slab);
/// Bytes of an expert's slab: all slices' matrices in order.
size_t slab_size(const GatedFfn& expert);

}  // namespace nearmoe
