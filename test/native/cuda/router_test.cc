// router against the routing rule in double, written from its definition.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "harness.h"
#include "kernels/cuda/kernels.h"

namespace gpu_test {
namespace {

using namespace nearmoe::cuda;

std::vector<int32_t> best_first(const std::vector<double>& values) {
  std::vector<int32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return values[static_cast<size_t>(a)] > values[static_cast<size_t>(b)];
  });
  return order;
}

/// Experts outside the best groups to -inf.
void keep_best_groups(const RouterRule& rule, std::vector<double>& choice) {
  const size_t size = choice.size() / rule.num_groups;
  std::vector<double> scores;
  for (size_t g = 0; g < rule.num_groups; ++g) {
    std::vector<double> group(choice.begin() + static_cast<ptrdiff_t>(g * size),
                              choice.begin() + static_cast<ptrdiff_t>((g + 1) * size));
    std::sort(group.rbegin(), group.rend());
    const bool two = rule.group_score == GroupScoreKind::TopTwoSum && size > 1;
    scores.push_back(group[0] + (two ? group[1] : 0.0));
  }
  const std::vector<int32_t> order = best_first(scores);
  for (size_t i = rule.chosen_groups; i < order.size(); ++i)
    std::fill_n(choice.begin() + static_cast<ptrdiff_t>(static_cast<size_t>(order[i]) * size), size,
                -INFINITY);
}

/// What the experts are sorted by, and what their weights are made of.
void reference_scores(const RouterRule& rule, const std::vector<float>& bias, const std::vector<double>& v,
                      std::vector<double>& choice, std::vector<double>& weight) {
  const double top = *std::max_element(v.begin(), v.end());
  double all = 0;
  for (const double x : v) all += std::exp(x - top);
  choice = v;
  weight.clear();
  for (const double x : v) {
    const bool sigmoid = rule.scoring == ScoringKind::Sigmoid || rule.scoring == ScoringKind::TopkSigmoid;
    weight.push_back(sigmoid ? 1 / (1 + std::exp(-x))
                             : std::exp(x - top) / (rule.scoring == ScoringKind::Softmax ? all : 1.0));
  }
  if (!rule.selection_bias && rule.num_groups < 2) return;
  // In float, as everywhere: equal scores of different logits are ties.
  for (size_t e = 0; e < v.size(); ++e)
    choice[e] = static_cast<float>(weight[e]) + (rule.selection_bias ? bias[e] : 0.0f);
  if (rule.num_groups > 1) keep_best_groups(rule, choice);
}

double sparse_mixer_weight(const std::vector<double>& v, const std::vector<int32_t>& order, size_t k,
                           float jitter) {
  const double x = v[static_cast<size_t>(order[k])];
  double sum = 0;
  for (size_t j = k; j < order.size(); ++j) {
    const double y = v[static_cast<size_t>(order[j])];
    if ((x - y) / std::fmax(std::fabs(y), x) <= 2.0 * static_cast<double>(jitter)) sum += std::exp(y - x);
  }
  return 1 / sum;
}

void reference_router(const RouterRule& rule, const std::vector<float>& bias, const float* logits,
                      std::vector<std::pair<int32_t, double>>& out) {
  std::vector<double> v(logits, logits + rule.num_experts), choice, weight;
  for (double& x : v) x = std::isnan(x) ? -INFINITY : x;
  reference_scores(rule, bias, v, choice, weight);
  const std::vector<int32_t> order = best_first(choice);
  const bool mixer = rule.scoring == ScoringKind::SparseMixer;
  double chosen = 0;
  out.clear();
  for (size_t k = 0; k < rule.top_k; ++k) {
    const double w =
        mixer ? sparse_mixer_weight(v, order, k, rule.jitter_eps) : weight[static_cast<size_t>(order[k])];
    chosen += w;
    out.push_back({order[k], w});
  }
  const bool divide = rule.scoring == ScoringKind::TopkSoftmax ||
                      (rule.normalise && !mixer && rule.scoring != ScoringKind::TopkSigmoid);
  for (auto& [id, w] : out) {
    w = static_cast<double>(rule.weight_multiplier) * w / (divide ? std::fmax(chosen, 1e-20) : 1.0);
    if (rule.expert_scale) w *= bias[static_cast<size_t>(id)];
  }
  std::sort(out.begin(), out.end());
}

RouterRule plain(uint32_t experts, uint32_t top_k, ScoringKind scoring, bool normalise) {
  return {experts, top_k, scoring, normalise, 0.01f, nullptr, 1, 1, GroupScoreKind::Max, 1.0f, nullptr};
}

