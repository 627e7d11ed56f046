// The routing rule: router logits -> the K experts of each token and their weights, as
// native/runtime/router.cc does it. A warp a token; lane l holds the logits of experts l, l + 32, ... Ties
// are won by the lower id.
#include "kernels.h"
#include "reduce.cuh"

namespace nearmoe::cuda {
namespace {

constexpr uint32_t kWarps = 4;

/// The largest value that is not taken yet, over the warp, and its expert (or group).
struct Best {
  float value;
  int expert;
};

template <int PER>
__device__ __forceinline__ Best find_best(const float (&v)[PER], unsigned taken, int lane) {
  Best best{-INFINITY, 0x7fffffff};
#pragma unroll
  for (int i = 0; i < PER; ++i) {
    const bool free = !(taken >> i & 1u);
    if (free && (best.expert == 0x7fffffff || v[i] > best.value)) best = {v[i], lane + 32 * i};
  }
#pragma unroll
  for (int offset = 16; offset; offset >>= 1) {
    const float value = __shfl_xor_sync(kAllLanes, best.value, offset);
    const int expert = __shfl_xor_sync(kAllLanes, best.expert, offset);
    if (value > best.value || (value == best.value && expert < best.expert)) best = {value, expert};
  }
  return best;
}

/// Value `expert` of the warp's, in every lane.
template <int PER>
__device__ __forceinline__ float value_of(const float (&v)[PER], int expert, int lane) {
  float own = 0.0f;
#pragma unroll
  for (int i = 0; i < PER; ++i) {
    if (lane + 32 * i == expert) own = v[i];
  }
  return __shfl_sync(kAllLanes, own, expert & 31);
}

/// SparseMixer at inference (Liu et al. 2023, arXiv 2310.00811): weight of a pick = its softmax among the
/// experts that are not taken and lie within the jitter band below it.
template <int PER>
__device__ __forceinline__ float sparse_mixer_weight(const float (&v)[PER], unsigned taken, float threshold,
                                                     float jitter) {
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < PER; ++i) {
    const float factor = fmaxf(fabsf(v[i]), threshold);
    const bool outside = (threshold - v[i]) / factor > 2.0f * jitter;
    if (!outside && !(taken >> i & 1u) && v[i] != -INFINITY) sum += expf(v[i] - threshold);
  }
  return 1.0f / warp_sum(sum);
}

/// What experts [first, first + size) count as a group.
template <int PER>
__device__ __forceinline__ float score_group(const float (&choice)[PER], int first, int size,
                                             GroupScoreKind kind, int lane) {
  float top = -INFINITY, second = -INFINITY;
#pragma unroll
  for (int i = 0; i < PER; ++i) {
    const int expert = lane + 32 * i;
    if (expert < first || expert >= first + size) continue;
    second = fmaxf(second, fminf(top, choice[i]));
    top = fmaxf(top, choice[i]);
  }
#pragma unroll
  for (int offset = 16; offset; offset >>= 1) {
    const float other = __shfl_xor_sync(kAllLanes, top, offset);
    second = fmaxf(fmaxf(second, __shfl_xor_sync(kAllLanes, second, offset)), fminf(top, other));
    top = fmaxf(top, other);
  }
  return kind == GroupScoreKind::Max || size < 2 ? top : top + second;
}

/// Group-limited choice (DeepSeek-V2, arXiv 2405.04434): experts outside the best groups are out.
template <int PER>
__device__ __forceinline__ void mask_groups(const RouterRule& rule, float (&choice)[PER], int lane) {
  const int groups = static_cast<int>(rule.num_groups), size = static_cast<int>(rule.num_experts) / groups;
  float scores[1] = {-INFINITY};  // lane g has group g's
  for (int g = 0; g < groups; ++g) {
    const float score = score_group(choice, g * size, size, rule.group_score, lane);
    if (lane == g) scores[0] = score;
  }
  unsigned chosen = 0;
  for (uint32_t j = 0; j < rule.chosen_groups; ++j) {
    const bool out = lane >= groups || (chosen >> lane & 1u);
    chosen |= 1u << find_best(scores, out ? 1u : 0u, lane).expert;
  }
#pragma unroll
  for (int i = 0; i < PER; ++i) {
    const int group = (lane + 32 * i) / size;
    if (group < groups && !(chosen >> group & 1u)) choice[i] = -INFINITY;
  }
}

/// An expert's score, of which the weight of a pick is made; not for SparseMixer.
__device__ __forceinline__ float score_expert(ScoringKind scoring, float logit, float largest, float all) {
  if (scoring == ScoringKind::Sigmoid || scoring == ScoringKind::TopkSigmoid)
    return 1.0f / (1.0f + expf(-logit));
  const float e = expf(logit - largest);
  return scoring == ScoringKind::Softmax ? e / all : e;
}

/// What the experts are chosen by: the logits where nothing but their order counts, else the biased scores of
/// the best groups.
template <int PER>
__device__ __forceinline__ void rank_experts(const RouterRule& rule, const float (&v)[PER], float largest,
                                             float all, float (&choice)[PER], int lane) {
  const bool scores = rule.scoring == ScoringKind::Softmax || rule.scoring == ScoringKind::Sigmoid;
  const bool plain = !scores || (!rule.selection_bias && rule.num_groups < 2);
#pragma unroll
  for (int i = 0; i < PER; ++i) {
    const int expert = lane + 32 * i;
    choice[i] = v[i];
    if (plain || expert >= static_cast<int>(rule.num_experts)) continue;
    choice[i] = score_expert(rule.scoring, v[i], largest, all);
    if (rule.selection_bias) choice[i] += rule.selection_bias[expert];
  }
  if (!plain && rule.num_groups > 1) mask_groups(rule, choice, lane);
}

template <int PER>
__global__ void __launch_bounds__(kWarps * 32) router_kernel(RouterArgs args) {
  // The smallest sum keeps the quotient finite where every chosen score has underflown to 0.
  constexpr float kSmallestSum = 1e-20f;
  const RouterRule& rule = args.rule;
  const uint32_t token = blockIdx.x * kWarps + (threadIdx.x >> 5);
  const int lane = static_cast<int>(threadIdx.x & 31), experts = static_cast<int>(rule.num_experts);
  if (token >= args.tokens) return;  // whole warps
  const float* logits = args.logits + static_cast<size_t>(token) * args.stride;
  float v[PER], choice[PER];
  unsigned taken = 0;  // bit i: expert lane + 32 i is chosen or does not exist
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < PER; ++i) {
    const int expert = lane + 32 * i;
    v[i] = expert < experts ? logits[expert] : -INFINITY;
    if (!(v[i] == v[i])) v[i] = -INFINITY;
    if (expert >= experts) taken |= 1u << i;
  }
  const float largest = find_best(v, taken, lane).value;
#pragma unroll
  for (int i = 0; i < PER; ++i) sum += v[i] == -INFINITY ? 0.0f : expf(v[i] - largest);
  const float all = warp_sum(sum);  // the softmax's denominator over all experts
  rank_experts(rule, v, largest, all, choice, lane);
  float weight = 0.0f, chosen = 0.0f;
  int id = 0x7fffffff;
  for (int k = 0; k < static_cast<int>(rule.top_k); ++k) {
    const int best = find_best(choice, taken, lane).expert;
    const float logit = value_of(v, best, lane);
    const float w = rule.scoring == ScoringKind::SparseMixer
                        ? sparse_mixer_weight(v, taken, logit, rule.jitter_eps)
                        : score_expert(rule.scoring, logit, largest, all);
    if (lane == k) {
      id = best;
      weight = w;
    }
    chosen += w;
    if ((best & 31) == lane) taken |= 1u << (best >> 5);
  }
  const bool of_all = rule.scoring == ScoringKind::Softmax || rule.scoring == ScoringKind::Sigmoid;
  const bool divide = rule.scoring == ScoringKind::TopkSoftmax || (rule.normalise && of_all);
  if (divide) weight /= fmaxf(chosen, kSmallestSum);
  int rank = 0;
  for (int k = 0; k < static_cast<int>(rule.top_k); ++k) rank += __shfl_sync(kAllLanes, id, k) < id;
  if (lane >= static_cast<int>(rule.top_k)) return;
  const size_t at = static_cast<size_t>(token) * rule.top_k + static_cast<size_t>(rank);
  args.ids[at] = id;
  weight *= rule.weight_multiplier;
  args.weights[at] = rule.expert_scale ? weight * rule.expert_scale[id] : weight;
}

}  // namespace

cudaError_t router(const RouterArgs& args, cudaStream_t stream) {
  const RouterRule& rule = args.rule;
  const bool grouped = rule.num_groups > 1;
  if (rule.num_experts > kMaxExperts || rule.top_k > kMaxTopK || rule.top_k > rule.num_experts ||
      (grouped && (rule.num_groups > kMaxExpertGroups || rule.num_experts % rule.num_groups != 0 ||
                   rule.chosen_groups > rule.num_groups)))
    return cudaErrorInvalidValue;
  const dim3 grid((args.tokens + kWarps - 1) / kWarps), block(kWarps * 32);
  const auto run = [&]<int PER>() {
    return gpu_launch("router", router_kernel<PER>, grid, block, 0, stream, args);
  };
  if (rule.num_experts <= 64) return run.template operator()<2>();
  if (rule.num_experts <= 128) return run.template operator()<4>();
  if (rule.num_experts <= 256) return run.template operator()<8>();
  return run.template operator()<32>();
}

}  // namespace nearmoe::cuda
