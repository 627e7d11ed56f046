// Token dispatch: the (token, k) pairs of each expert as a list in ascending order. Each expert has room for
// all tokens, so one pass over the ids suffices and no scan is needed. One warp does it: order is kept
// without any atomics, every id is read once, and a prefill chunk of 4,096 pairs takes 128 rounds.
#include "kernels.h"
#include "reduce.cuh"

namespace nearmoe::cuda {
namespace {

__global__ void __launch_bounds__(32) dispatch_kernel(DispatchArgs args) {
  GPU_SHARED(uint32_t, cursors, [kMaxExperts]);
  const uint32_t lane = threadIdx.x, pairs = args.tokens * args.top_k;
  for (uint32_t e = lane; e < args.num_experts; e += 32) cursors[e] = 0;
  __syncwarp();
  int next = lane < pairs ? args.ids[lane] : -1;
  for (uint32_t first = 0; first < pairs; first += 32) {
    const int expert = next;
    const uint32_t pair = first + lane;
    next = pair + 32 < pairs ? args.ids[pair + 32] : -1;  // under way while this round is worked on
    const unsigned same = __match_any_sync(kAllLanes, expert);
    const uint32_t rank = static_cast<uint32_t>(__popc(same & ((1u << lane) - 1u)));
    uint32_t base = 0;
    if (expert >= 0) {
      base = cursors[expert];
      args.lists[static_cast<size_t>(expert) * args.capacity + base + rank] = pair;
    }
    __syncwarp();
    if (expert >= 0 && rank == 0) cursors[expert] = base + static_cast<uint32_t>(__popc(same));
    __syncwarp();
  }
  for (uint32_t e = lane; e < args.num_experts; e += 32) args.counts[e] = cursors[e];
}

}  // namespace

cudaError_t dispatch(const DispatchArgs& args, cudaStream_t stream) {
  if (args.num_experts > kMaxExperts) return cudaErrorInvalidValue;
  return gpu_launch("dispatch", dispatch_kernel, dim3(1), dim3(32), 0, stream, args);
}

}  // namespace nearmoe::cuda
