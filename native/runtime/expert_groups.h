// Tokens grouped by expert: which (token, expert) pairs a MoE layer has in this step, in ascending expert
// order and, inside an expert, ascending token order. Pair numbers index the contribution buffer.
#pragma once

#include <cstdint>
#include <vector>

namespace nearmoe {

struct ExpertGroups {
  std::vector<uint32_t> offsets;  ///< [E + 1]: pairs of expert e are offsets[e] ... offsets[e + 1]
  std::vector<uint32_t> tokens;   ///< [pairs]
  std::vector<float> weights;     ///< [pairs]
  std::vector<uint32_t> pair_of;  ///< [T * K]: pair of a token's j-th expert

  void reserve(uint32_t max_experts, uint32_t max_pairs) {
    offsets.reserve(max_experts + 1);
    cursor_.reserve(max_experts);
    tokens.reserve(max_pairs);
    weights.reserve(max_pairs);
    pair_of.reserve(max_pairs);
  }

  void build(const int32_t* ids, const float* topk_weights, uint32_t num_tokens, uint32_t top_k,
             uint32_t num_experts) {
    const uint32_t pairs = num_tokens * top_k;
    offsets.assign(num_experts + 1, 0);
    tokens.resize(pairs);
    weights.resize(pairs);
    pair_of.resize(pairs);
    for (uint32_t i = 0; i < pairs; ++i) ++offsets[static_cast<uint32_t>(ids[i]) + 1];
    for (uint32_t e = 0; e < num_experts; ++e) offsets[e + 1] += offsets[e];
    cursor_.assign(offsets.begin(), offsets.end() - 1);
    for (uint32_t i = 0; i < pairs; ++i) {
      const uint32_t pair = cursor_[static_cast<uint32_t>(ids[i])]++;
      tokens[pair] = i / top_k;
      weights[pair] = topk_weights[i];
      pair_of[i] = pair;
    }
  }

 private:
  std::vector<uint32_t> cursor_;
};

}  // namespace nearmoe
