// The gated delta rule, one token after the other. The columns of a head's state do not depend on each other,
// so a block has 32 of them, for one sequence: 8 a warp, each shared by 4 lanes that keep a quarter of its
// keys in registers over all tokens. q, k, v and gates come through shared memory, 16 tokens at a time, and
// are made ready there.
#include "reduce.cuh"
#include "state_kernels.h"

namespace nearmoe::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kParts = 4;                       // lanes of a column
constexpr int kColumns = kWarps * 32 / kParts;  // of a block
constexpr int kTokens = 16;                     // at a time
constexpr float kLengthEps = 1e-6f;             // the reference code's, whatever the config says

/// One token's q and k, padded with zeros, and what else it brings; a lane's keys are every fourth float4.
template <int KEYS>
struct Ready {
  float4 q[KEYS], k[KEYS];
  float v[kColumns];
  float dot, beta, decay;  ///< q.k, gates
};

__device__ __forceinline__ float softplus(float x) {
  return x > 20.0f ? x : log1pf(expf(x));  // from there on the same in float32
}

/// Makes a token's values ready, by one warp; `column` is the block's first.
template <int KEYS>
__device__ __forceinline__ void make_ready(const GatedDeltaArgs& args, size_t token, uint32_t head,
                                           uint32_t key_head, uint32_t column, Ready<KEYS>& ready) {
  const uint32_t lane = threadIdx.x & 31;
  const float* q = args.q + token * args.stride + static_cast<size_t>(key_head) * args.key_dim;
  const float* k = args.k + token * args.stride + static_cast<size_t>(key_head) * args.key_dim;
  float of_q = 0.0f, of_k = 0.0f, dot = 0.0f;
  for (uint32_t i = lane; i < args.key_dim; i += 32) {
    of_q = fmaf(q[i], q[i], of_q);
    of_k = fmaf(k[i], k[i], of_k);
    dot = fmaf(q[i], k[i], dot);
  }
  const float length = 1.0f / sqrtf(static_cast<float>(args.key_dim));
  const float q_scale = length / sqrtf(warp_sum(of_q) + kLengthEps);
  const float k_scale = 1.0f / sqrtf(warp_sum(of_k) + kLengthEps);
  dot = warp_sum(dot);
  auto* to_q = reinterpret_cast<float*>(ready.q);
  auto* to_k = reinterpret_cast<float*>(ready.k);
  for (uint32_t i = lane; i < 4 * KEYS; i += 32) {
    to_q[i] = i < args.key_dim ? q[i] * q_scale : 0.0f;
    to_k[i] = i < args.key_dim ? k[i] * k_scale : 0.0f;
  }
  const float* v = args.v + token * args.stride + static_cast<size_t>(head) * args.value_dim;
  const uint32_t own = column + lane;
  ready.v[lane] = own < args.value_dim ? v[own] : 0.0f;
  if (lane > 0) return;
  const size_t gate = token * args.gate_stride + head;
  ready.dot = dot * q_scale * k_scale;
  ready.beta = 1.0f / (1.0f + expf(-args.beta[gate]));
  ready.decay = expf(args.decay_rate[head] * softplus(args.decay[gate] + args.decay_bias[head]));
}

__device__ __forceinline__ float dot_of(const float4& a, const float (&b)[4], float sum) {
  return fmaf(a.w, b[3], fmaf(a.z, b[2], fmaf(a.y, b[1], fmaf(a.x, b[0], sum))));
}

