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

void route_token(const FfnSpec& ffn, float* logits, int32_t* ids, float* weights) {
  const uint32_t k = ffn.top_k;
  switch (ffn.router.scoring) {
    case Scoring::Softmax: {
      softmax(logits, ffn.num_experts);
      pick_top_k(logits, ffn.num_experts, k, ids, weights);
      if (ffn.router.norm_topk_prob) {
        float sum = 0;
        for (uint32_t j = 0; j < k; ++j) sum += weights[j];
        for (uint32_t j = 0; j < k; ++j) weights[j] /= sum;
      }
      break;
    }
    case Scoring::TopkSoftmax:
      pick_top_k(logits, ffn.num_experts, k, ids, weights);
      softmax(weights, k);
      break;
    case Scoring::SparseMixer:
      route_sparse_mixer(ffn, logits, ids, weights);
      break;
  }
  sort_by_id(ids, weights, k);
}

}  // namespace nearmoe
