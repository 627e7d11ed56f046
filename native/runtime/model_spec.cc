#include "model_spec.h"

#include <algorithm>
#include <array>

namespace nearmoe {
namespace {

template <class Get>
uint32_t max_over_layers(const ModelSpec& spec, Get get) {
  uint32_t largest = 0;
  for (const LayerSpec& layer : spec.layers) largest = std::max(largest, get(layer));
  return largest;
}

}  // namespace

uint32_t ModelSpec::max_qkv_size() const {
  return max_over_layers(*this, [](const LayerSpec& l) { return l.projected_size(); });
}
uint32_t ModelSpec::max_q_size() const {
  return max_over_layers(*this, [](const LayerSpec& l) { return l.attention.q_size(); });
}
uint32_t ModelSpec::max_out_size() const {
  return max_over_layers(*this, [](const LayerSpec& l) { return l.out_size(); });
}
uint32_t ModelSpec::max_top_k() const {
  return max_over_layers(*this, [](const LayerSpec& l) { return l.ffn.top_k; });
}
uint32_t ModelSpec::max_experts() const {
  return max_over_layers(*this, [](const LayerSpec& l) { return l.ffn.num_experts; });
}
uint32_t ModelSpec::max_intermediate() const {
  return max_over_layers(*this, [](const LayerSpec& l) {
    return std::max(l.ffn.intermediate_size, l.ffn.shared_intermediate_size);
  });
}

uint32_t ModelSpec::max_head_dim() const {
  return max_over_layers(*this, [](const LayerSpec& l) { return l.attention.head_dim; });
}
bool ModelSpec::has_branch_norms() const {
  return std::any_of(layers.begin(), layers.end(), [](const LayerSpec& l) { return l.ffn.branch_norms; });
}
bool ModelSpec::has_states() const {
  return std::any_of(layers.begin(), layers.end(), [](const LayerSpec& l) { return l.recurrent.present(); });
}

const char* role_name(Role role) {
  static constexpr std::array<const char*, kNumRoles> kNames = {
      "embedding",
      "finalNorm",
      "finalNormBias",
      "lmHead",
      "lmHeadBias",
      "attentionNorm",
      "attentionNormBias",
      "query",
      "key",
      "value",
      "queryBias",
      "keyBias",
      "valueBias",
      "queryNorm",
      "keyNorm",
      "output",
      "outputBias",
      "ffnNorm",
      "ffnNormBias",
      "gate",
      "up",
      "down",
      "router",
      "expertGate",
      "expertUp",
      "expertDown",
      "sharedGate",
      "sharedUp",
      "sharedDown",
      "sharedExpertGate",
      "routerBias",
      "routerSelectionBias",
      "attentionSinks",
      "expertGateBias",
      "expertUpBias",
      "expertDownBias",
      "queryDown",
      "latentDown",
      "keyUp",
      "valueUp",
      "attentionPostNorm",
      "ffnPostNorm",
      "sharedPostNorm",
      "expertNorm",
      "expertPostNorm",
      "routerNorm",
      "routerExpertScale",
      "layerScale",
      "outputGate",
      "convKernel",
      "convGate",
      "convInput",
      "deltaBeta",
      "deltaDecay",
      "deltaDecayRate",
      "deltaDecayBias",
      "deltaNorm",
  };
  return kNames[static_cast<size_t>(role)];
}

}  // namespace nearmoe
