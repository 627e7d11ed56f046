// The GPU kernels' launchers, but for those of attention (attention_kernels.h) and of layers with a state
// (state_kernels.h): one per kernel file, each with its arguments as a struct of device pointers. Called by
// the backend, the kernel tests and the check program; none of them allocates or synchronises. The return
// value is the launch's cudaError_t; an error inside a kernel shows at the next synchronisation.
//
// T tokens, H hidden, N output rows, C columns, E experts, K experts per token, Q/G query and KV heads, D
// head dim. Activation rows are padded with zeros to a multiple of 32 columns; `stride` counts columns.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../dtypes.h"
#include "rt/gpu_rt.h"

namespace nearmoe::cuda {

/// Most slices of an expert (ranks that share it).
inline constexpr uint32_t kMaxSlices = 64;
/// Up to this many tokens a step goes through the GEMV kernels, above through the tensor-core GEMM.
inline constexpr uint32_t kGemvTokens = 8;
/// Matrices that one launch multiplies with the same input.
inline constexpr uint32_t kMaxSegments = 3;
/// Most candidates per row of top_k.
inline constexpr uint32_t kMaxCandidates = 256;
/// Most experts of a layer, most experts per token, most groups that experts lie in.
inline constexpr uint32_t kMaxExperts = 1024;
inline constexpr uint32_t kMaxTopK = 32;
inline constexpr uint32_t kMaxExpertGroups = 32;

/// A packed weight matrix (kernels/quant_format.h) in device memory.
struct WeightView {
  const uint8_t* data;
  uint32_t rows, cols;
  uint32_t group_bytes;  ///< of one group of 16 rows
  uint32_t superblocks;  ///< touched by a row (quantised formats)
  uint32_t phase;        ///< blocks of the first superblock that precede the matrix
};

/// Input rows in the forms that consumers want; null where not wanted. Row t begins at t * stride.
struct Activations {
  const float* f32;
  const uint16_t* high;   ///< bf16 nearest to the value
  const uint16_t* low;    ///< bf16 of the rest: high + low has 16 bits of mantissa
  const int8_t* q8;       ///< int8 in blocks of 32 columns, as kernels/reference/prepare_activations.cc
  const float2* q8_meta;  ///< {scale, scale * sum} of a block; row t at t * stride / 32
  uint32_t stride;
};

/// The same, to be written.
struct ActivationSinks {
  float* f32;
  uint16_t* high;
  uint16_t* low;
  int8_t* q8;
  float2* q8_meta;
  uint32_t stride;
};

// ---- embedding.cu

/// out[t] = multiplier * row token_ids[t] of the matrix. out: [T][out_stride], cols values a row.
struct EmbeddingArgs {
  DType dtype;
  WeightView weight;
  const int32_t* token_ids;
  float* out;
  uint32_t out_stride;
  uint32_t tokens;
  float multiplier;
};
cudaError_t embedding(const EmbeddingArgs& args, cudaStream_t stream);

// ---- norm.cu

/// RMSNorm, or LayerNorm where `layer_norm`; row t of the output is the norm of row rows[t] (or t) of x.
struct NormArgs {
  const float* x;
  uint32_t x_stride, cols;
  const uint32_t* rows;
  uint32_t tokens;
  const float* weight;
  const float* bias;  ///< or null
  float eps;
  bool layer_norm;
  ActivationSinks out;
};
cudaError_t norm(const NormArgs& args, cudaStream_t stream);

/// out[t] = scale * (out[t] + multiplier * the norm of x[t]): what a part of a layer puts out, normalised on
/// its way to the residual stream.
struct NormAddArgs {
  const float* x;
  uint32_t x_stride, cols, tokens;
  const float* weight;
  float eps;
  bool layer_norm;
  float* out;
  uint32_t out_stride;
  float multiplier;
  const float* scale;  ///< one value, or null: 1
  bool overwrite;      ///< take out[t] for 0
};
cudaError_t norm_add(const NormAddArgs& args, cudaStream_t stream);

// ---- prepare.cu

/// Brings float rows [rows][cols] into the forms that `out` asks for, times the sigmoid of `gate` where there
/// is one.
struct PrepareArgs {
  const float* x;
  uint32_t x_stride, rows, cols;
  ActivationSinks out;
  const float* gate = nullptr;  ///< [rows][gate_stride]
  uint32_t gate_stride = 0;
};
cudaError_t prepare(const PrepareArgs& args, cudaStream_t stream);

// ---- gemv.cu, gemm.cu

/// y[t][n] (+)= multiplier * clip(W x[t] + bias).
struct MatmulSegment {
  WeightView weight;
  const float* bias;  ///< or null
  float* y;
  uint32_t y_stride;
};
/// The matrices of several heads, multiplied in one launch: head h has weights at data + h * weight_bytes,
/// columns h * x_cols ... of the input rows (a multiple of 32) and values h * y_cols ... of the output rows.
struct MatmulHeads {
  uint32_t count;  ///< 0: no heads, the matrices as they are
  uint32_t x_cols, y_cols;
  size_t weight_bytes;
};
struct MatmulArgs {
  DType dtype;
  MatmulSegment segments[kMaxSegments];
  uint32_t num_segments;
  Activations x;
  uint32_t tokens;
  float clip;  ///< 0 = off
  float multiplier;
  bool add;  ///< add to y instead of overwriting it
  MatmulHeads heads;
};
/// At most kGemvTokens tokens. Float formats read x.f32, quantised ones x.q8.
cudaError_t gemv(const MatmulArgs& args, cudaStream_t stream);
/// Any number of tokens, tensor cores. Float formats read x.high and x.low (not on sm_75), quantised ones
/// x.q8.
cudaError_t gemm(const MatmulArgs& args, cudaStream_t stream);

// ---- router.cu

enum class ScoringKind : uint32_t { Softmax, TopkSoftmax, SparseMixer, Sigmoid, TopkSigmoid };
/// What stands for a group of experts: its best expert, or the sum of its two best.
enum class GroupScoreKind : uint32_t { Max, TopTwoSum };

/// The rule of native/runtime/router.h without the logits' bias, which comes with the projection.
struct RouterRule {
  uint32_t num_experts, top_k;
  ScoringKind scoring;
  bool normalise;
  float jitter_eps;
  /// Softmax and Sigmoid: [E] or null, added to the scores for the choice alone.
  const float* selection_bias;
  /// Softmax and Sigmoid: experts lie in equal groups (0 and 1: none), only the best of which are chosen
  /// from.
  uint32_t num_groups, chosen_groups;
  GroupScoreKind group_score;
  float weight_multiplier;
  const float* expert_scale;  ///< [E] or null: multiplies the weights
};

/// Router logits -> ids (ascending) and weights; NaN logits count as -inf.
struct RouterArgs {
  const float* logits;  ///< [T][stride]
  uint32_t stride, tokens;
  RouterRule rule;
  int32_t* ids;    ///< [T][K]
  float* weights;  ///< [T][K]
};
cudaError_t router(const RouterArgs& args, cudaStream_t stream);

// ---- dispatch.cu

/// Tokens grouped by expert: the pairs (t * K + k) of expert e, ascending, at lists[e * capacity].
struct DispatchArgs {
  const int32_t* ids;  ///< [T][K]
  uint32_t tokens, top_k, num_experts, capacity;
  uint32_t* lists;   ///< [E][capacity]
  uint32_t* counts;  ///< [E]
};
cudaError_t dispatch(const DispatchArgs& args, cudaStream_t stream);

// ---- expert_gemv.cu, expert_gemm.cu, combine.cu

/// SwigluClamped is gpt-oss's (kernels/ops.h).
enum class ActivationKind : uint32_t { Silu, GeluTanh, Gelu, SwigluClamped };

/// A slice of an expert in device-accessible memory.
struct ExpertSlice {
  const uint8_t* gate;
  const uint8_t* up;
  const uint8_t* down;
  uint32_t rows;           ///< of gate and up = columns of down
  uint32_t hidden_offset;  ///< of its first value in a row of hidden, a multiple of 32
  uint32_t down_group_bytes, down_superblocks, down_phase;
  uint32_t first_row;  ///< of gate and up, in the whole expert
};
/// An expert as kernels see it; one per VRAM slot, and one for each dense block and shared expert.
struct ExpertView {
  uint32_t num_slices;
  uint32_t hidden_cols;    ///< sum over slices of rows rounded up to 32
  const float* gate_bias;  ///< of the whole expert, as up_bias and down_bias; null where it has none
  const float* up_bias;
  const float* down_bias;
  ExpertSlice slices[kMaxSlices];
};

/// What is common to the experts of a layer and a step.
struct ExpertShape {
  DType gate_dtype;  ///< of gate and up
  DType down_dtype;
  WeightView gate;  ///< layout of a gate or up slice (data and rows unused)
  uint32_t hidden_size;
  uint32_t hidden_cols;  ///< the most of any expert
  ActivationKind activation;
};

/// Which expert each (token, k) pair goes to: view = views[slots[ids[pair]]]; slots < 0: not on the GPU. With
/// ids null there is one pair per token and view 0 (dense blocks, the shared expert).
struct PairRouting {
  const ExpertView* views;
  const int32_t* ids;
  const int32_t* slots;
  const float* weights;  ///< [pairs] or null: 1
  uint32_t tokens, top_k;
};

/// Few tokens: hidden[pair] = act(gate x + bias) * (up x + bias), then out[t] += multiplier * sum over k of
/// weight * (down hidden + bias).
struct ExpertGemvArgs {
  ExpertShape shape;
  PairRouting pairs;
  Activations x;
  const float* input_scales;  ///< [pairs] or null: multiply x
  ActivationSinks hidden;     ///< [pairs]: f32 for float down formats, q8 for quantised ones
  float* out;                 ///< [T][out_stride]
  uint32_t out_stride;
  float multiplier;
};
cudaError_t expert_gemv(const ExpertGemvArgs& args, cudaStream_t stream);

/// A run of at most expert_gemm_tile_tokens pairs of one expert: lists[first] ... lists[first + count), or
/// the pairs first ... first + count where lists is null.
struct ExpertTile {
  uint32_t view;  ///< index into views
  uint32_t first, count;
  uint32_t row;  ///< of hidden and prepared: rows row ... row + count
};
/// Many tokens: the same as grouped GEMMs. outputs[pair] = down hidden + bias, for combine to weigh and add.
struct ExpertGemmArgs {
  ExpertShape shape;
  const ExpertView* views;
  const ExpertTile* tiles;  ///< in device memory
  uint32_t num_tiles;
  const uint32_t* lists;
  uint32_t top_k;     ///< token of a pair = pair / top_k
  uint32_t num_rows;  ///< sum of the tiles' counts
  Activations x;
  const float* input_scales;  ///< [pairs] or null: multiply x
  float* hidden;              ///< [num_rows][hidden_stride], scratch
  uint32_t hidden_stride;
  ActivationSinks
      prepared;    ///< [num_rows]: high and low for float down formats, q8 for quantised ones; scratch
  float* outputs;  ///< [pairs][output_stride]
  uint32_t output_stride;
};
cudaError_t expert_gemm(const ExpertGemmArgs& args, cudaStream_t stream);
uint32_t expert_gemm_tile_tokens();

/// hidden[t] += multiplier * sum over k (ascending) of weight * outputs[pair], pairs with a slot only.
struct CombineArgs {
  float* hidden;
  uint32_t hidden_stride, cols;
  PairRouting pairs;
  const float* outputs;
  uint32_t output_stride;
  float multiplier;
};
cudaError_t combine(const CombineArgs& args, cudaStream_t stream);

/// hidden[t] += multiplier * partial[t]; partial [T][cols] may lie in mapped host memory and is read once.
struct AddPartialArgs {
  float* hidden;
  uint32_t hidden_stride, cols, tokens;
  const float* partial;
  float multiplier;
};
cudaError_t add_partial(const AddPartialArgs& args, cudaStream_t stream);

/// gates[t] = sigmoid(weight . x[t]): the shared expert's gate.
struct SharedGateArgs {
  const float* x;
  uint32_t x_stride, cols, tokens;
  const float* weight;
  float* gates;
};
cudaError_t shared_gate(const SharedGateArgs& args, cudaStream_t stream);

// ---- soft_cap.cu

/// x[row][i] = cap * tanh(x[row][i] / cap).
struct SoftCapArgs {
  float* x;
  uint32_t stride, rows, cols;
  float cap;
};
cudaError_t soft_cap(const SoftCapArgs& args, cudaStream_t stream);

// ---- top_k.cu

/// The k largest of each row, descending, ties by lower id; NaN counts as -inf.
struct TopKArgs {
  const float* logits;  ///< [rows][stride]
  uint32_t stride, rows, vocab_size, k;
  unsigned long long* workspace;  ///< top_k_workspace values
  int32_t* ids;                   ///< [rows][k]
  float* values;                  ///< [rows][k]
};
cudaError_t top_k(const TopKArgs& args, cudaStream_t stream);
size_t top_k_workspace(uint32_t rows, uint32_t vocab_size, uint32_t k);

/// True where the kernels read this weight format.
bool supports(DType dtype);
/// True where the format's input is int8 (x.q8), false where it is float.
bool wants_q8(DType dtype);

}  // namespace nearmoe::cuda