std::vector<float> router_logits(const RouterRule& rule, uint32_t tokens, uint32_t stride) {
  std::vector<float> logits = random_floats(size_t{tokens} * stride, 3.0f);
  for (uint32_t t = 0; t < tokens; ++t) {
    float* row = logits.data() + size_t{t} * stride;
    if (t % 5 == 1) {
      for (uint32_t e = 0; e < rule.num_experts; e += 2) row[e] = 4.0f;  // ties
    }
    if (t % 5 == 2 && rule.scoring != ScoringKind::SparseMixer)
      row[rule.num_experts / 2] = 200.0f;  // the others' weights underflow
    if (t % 5 == 3) row[0] = NAN;
    if (t % 5 == 4 && rule.scoring == ScoringKind::Sigmoid) {
      for (uint32_t e = 0; e < rule.num_experts; ++e) row[e] = -200.0f;  // every score underflows
    }
  }
  return logits;
}

/// `scaled`: the same values as factors on the weights.
void check_router(RouterRule rule, uint32_t tokens, bool biased = false, bool scaled = false) {
  const uint32_t stride = rule.num_experts + 3;
  const std::vector<float> logits = router_logits(rule, tokens, stride);
  const std::vector<float> bias = random_floats(rule.num_experts, 0.5f);
  const Buffer<float> device_logits(logits), device_bias(bias);
  if (biased) rule.selection_bias = device_bias.data();
  if (scaled) rule.expert_scale = device_bias.data();
  const uint32_t top_k = rule.top_k;
  Buffer<int32_t> ids(size_t{tokens} * top_k);
  Buffer<float> weights(size_t{tokens} * top_k);
  const RouterArgs args{device_logits.data(), stride, tokens, rule, ids.data(), weights.data()};
  const std::string name =
      text("router %u of %u experts, scoring %u, normalise %d, bias %d, %u of %u groups by %u, times %g%s",
           top_k, rule.num_experts, static_cast<unsigned>(rule.scoring), rule.normalise, biased,
           rule.chosen_groups, rule.num_groups, static_cast<unsigned>(rule.group_score),
           static_cast<double>(rule.weight_multiplier), scaled ? " and factors" : "");
  if (!run_in_orders(
          name, [&] { return router(args, nullptr); }, ids, weights))
    return;
  const std::vector<int32_t> got_ids = ids.get();
  std::vector<double> expected, tolerance;
  bool same = true;
  std::vector<std::pair<int32_t, double>> row;
  for (uint32_t t = 0; t < tokens; ++t) {
    reference_router(rule, bias, logits.data() + size_t{t} * stride, row);
    for (uint32_t k = 0; k < top_k; ++k) {
      same = same && got_ids[size_t{t} * top_k + k] == row[k].first;
      expected.push_back(row[k].second);
      tolerance.push_back(2e-6 * std::fabs(row[k].second) + 1e-37);
    }
  }
  check(same, name + ": ids");
  check_close(name, weights.get(), expected, tolerance);
}

GPU_TEST(router) {
  check_router(plain(128, 8, ScoringKind::Softmax, true), 9);
  check_router(plain(64, 8, ScoringKind::Softmax, false), 5);
  check_router(plain(8, 2, ScoringKind::TopkSoftmax, false), 6);
  check_router(plain(16, 2, ScoringKind::SparseMixer, false), 13);
  check_router(plain(256, 8, ScoringKind::Sigmoid, true), 5);
  check_router(plain(60, 4, ScoringKind::Softmax, false), 4);
  check_router(plain(3, 3, ScoringKind::Softmax, true), 7);
  check_router(plain(1000, 32, ScoringKind::TopkSoftmax, false), 4);
  check_router(plain(16, 1, ScoringKind::TopkSigmoid, true), 6);
  check_router(plain(7, 3, ScoringKind::Softmax, true), 6, false, true);
  check_router(plain(128, 8, ScoringKind::TopkSigmoid, false), 6, false, true);
}

GPU_TEST(router_selection) {
  for (const ScoringKind scoring : {ScoringKind::Softmax, ScoringKind::Sigmoid}) {
    for (const bool biased : {false, true}) {
      for (const GroupScoreKind score : {GroupScoreKind::Max, GroupScoreKind::TopTwoSum}) {
        RouterRule rule = plain(60, 5, scoring, biased);
        rule.weight_multiplier = 2.5f;
        check_router(rule, 6, biased);
        rule.num_groups = 10;
        rule.chosen_groups = 3;
        rule.group_score = score;
        check_router(rule, 10, biased);
        rule.num_experts = 256;  // DeepSeek-V3's
        rule.top_k = 8;
        rule.num_groups = 8;
        rule.chosen_groups = 4;
        check_router(rule, 6, biased);
      }
    }
  }
  RouterRule rule = plain(32, 4, ScoringKind::Sigmoid, true);  // groups of one
  rule.num_groups = 32;
  rule.chosen_groups = 6;
  rule.group_score = GroupScoreKind::TopTwoSum;
  check_router(rule, 5, true);
  rule.num_experts = 33;
  check(router({nullptr, 33, 1, rule, nullptr, nullptr}, nullptr) == cudaErrorInvalidValue,
        "router: groups of unequal sizes are refused");
}

}  // namespace
}  // namespace gpu_test
