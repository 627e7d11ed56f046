// What must have been loaded before a model can run. See weights.h.
#include <algorithm>
#include <string>

#include "weights.h"

namespace nearmoe {
namespace {

bool norms_complete(const LayerSpec& spec, const LayerWeights& layer) {
  const auto there = [](std::initializer_list<const std::vector<float>*> norms) {
    return std::none_of(norms.begin(), norms.end(), [](const auto* norm) { return norm->empty(); });
  };
  if (!there({&layer.attention_norm, &layer.ffn_norm})) return false;
  if (spec.post_norms && !there({&layer.attention_post_norm, &layer.ffn_post_norm})) return false;
  return !spec.ffn.branch_norms ||
         there({&layer.shared_post_norm, &layer.expert_norm, &layer.expert_post_norm, &layer.router_norm});
}

}  // namespace

Status WeightStore::complete_attention(uint32_t index) const {
  const LayerWeights& layer = weights_.layers[index];
  const AttentionSpec& attention = spec_.layers[index].attention;
  const auto missing = [&](const char* what) {
    return Status::error(Code::WeightMissing,
                         std::string(what) + " of layer " + std::to_string(index) + " is missing");
  };
  if (!layer.query.present() || !layer.output.present()) return missing("an attention matrix");
  if (attention.output_gate && !layer.output_gate.present()) return missing("outputGate");
  if (attention.is_latent) {
    const auto whole = [&](const std::vector<PackedMatrix>& heads) {
      return heads.size() == attention.num_heads &&
             std::all_of(heads.begin(), heads.end(), [](const PackedMatrix& m) { return m.data != nullptr; });
    };
    if (!layer.latent_down.present() || layer.key_norm.empty()) return missing("latentDown or keyNorm");
    if (attention.latent.query_rank > 0 && (!layer.query_down.present() || layer.query_norm.empty()))
      return missing("queryDown or queryNorm");
    return whole(layer.key_up) && whole(layer.value_up) ? Status{} : missing("keyUp or valueUp of a head");
  }
  if (!layer.key.present() || layer.value.present() == attention.keys_as_values)
    return missing("an attention matrix");
  const bool weighted_norm = attention.qk_norm == QkNorm::Head || attention.qk_norm == QkNorm::Full;
  if (weighted_norm && (layer.query_norm.empty() || layer.key_norm.empty()))
    return missing("queryNorm or keyNorm");
  return attention.sinks && layer.attention_sinks.empty() ? missing("attentionSinks") : Status{};
}

Status WeightStore::complete() {
  for (const Arena* arena : arenas()) {
    if (filled_ && arena->unused_bytes() != 0)
      return Status::error(Code::Internal, "a repacked file holds more than the model's weights");
  }
  auto missing = [](const std::string& what) {
    return Status::error(Code::WeightMissing, what + " is missing");
  };
  if (!weights_.embedding.present()) return missing("embedding");
  if (weights_.final_norm.empty()) return missing("finalNorm");
  if (!spec_.tied_embeddings && !weights_.lm_head.present()) return missing("lmHead");
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    const LayerWeights& layer = weights_.layers[i];
    const FfnSpec& ffn = spec_.layers[i].ffn;
    const std::string where = " of layer " + std::to_string(i);
    if (!norms_complete(spec_.layers[i], layer)) return missing("a norm" + where);
    if (spec_.layers[i].output_scale && layer.layer_scale.empty()) return missing("layerScale" + where);
    if (ffn.router.expert_scale && layer.router_expert_scale.empty())
      return missing("routerExpertScale" + where);
    const auto index = static_cast<uint32_t>(i);
    const bool recurrent = spec_.layers[i].recurrent.present();
    if (Status s = recurrent ? complete_recurrent(index) : complete_attention(index); !s.ok()) return s;
    auto whole = [](const GatedFfn& f) { return f.gate.present() && f.up.present() && f.down.present(); };
    if (ffn.dense_intermediate_size() > 0 && !whole(layer.dense))
      return missing("a feed-forward matrix" + where);
    if (ffn.shared_gate_sigmoid && layer.shared_expert_gate.empty())
      return missing("sharedExpertGate" + where);
    if (ffn.is_moe && layer.router.data == nullptr) return missing("router" + where);
    if (ffn.router.logit_bias && layer.router_bias.empty()) return missing("routerBias" + where);
    if (ffn.router.selection_bias && layer.router_selection_bias.empty())
      return missing("routerSelectionBias" + where);
    for (size_t e = 0; e < layer.experts.size(); ++e) {
      const GatedFfn& expert = layer.experts[e];
      if (!whole(expert)) return missing("expert " + std::to_string(e) + where);
      if (ffn.expert_bias && (expert.gate_bias.empty() || expert.up_bias.empty() || expert.down_bias.empty()))
        return missing("a bias of expert " + std::to_string(e) + where);
    }
  }
  return {};
}

}  // namespace nearmoe