__device__ __forceinline__ float sum_of_parts(float x) {
#pragma unroll
  for (int offset = 1; offset < kParts; offset *= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  return x;
}

/// A column's state under one token; its output, in all of the column's lanes.
template <int KEYS>
__device__ __forceinline__ float step(const Ready<KEYS>& ready, int part, int column,
                                      float (&state)[KEYS / kParts][4]) {
  float by_key = 0.0f, by_query = 0.0f;
#pragma unroll
  for (int i = 0; i < KEYS / kParts; ++i) {
    by_key = dot_of(ready.k[kParts * i + part], state[i], by_key);
    by_query = dot_of(ready.q[kParts * i + part], state[i], by_query);
  }
  by_key = sum_of_parts(by_key);
  by_query = sum_of_parts(by_query);
  const float delta = ready.beta * fmaf(-ready.decay, by_key, ready.v[column]);
#pragma unroll
  for (int i = 0; i < KEYS / kParts; ++i) {
    const float4 k = ready.k[kParts * i + part];
    const float keys[4] = {k.x, k.y, k.z, k.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) state[i][j] = fmaf(keys[j], delta, ready.decay * state[i][j]);
  }
  return fmaf(delta, ready.dot, ready.decay * by_query);
}

/// KEYS: key dim in float4s, a multiple of kParts.
template <int KEYS>
__global__ void __launch_bounds__(kWarps * 32, 1) gated_delta_kernel(GatedDeltaArgs args) {
  GPU_SHARED(Ready<KEYS>, ready, [kTokens]);
  const uint32_t head = blockIdx.x, first_column = blockIdx.y * kColumns;
  const uint32_t heads_per_key = args.num_value_heads / args.num_key_heads;
  const uint32_t key_head = args.tiled ? head % args.num_key_heads : head / heads_per_key;
  const StateSequence sequence = args.step.sequences[blockIdx.z];
  const int warp = static_cast<int>(threadIdx.x >> 5), lane = static_cast<int>(threadIdx.x & 31);
  const int part = lane % kParts, column = static_cast<int>(threadIdx.x) / kParts;
  const uint32_t own = first_column + static_cast<uint32_t>(column);
  const bool is_own = own < args.value_dim;
  const StatePool& states = args.step.states;
  const size_t in_slot = static_cast<size_t>(head) * args.key_dim * args.value_dim + own;
  // Of the first of the four keys in state[i].
  const auto key_of = [&](int i) { return static_cast<uint32_t>(4 * (kParts * i + part)); };
  float state[KEYS / kParts][4] = {};
  if (sequence.source >= 0) {
    const float* from = states.data + static_cast<size_t>(sequence.source) * states.slot_floats + in_slot;
#pragma unroll
    for (int i = 0; i < KEYS / kParts; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const uint32_t key = key_of(i) + static_cast<uint32_t>(j);
        if (is_own && key < args.key_dim) state[i][j] = from[static_cast<size_t>(key) * args.value_dim];
      }
    }
  }
  const int count = static_cast<int>(sequence.count);
  for (int first = 0; first < count; first += kTokens) {
    const int tokens = min(count - first, kTokens);
    const size_t token = sequence.first_token + static_cast<size_t>(first);
    __syncthreads();  // the tokens before are done with
    for (int t = warp; t < tokens; t += kWarps)
      make_ready<KEYS>(args, token + static_cast<size_t>(t), head, key_head, first_column, ready[t]);
    __syncthreads();
    for (int t = 0; t < tokens; ++t) {
      const float out = step<KEYS>(ready[t], part, column, state);
      if (part == 0 && is_own)
        args.out[(token + static_cast<size_t>(t)) * args.out_stride +
                 static_cast<size_t>(head) * args.value_dim + own] = out;
    }
  }
  float* to = states.data + static_cast<size_t>(sequence.target) * states.slot_floats + in_slot;
#pragma unroll
  for (int i = 0; i < KEYS / kParts; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const uint32_t key = key_of(i) + static_cast<uint32_t>(j);
      if (is_own && key < args.key_dim) to[static_cast<size_t>(key) * args.value_dim] = state[i][j];
    }
  }
}

template <int KEYS>
cudaError_t launch(const GatedDeltaArgs& args, cudaStream_t stream) {
  const dim3 grid(args.num_value_heads, (args.value_dim + kColumns - 1) / kColumns, args.step.num_sequences);
  return gpu_launch("gated_delta", gated_delta_kernel<KEYS>, grid, dim3(kWarps * 32), 0, stream, args);
}

}  // namespace

cudaError_t gated_delta(const GatedDeltaArgs& args, cudaStream_t stream) {
  if (args.key_dim <= 64) return launch<16>(args, stream);
  if (args.key_dim <= 128) return launch<32>(args, stream);
  return args.key_dim <= kMaxDeltaKeyDim ? launch<64>(args, stream) : cudaErrorInvalidValue;
}

}  // namespace nearmoe::cuda
