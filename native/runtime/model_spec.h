// The model's shape as the runtime executes it: the C++ face of src/model/model-spec.ts (same names, same
// meaning). Built once from JavaScript by napi/spec.cc; immutable afterwards.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/ops.h"

namespace nearmoe {

enum class NormKind : uint8_t { Rms, Layer };
/// HeadUnit: per head and without a weight.
enum class QkNorm : uint8_t { None, Head, Full, HeadUnit };
enum class Scoring : uint8_t { Softmax, TopkSoftmax, SparseMixer, Sigmoid, TopkSigmoid };
/// What stands for a group of experts where whole groups are chosen first.
enum class GroupScore : uint8_t { Max, TopTwoSum };

struct RopeSpec {
  RopeStyle style = RopeStyle::Neox;
  uint32_t rotary_dim = 0;
};

/// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): keys and values are projected up from one
/// compressed row per position, which is all that the cache holds.
struct LatentSpec {
  uint32_t query_rank = 0;      ///< width of the compressed query; 0: queries are projected at once
  uint32_t key_value_rank = 0;  ///< width of the compressed key and value
  uint32_t nope_dim = 0;        ///< of a head: not rotated
  uint32_t rope_dim = 0;        ///< of a head: rotated; one rotated key part serves all heads
  uint32_t value_dim = 0;       ///< of a head

  uint32_t row_size() const { return key_value_rank + rope_dim; }
};
/// The reference code's norms of compressed rows have this whatever the config's eps is.
inline constexpr float kLatentNormEps = 1e-6F;

struct AttentionSpec {
  uint32_t num_heads = 0;
  uint32_t num_kv_heads = 0;
  uint32_t head_dim = 0;
  QkNorm qk_norm = QkNorm::None;
  bool qkv_bias = false;
  bool output_bias = false;
  float clip_qkv = 0;
  float scale = 1;
  uint32_t sliding_window = 0;
  uint32_t chunk_size = 0;  ///< 0: none; else only keys of the query's own run of so many positions are seen
  float temperature_scale = 0;  ///< 0: none; queries times 1 + scale * log1p(floor((position + 1) / floor))
  float temperature_floor = 1;
  bool value_norm = false;      ///< per head and without a weight
  bool keys_as_values = false;  ///< values are the key projection, before its norm and rotation
  int32_t rope = -1;
  bool sinks = false;        ///< per query head an extra logit in the softmax's denominator
  bool output_gate = false;  ///< every head's output is multiplied by the sigmoid of a projection of its own
  bool is_latent = false;
  LatentSpec latent;  ///< where is_latent; head_dim is then nope_dim + rope_dim and num_kv_heads 1

  uint32_t q_size() const { return num_heads * head_dim; }
  uint32_t kv_size() const { return num_kv_heads * head_dim; }
  uint32_t qkv_size() const {
    return is_latent ? latent.query_rank + latent.row_size() : gate_offset() + (output_gate ? q_size() : 0);
  }
  /// Where values and the gate begin in a projected row [queries][keys][values][gate].
  uint32_t value_offset() const { return keys_as_values ? q_size() : q_size() + kv_size(); }
  uint32_t gate_offset() const { return value_offset() + kv_size(); }
  /// Width of all heads' outputs.
  uint32_t out_size() const { return is_latent ? num_heads * latent.value_dim : q_size(); }
  uint32_t heads_per_kv() const { return num_heads / num_kv_heads; }
};

/// What a layer has in attention's place: a state of fixed size for each sequence instead of keys and values.
enum class RecurrentKind : uint8_t { None, GatedDelta, ShortConv };

/// GatedDelta: a gated delta net (arXiv 2412.06464), q, k and v through a causal convolution, each value head
/// with a matrix for a state. ShortConv: a gated causal convolution (LFM2).
struct RecurrentSpec {
  RecurrentKind kind = RecurrentKind::None;
  uint32_t conv_width = 0;
  uint32_t channels = 0;  ///< ShortConv
  uint32_t num_key_heads = 0;
  uint32_t num_value_heads = 0;
  uint32_t key_dim = 0;    ///< of a head
  uint32_t value_dim = 0;  ///< of a head
  bool tiled = false;      ///< which key head value head v reads: v % num_key_heads, not v / heads_per_key()

