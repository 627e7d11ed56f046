#include "router.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace nearmoe {
namespace {

constexpr float kMinusInf = -std::numeric_limits<float>::infinity();

uint32_t index_of_max(const float* x, uint32_t n) {
  uint32_t best = 0;
  for (uint32_t i = 1; i < n; ++i) {
    if (x[i] > x[best]) best = i;
  }
  return best;
}

void softmax(float* x, uint32_t n) {
  const float largest = x[index_of_max(x, n)];
  float sum = 0;
  for (uint32_t i = 0; i < n; ++i) {
    x[i] = std::exp(x[i] - largest);
    sum += x[i];
  }
  for (uint32_t i = 0; i < n; ++i) x[i] /= sum;
}

void sigmoid(float* x, uint32_t n) {
  for (uint32_t i = 0; i < n; ++i) x[i] = 1.0F / (1.0F + std::exp(-x[i]));
}

/// Picks the k largest of x; x's chosen entries become -inf.
void pick_top_k(float* x, uint32_t n, uint32_t k, int32_t* ids, float* values) {
  for (uint32_t j = 0; j < k; ++j) {
    const uint32_t best = index_of_max(x, n);
    ids[j] = static_cast<int32_t>(best);
    values[j] = x[best];
    x[best] = kMinusInf;
  }
}

/// One pick of SparseMixer (Liu et al. 2023, arXiv 2310.00811) at inference: the best score, weighted by a
/// softmax over the scores within the jitter band below it. `scores` keeps all scores, `masked` has earlier
/// picks at -inf.
float sparse_mixer_pick(const float* scores, float* masked, uint32_t n, float jitter, int32_t* id) {
  const uint32_t best = index_of_max(masked, n);
  const float threshold = masked[best];
  float sum = 0;
  for (uint32_t i = 0; i < n; ++i) {
    const float factor = std::max(std::fabs(scores[i]), threshold);
    const bool outside = (threshold - scores[i]) / factor > 2 * jitter;
    if (!outside && masked[i] != kMinusInf) sum += std::exp(masked[i] - threshold);
  }
  *id = static_cast<int32_t>(best);
  masked[best] = kMinusInf;
  return 1 / sum;
}

void route_sparse_mixer(const FfnSpec& ffn, float* logits, int32_t* ids, float* weights) {
  float masked[1024];
  const uint32_t n = ffn.num_experts;
  std::copy(logits, logits + n, masked);
  for (uint32_t j = 0; j < ffn.top_k; ++j) {
    weights[j] = sparse_mixer_pick(logits, masked, n, ffn.router.jitter_eps, &ids[j]);
  }
}

float group_score(const float* x, uint32_t n, GroupScore score) {
  const uint32_t first = index_of_max(x, n);
  if (score == GroupScore::Max || n < 2) return x[first];
  float second = kMinusInf;
  for (uint32_t i = 0; i < n; ++i) {
    if (i != first) second = std::max(second, x[i]);
  }
  return x[first] + second;
}

/// Group-limited choice (DeepSeek-V2, arXiv 2405.04434): experts outside the best groups are out.
void mask_groups(const RouterSpec& router, float* scores, uint32_t n) {
  float groups[1024];
  const uint32_t size = n / router.num_groups;
  for (uint32_t g = 0; g < router.num_groups; ++g)
    groups[g] = group_score(scores + g * size, size, router.group_score);
  bool chosen[1024] = {};
  for (uint32_t j = 0; j < router.chosen_groups; ++j) {
    const uint32_t best = index_of_max(groups, router.num_groups);
    chosen[best] = true;
    groups[best] = kMinusInf;
  }
  for (uint32_t g = 0; g < router.num_groups; ++g) {
    if (!chosen[g]) std::fill_n(scores + g * size, size, kMinusInf);
  }
}

/// The k best by score, where the choice may look at biased or masked scores while weights are the plain
/// ones.
void pick_by_score(const FfnSpec& ffn, const LayerWeights& layer, float* scores, int32_t* ids,
                   float* weights) {
  const RouterSpec& router = ffn.router;
  const uint32_t n = ffn.num_experts;
  float choice[1024];
  std::copy(scores, scores + n, choice);
  if (router.selection_bias) {
    for (uint32_t i = 0; i < n; ++i) choice[i] += layer.router_selection_bias[i];
  }
  if (router.num_groups > 1) mask_groups(router, choice, n);
  pick_top_k(choice, n, ffn.top_k, ids, weights);
  for (uint32_t j = 0; j < ffn.top_k; ++j) weights[j] = scores[ids[j]];
}

void normalise(float* weights, uint32_t k) {
  // The smallest sum keeps the quotient finite where every chosen score has underflown to 0.
  constexpr float kSmallestSum = 1e-20F;
  float sum = 0;
  for (uint32_t j = 0; j < k; ++j) sum += weights[j];
  for (uint32_t j = 0; j < k; ++j) weights[j] /= std::max(sum, kSmallestSum);
}

void sort_by_id(int32_t* ids, float* weights, uint32_t k) {
  for (uint32_t i = 1; i < k; ++i) {
    const int32_t id = ids[i];
    const float weight = weights[i];
    uint32_t j = i;
    for (; j > 0 && ids[j - 1] > id; --j) {
      ids[j] = ids[j - 1];
      weights[j] = weights[j - 1];
    }
    ids[j] = id;
    weights[j] = weight;
  }
}

}  // namespace

void route_token(const FfnSpec& ffn, const LayerWeights& layer, float* logits, int32_t* ids, float* weights) {
  const RouterSpec& router = ffn.router;
  const uint32_t k = ffn.top_k;
  if (router.logit_multiplier != 1) {
    for (uint32_t i = 0; i < ffn.num_experts; ++i) logits[i] *= router.logit_multiplier;
  }
  if (router.logit_bias) {
    for (uint32_t i = 0; i < ffn.num_experts; ++i) logits[i] += layer.router_bias[i];
  }
  switch (router.scoring) {
    case Scoring::Softmax:
    case Scoring::Sigmoid:
      (router.scoring == Scoring::Softmax ? softmax : sigmoid)(logits, ffn.num_experts);
      pick_by_score(ffn, layer, logits, ids, weights);
      if (router.norm_topk_prob) normalise(weights, k);
      break;
    case Scoring::TopkSoftmax:
      pick_top_k(logits, ffn.num_experts, k, ids, weights);
      softmax(weights, k);
      break;
    case Scoring::TopkSigmoid:
      pick_top_k(logits, ffn.num_experts, k, ids, weights);
      sigmoid(weights, k);
      break;
    case Scoring::SparseMixer:
      route_sparse_mixer(ffn, logits, ids, weights);
      break;
  }
  for (uint32_t j = 0; j < k; ++j) {
    weights[j] *= router.weight_multiplier;
    if (router.expert_scale) weights[j] *= layer.router_expert_scale[static_cast<size_t>(ids[j])];
  }
  sort_by_id(ids, weights, k);
}

}  // namespace nearmoe
