#include "spec.h"

#include <string>

#include "args.h"

namespace nearmoe {
namespace {

using args::Fields;

// Bounds are far above any real model; they keep every product of two sizes inside 64 bits.
constexpr uint32_t kMaxSize = 1U << 20;
constexpr uint32_t kMaxVocab = 1U << 24;
constexpr uint32_t kMaxExperts = 1024;
constexpr const char* kActivations[] = {"silu", "gelu_tanh", "gelu", "swiglu_clamped"};

RopeSpec read_rope(const Fields& fields) {
  RopeSpec rope;
  static constexpr const char* kStyles[] = {"neox", "interleaved"};
  rope.style = static_cast<RopeStyle>(fields.choice("style", kStyles));
  rope.rotary_dim = fields.integer("rotaryDim", 2, kMaxSize);
  return rope;
}

LatentSpec read_latent(const Fields& fields) {
  LatentSpec spec;
  spec.query_rank = fields.integer("queryRank", 0, kMaxSize);
  spec.key_value_rank = fields.integer("keyValueRank", 1, kMaxSize);
  spec.nope_dim = fields.integer("nopeHeadDim", 1, kMaxSize);
  spec.rope_dim = fields.integer("ropeHeadDim", 2, kMaxSize);
  spec.value_dim = fields.integer("valueHeadDim", 1, kMaxSize);
  return spec;
}

void read_temperature(Napi::Env env, const Fields& fields, AttentionSpec& spec) {
  spec.temperature_scale = fields.real("scale");
  spec.temperature_floor = fields.real("floorScale");
  if (!(spec.temperature_floor > 0)) args::fail(env, "`floorScale` is not above 0");
}

AttentionSpec read_attention(Napi::Env env, const Fields& fields, uint32_t num_ropes) {
  AttentionSpec spec;
  static constexpr const char* kKinds[] = {"gqa", "mla", "none"};
  static constexpr const char* kNorms[] = {"none", "head", "full", "head-unit"};
  const uint32_t kind = fields.choice("kind", kKinds);
  if (kind == 2) return spec;
  spec.is_latent = kind == 1;
  spec.num_heads = fields.integer("numHeads", 1, kMaxSize);
  spec.num_kv_heads = fields.integer("numKvHeads", 1, kMaxSize);
  spec.head_dim = fields.integer("headDim", 1, kMaxSize);
  spec.qk_norm = static_cast<QkNorm>(fields.choice("qkNorm", kNorms));
  spec.qkv_bias = fields.boolean("qkvBias");
  spec.output_bias = fields.boolean("outputBias");
  spec.clip_qkv = fields.real("clipQkv");
  spec.scale = fields.real("scale");
  spec.sliding_window = fields.integer("slidingWindow", 0, UINT32_MAX);
  spec.rope = static_cast<int32_t>(fields.number("rope", -1, static_cast<double>(num_ropes) - 1));
  if (fields.has("sinks")) spec.sinks = fields.boolean("sinks");
  if (fields.has("valueNorm")) spec.value_norm = fields.boolean("valueNorm");
  if (fields.has("keysAsValues")) spec.keys_as_values = fields.boolean("keysAsValues");
  if (fields.has("chunkSize")) spec.chunk_size = fields.integer("chunkSize", 1, UINT32_MAX);
  if (fields.has("temperature")) read_temperature(env, fields.object("temperature"), spec);
  if (fields.has("outputGate")) spec.output_gate = fields.boolean("outputGate");
  if (spec.is_latent) {
    spec.latent = read_latent(fields.object("latent"));
    if (spec.output_gate) args::fail(env, "`outputGate` with latent attention");
    if (spec.head_dim != spec.latent.nope_dim + spec.latent.rope_dim || spec.num_kv_heads != 1)
      args::fail(env, "`headDim` is not `nopeHeadDim` + `ropeHeadDim`, or `numKvHeads` is not 1");
    if (uint64_t{spec.num_heads} * spec.latent.value_dim > kMaxSize)
      args::fail(env, "`numHeads` x `valueHeadDim` is too large");
  }
  if (spec.num_heads % spec.num_kv_heads != 0)
    args::fail(env, "`numHeads` is not a multiple of `numKvHeads`");
  if (uint64_t{spec.num_heads} * spec.head_dim > kMaxSize)
    args::fail(env, "`numHeads` x `headDim` is too large");
  return spec;
}

/// `attention` of kind "none" has one in its place.
RecurrentSpec read_recurrent(Napi::Env env, const Fields& fields, const AttentionSpec& attention) {
  RecurrentSpec spec;
  static constexpr const char* kKinds[] = {"gated-delta", "short-conv"};
  static constexpr const char* kOrders[] = {"grouped", "tiled"};
  if (attention.num_heads > 0) args::fail(env, "a layer has both `attention` and `recurrent`");
  const bool is_delta = fields.choice("kind", kKinds) == 0;
  spec.kind = is_delta ? RecurrentKind::GatedDelta : RecurrentKind::ShortConv;
  spec.conv_width = fields.integer("convWidth", 1, kMaxConvWidth);
  if (!is_delta) {
    spec.channels = fields.integer("channels", 1, kMaxSize);
    return spec;
  }
  spec.num_key_heads = fields.integer("numKeyHeads", 1, kMaxSize);
  spec.num_value_heads = fields.integer("numValueHeads", 1, kMaxSize);
  spec.key_dim = fields.integer("keyHeadDim", 1, kMaxSize);
  spec.value_dim = fields.integer("valueHeadDim", 1, kMaxSize);
  spec.tiled = fields.choice("valueHeadOrder", kOrders) == 1;
  const uint64_t values = uint64_t{spec.num_value_heads} * spec.value_dim;
  if (spec.num_value_heads % spec.num_key_heads != 0)
    args::fail(env, "`numValueHeads` is not a multiple of `numKeyHeads`");
  if (uint64_t{spec.num_key_heads} * spec.key_dim > kMaxSize || values > kMaxSize ||
      values * spec.key_dim > UINT32_MAX)
    args::fail(env, "heads of the delta net are too large");
  return spec;
}

void read_groups(Napi::Env env, const Fields& fields, FfnSpec& ffn) {
  static constexpr const char* kScores[] = {"max", "top-two-sum"};
  ffn.router.num_groups = fields.integer("count", 1, kMaxExperts);
  ffn.router.chosen_groups = fields.integer("chosen", 1, ffn.router.num_groups);
  ffn.router.group_score = static_cast<GroupScore>(fields.choice("score", kScores));
  if (ffn.num_experts % ffn.router.num_groups != 0)
    args::fail(env, "`numExperts` is not a multiple of `groups.count`");
  if (ffn.num_experts / ffn.router.num_groups * ffn.router.chosen_groups < ffn.top_k)
    args::fail(env, "`groups.chosen` groups hold fewer than `numExpertsPerTok` experts");
}

void read_moe(Napi::Env env, const Fields& fields, FfnSpec& ffn) {
  static constexpr const char* kScorings[] = {"softmax", "topk-softmax", "sparsemixer", "sigmoid",
                                              "topk-sigmoid"};
  static constexpr const char* kGates[] = {"none", "sigmoid"};
  ffn.num_experts = fields.integer("numExperts", 1, kMaxExperts);
  ffn.top_k = fields.integer("numExpertsPerTok", 1, kMaxExperts);
  if (ffn.top_k > ffn.num_experts) args::fail(env, "`numExpertsPerTok` is larger than `numExperts`");
  if (fields.has("expertBias")) ffn.expert_bias = fields.boolean("expertBias");
  const Fields router = fields.object("router");
  ffn.router.scoring = static_cast<Scoring>(router.choice("scoring", kScorings));
  ffn.router.norm_topk_prob = router.boolean("normTopkProb");
  ffn.router.jitter_eps = router.real("jitterEps");
  if (router.has("logitBias")) ffn.router.logit_bias = router.boolean("logitBias");
  if (router.has("selectionBias")) ffn.router.selection_bias = router.boolean("selectionBias");
  if (router.has("weightMultiplier")) ffn.router.weight_multiplier = router.real("weightMultiplier");
  if (router.has("logitMultiplier")) ffn.router.logit_multiplier = router.real("logitMultiplier");
  if (router.has("expertScale")) ffn.router.expert_scale = router.boolean("expertScale");
  if (router.has("scalesInput")) ffn.router.scales_input = router.boolean("scalesInput");
  if (fields.has("branchNorms")) ffn.branch_norms = fields.boolean("branchNorms");
  if (router.has("groups")) read_groups(env, router.object("groups"), ffn);
  if (!fields.has("sharedExpert")) return;
  const Fields shared = fields.object("sharedExpert");
  ffn.shared_intermediate_size = shared.integer("intermediateSize", 1, kMaxSize);
  ffn.shared_gate_sigmoid = shared.choice("gate", kGates) == 1;
}

FfnSpec read_ffn(Napi::Env env, const Fields& fields) {
  FfnSpec ffn;
  static constexpr const char* kKinds[] = {"dense", "moe"};
  ffn.is_moe = fields.choice("kind", kKinds) == 1;
  ffn.activation = static_cast<Activation>(fields.choice("activation", kActivations));
  ffn.intermediate_size = fields.integer("intermediateSize", 1, kMaxSize);
  if (ffn.is_moe) read_moe(env, fields, ffn);
  return ffn;
}

}  // namespace

ModelSpec read_spec(Napi::Env env, const Napi::Value& value) {
  ModelSpec spec;
  const Fields fields(env, value, "spec");
  static constexpr const char* kNorms[] = {"rms", "layer"};
  spec.hidden_size = fields.integer("hiddenSize", 1, kMaxSize);
  spec.vocab_size = fields.integer("vocabSize", 1, kMaxVocab);
  const Fields norm = fields.object("norm");
  spec.norm = static_cast<NormKind>(norm.choice("kind", kNorms));
  spec.norm_eps = norm.real("eps");
  const Napi::Array ropes = fields.array("ropes");
  for (uint32_t i = 0; i < ropes.Length(); ++i)
    spec.ropes.push_back(read_rope({env, ropes.Get(i), "spec.ropes[]"}));
  const Napi::Array layers = fields.array("layers");
  for (uint32_t i = 0; i < layers.Length(); ++i) {
    const Fields layer(env, layers.Get(i), "spec.layers[" + std::to_string(i) + "]");
    spec.layers.push_back(
        {read_attention(env, layer.object("attention"), ropes.Length()), read_ffn(env, layer.object("ffn"))});
    if (layer.has("postNorms")) spec.layers.back().post_norms = layer.boolean("postNorms");
    if (layer.has("outputScale")) spec.layers.back().output_scale = layer.boolean("outputScale");
    const FfnSpec& ffn = spec.layers.back().ffn;
    if (ffn.branch_norms && (!spec.layers.back().post_norms || ffn.shared_intermediate_size == 0))
      args::fail(env, "`branchNorms` without `postNorms` or `sharedExpert`");
    const AttentionSpec& attention = spec.layers.back().attention;
    if (layer.has("recurrent"))
      spec.layers.back().recurrent = read_recurrent(env, layer.object("recurrent"), attention);
    else if (attention.num_heads == 0)
      args::fail(env, "a layer has neither `attention` nor `recurrent`");
    const uint32_t rotated = attention.is_latent ? attention.latent.rope_dim : attention.head_dim;
    if (attention.rope >= 0 && spec.ropes[static_cast<size_t>(attention.rope)].rotary_dim > rotated)
      args::fail(env, "`rotaryDim` is larger than what a head has to rotate");
    if (attention.rope < 0 && attention.is_latent) args::fail(env, "latent attention without `rope`");
  }
  if (spec.layers.empty()) args::fail(env, "`spec.layers` is empty");
  spec.tied_embeddings = fields.boolean("tiedEmbeddings");
  spec.lm_head_bias = fields.boolean("lmHeadBias");
  spec.embedding_multiplier = fields.real("embeddingMultiplier");
  spec.residual_multiplier = fields.real("residualMultiplier");
  spec.logits_multiplier = fields.real("logitsMultiplier");
  if (fields.has("logitsSoftcap")) spec.logits_softcap = fields.real("logitsSoftcap");
  return spec;
}

}  // namespace nearmoe
