// The routing rule: router logits -> the K experts of each token and their weights, as
// native/runtime/router.cc does it. A warp a token; lane l holds the logits of experts l, l + 32, ... Ties
// are won by the lower id.
#include "kernels.h"
#include "reduce.cuh"

namespace nearmoe::cuda {
namespace {

constexpr uint32_t kWarps = 4;

/// The largest logit that is not taken yet, over the warp, and its expert.
struct Best {
  float logit;
  int expert;
};

template <int PER>
__device__ __forceinline__ Best find_best(const float (&v)[PER], unsigned taken, int lane) {
  Best best{-INFINITY, 0x7fffffff};
#pragma unroll
  for (int i = 0; i < PER; ++i) {
    const bool free = !(taken >> i & 1u);
    if (free && (best.expert == 0x7fffffff || v[i] > best.logit)) best = {v[i], lane + 32 * i};
  }
#pragma unroll
  for (int offset = 16; offset; offset >>= 1) {
    const float logit = __shfl_xor_sync(kAllLanes, best.logit, offset);
    const int expert = __shfl_xor_sync(kAllLanes, best.expert, offset);
    if (logit > best.logit || (logit == best.logit && expert < best.expert)) best = {logit, expert};
  }
  return best;
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

template <int PER>
__global__ void __launch_bounds__(kWarps * 32) router_kernel(RouterArgs args) {
  const uint32_t token = blockIdx.x * kWarps + (threadIdx.x >> 5);
  const int lane = static_cast<int>(threadIdx.x & 31), experts = static_cast<int>(args.num_experts);
  if (token >= args.tokens) return;  // whole warps
  const float* logits = args.logits + static_cast<size_t>(token) * args.stride;
  float v[PER];
  unsigned taken = 0;  // bit i: expert lane + 32 i is chosen or does not exist
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < PER; ++i) {
    const int expert = lane + 32 * i;
    v[i] = expert < experts ? logits[expert] : -INFINITY;
    if (!(v[i] == v[i])) v[i] = -INFINITY;
    if (expert >= experts) taken |= 1u << i;
  }
  const float largest = find_best(v, taken, lane).logit;
#pragma unroll
  for (int i = 0; i < PER; ++i) sum += v[i] == -INFINITY ? 0.0f : expf(v[i] - largest);
  const float all = warp_sum(sum);  // the softmax's denominator over all experts
  float weight = 0.0f, chosen = 0.0f;
  int id = 0x7fffffff;
  for (int k = 0; k < static_cast<int>(args.top_k); ++k) {
    const Best best = find_best(v, taken, lane);
    float w = 0.0f;
    switch (args.scoring) {
      case ScoringKind::Softmax:
        w = expf(best.logit - largest) / all;
        break;
      case ScoringKind::TopkSoftmax:
        w = expf(best.logit - largest);
        break;
      case ScoringKind::Sigmoid:
        w = 1.0f / (1.0f + expf(-best.logit));
        break;
      case ScoringKind::SparseMixer:
        w = sparse_mixer_weight(v, taken, best.logit, args.jitter_eps);
        break;
    }
    if (lane == k) {
      id = best.expert;
      weight = w;
    }
    chosen += w;
    if ((best.expert & 31) == lane) taken |= 1u << (best.expert >> 5);
  }
  const bool divide = args.scoring == ScoringKind::TopkSoftmax ||
                      (args.normalise && args.scoring != ScoringKind::SparseMixer);
  if (divide) weight /= chosen;
  int rank = 0;
  for (int k = 0; k < static_cast<int>(args.top_k); ++k) rank += __shfl_sync(kAllLanes, id, k) < id;
  if (lane >= static_cast<int>(args.top_k)) return;
  const size_t at = static_cast<size_t>(token) * args.top_k + static_cast<size_t>(rank);
  args.ids[at] = id;
  args.weights[at] = weight;
}

}  // namespace

cudaError_t router(const RouterArgs& args, cudaStream_t stream) {
  if (args.num_experts > kMaxExperts || args.top_k > kMaxTopK || args.top_k > args.num_experts)
    return cudaErrorInvalidValue;
  const dim3 grid((args.tokens + kWarps - 1) / kWarps), block(kWarps * 32);
  const auto run = [&]<int PER>() {
    return gpu_launch("router", router_kernel<PER>, grid, block, 0, stream, args);
  };
  if (args.num_experts <= 64) return run.template operator()<2>();
  if (args.num_experts <= 128) return run.template operator()<4>();
  if (args.num_experts <= 256) return run.template operator()<8>();
  return run.template operator()<32>();
}

}  // namespace nearmoe::cuda