  bool present() const { return kind != RecurrentKind::None; }
  uint32_t keys_size() const { return num_key_heads * key_dim; }
  uint32_t values_size() const { return num_value_heads * value_dim; }
  uint32_t heads_per_key() const { return num_value_heads / num_key_heads; }
  uint32_t key_head(uint32_t value_head) const {
    return tiled ? value_head % num_key_heads : value_head / heads_per_key();
  }
  /// Channels that pass the convolution: q, k and v of all heads.
  uint32_t conv_channels() const {
    return kind == RecurrentKind::GatedDelta ? 2 * keys_size() + values_size() : channels;
  }
  /// A token's projections, GatedDelta: q, k, v, output gate, beta, decay. ShortConv: gate, input, output
  /// gate.
  uint32_t projected_size() const {
    return kind == RecurrentKind::GatedDelta ? conv_channels() + values_size() + 2 * num_value_heads
                                             : 3 * channels;
  }
  uint32_t out_size() const { return kind == RecurrentKind::GatedDelta ? values_size() : channels; }
};

struct RouterSpec {
  Scoring scoring = Scoring::Softmax;
  bool norm_topk_prob = false;
  float jitter_eps = 0;
  bool logit_bias = false;      ///< added to the logits
  bool selection_bias = false;  ///< added to the scores for the choice only, not for the weights
  uint32_t num_groups = 1;      ///< experts lie in that many equal groups ...
  uint32_t chosen_groups = 1;   ///< ... and only the best of them may be chosen from
  GroupScore group_score = GroupScore::Max;
  float weight_multiplier = 1;
  float logit_multiplier = 1;
  bool expert_scale = false;  ///< a learned factor per expert on its weight
  bool scales_input = false;  ///< the weight multiplies what goes into the expert, not what comes out
};

/// The feed-forward part of a layer: a dense block, or routed experts with an optional shared expert.
struct FfnSpec {
  bool is_moe = false;
  Activation activation = Activation::Silu;
  uint32_t intermediate_size = 0;  ///< of the dense block or of one expert
  uint32_t num_experts = 0;
  bool expert_bias = false;  ///< on gate, up and down of every expert
  uint32_t top_k = 0;
  RouterSpec router;
  uint32_t shared_intermediate_size = 0;  ///< 0: no shared expert
  bool shared_gate_sigmoid = false;
  /// Router and experts normalise the hidden state for themselves, and what shared expert and experts put out
  /// is normalised before it is added up.
  bool branch_norms = false;

  /// Intermediate size of the part every token passes: the dense block or the shared expert; 0 if there is
  /// none.
  uint32_t dense_intermediate_size() const { return is_moe ? shared_intermediate_size : intermediate_size; }
};

struct LayerSpec {
  AttentionSpec attention;  ///< of no heads where there is `recurrent`
  FfnSpec ffn;
  bool post_norms = false;    ///< norms on what attention and feed-forward part put out
  bool output_scale = false;  ///< a learned factor on the hidden state behind the layer
  RecurrentSpec recurrent = {};

  /// Width of a token's projections before attention or what is in its place, and of what comes out of it.
  uint32_t projected_size() const {
    return recurrent.present() ? recurrent.projected_size() : attention.qkv_size();
  }
  uint32_t out_size() const { return recurrent.present() ? recurrent.out_size() : attention.out_size(); }
};

struct ModelSpec {
  uint32_t hidden_size = 0;
  uint32_t vocab_size = 0;
  NormKind norm = NormKind::Rms;
  float norm_eps = 0;
  std::vector<RopeSpec> ropes;
  std::vector<LayerSpec> layers;
  bool tied_embeddings = false;
  bool lm_head_bias = false;
  float embedding_multiplier = 1;
  float residual_multiplier = 1;
  float logits_multiplier = 1;
  float logits_softcap = 0;  ///< 0: none; else cap * tanh(logit / cap)

  uint32_t max_qkv_size() const;
  uint32_t max_q_size() const;
  uint32_t max_out_size() const;
  uint32_t max_top_k() const;
  uint32_t max_experts() const;
  uint32_t max_intermediate() const;
  uint32_t max_head_dim() const;
  bool has_branch_norms() const;
  /// Whether some layer has a state for each sequence.
  bool has_states() const;
};

/// Every weight native can hold; order = WEIGHT_ROLES of src/model/model-spec.ts.
enum class Role : uint8_t {
  Embedding,
  FinalNorm,
  FinalNormBias,
  LmHead,
  LmHeadBias,
  AttentionNorm,
  AttentionNormBias,
  Query,
  Key,
  Value,
  QueryBias,
  KeyBias,
  ValueBias,
  QueryNorm,
  KeyNorm,
  Output,
  OutputBias,
  FfnNorm,
  FfnNormBias,
  Gate,
  Up,
  Down,
  Router,
  ExpertGate,
  ExpertUp,
  ExpertDown,
  SharedGate,
  SharedUp,
  SharedDown,
  SharedExpertGate,
  RouterBias,
  RouterSelectionBias,
  AttentionSinks,
  ExpertGateBias,
  ExpertUpBias,
  ExpertDownBias,
  QueryDown,
  LatentDown,
  KeyUp,
  ValueUp,
  AttentionPostNorm,
  FfnPostNorm,
  SharedPostNorm,
  ExpertNorm,
  ExpertPostNorm,
  RouterNorm,
  RouterExpertScale,
  LayerScale,
  OutputGate,
  ConvKernel,
  ConvGate,
  ConvInput,
  DeltaBeta,
  DeltaDecay,
  DeltaDecayRate,
  DeltaDecayBias,
  DeltaNorm,
};
inline constexpr uint32_t kNumRoles = 57;
const char* role_name(Role role);

}  // namespace nearmoe
