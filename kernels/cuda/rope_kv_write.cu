// What happens to q, k and v between projection and attention: norm of q and k, rotary embedding, and the
// store of k and v into the KV pool, in one pass. A warp a head; a norm over the full projection takes one
// block for all heads.
#include "attention_kernels.h"
#include "kv_pool.cuh"
#include "reduce.cuh"

namespace nearmoe::cuda {
namespace {

constexpr uint32_t kWarps = 8;

/// Calls f(index, partner) for the pairs that a lane rotates and f(index, index) for its values that are not
/// rotated. Every value belongs to one lane, so a head can be changed in place.
template <class Function>
__device__ __forceinline__ void for_own_values(const RopeKvArgs& args, Function f) {
  const uint32_t lane = threadIdx.x & 31, half = args.rotary_dim / 2;
  for (uint32_t i = lane; i < half; i += 32) {
    if (args.interleaved) {
      f(2 * i, 2 * i + 1, i);
    } else {
      f(i, i + half, i);
    }
  }
  for (uint32_t i = args.rotary_dim + lane; i < args.head_dim; i += 32) f(i, i, 0u);
}

__device__ __forceinline__ float norm_scale(float squares, uint32_t n, float eps) {
  return 1.0f / sqrtf(squares / static_cast<float>(n) + eps);
}

__device__ __forceinline__ float clipped(float limit, float x) {
  return limit > 0.0f ? fminf(fmaxf(x, -limit), limit) : x;
}

/// What a query is multiplied with: keeps the softmax of long sequences sharp (Nakanishi 2025, arXiv
/// 2501.19399).
__device__ __forceinline__ float temperature(const RopeKvArgs& args, uint32_t position) {
  if (args.temperature_scale == 0.0f) return 1.0f;
  const float steps = floorf((static_cast<float>(position) + 1.0f) / args.temperature_floor);
  return log1pf(steps) * args.temperature_scale + 1.0f;
}

/// The v of one head, and the padding of k and v.
template <KvKind K>
__device__ __forceinline__ void store_value(const RopeKvArgs& args, const float* v, uint8_t* block,
                                            size_t slot) {
  const uint32_t lane = threadIdx.x & 31;
  float scale = 1.0f;
  if (args.value_norm) {
    float squares = 0.0f;
    for (uint32_t i = lane; i < args.head_dim; i += 32) squares = fmaf(v[i], v[i], squares);
    scale = norm_scale(warp_sum(squares), args.head_dim, args.eps);
  }
  const size_t v_slot = static_cast<size_t>(kKvTokens) * args.padded_head_dim + slot;
  for (uint32_t i = lane; i < args.padded_head_dim; i += 32) {
    store_kv<K>(block, v_slot + i, i < args.head_dim ? clipped(args.clip, v[i] * scale) : 0.0f);
    if (i >= args.head_dim) store_kv<K>(block, slot + i, 0.0f);
  }
}

template <KvKind K>
__global__ void __launch_bounds__(kWarps * 32) rope_kv_write_kernel(RopeKvArgs args) {
  GPU_SHARED(float, scratch, [32]);
  const uint32_t token = blockIdx.x, warp = threadIdx.x >> 5, position = args.positions[token];
  const bool full = args.qk_norm == QkNormKind::Full;
  // Without a full norm a block has 8 of all heads; with one, block 0 has those of q and block 1 those of k.
  uint32_t head = blockIdx.y * kWarps + warp, end = args.num_heads + args.num_kv_heads;
  float full_scale = 0.0f;
  if (full) {
    const bool is_k = blockIdx.y == 1;
    const uint32_t n = (is_k ? args.num_kv_heads : args.num_heads) * args.head_dim;
    const float* x = is_k ? args.k + static_cast<size_t>(token) * args.k_stride
                          : args.q + static_cast<size_t>(token) * args.q_stride;
    float squares = 0.0f;
    for (uint32_t i = threadIdx.x; i < n; i += kWarps * 32) squares = fmaf(x[i], x[i], squares);
    full_scale = norm_scale(block_sum(squares, scratch), n, args.eps);
    head = (is_k ? args.num_heads : 0) + warp;
    end = is_k ? end : args.num_heads;
  }
  for (; head < end; head += full ? kWarps : end) {
    const bool is_k = head >= args.num_heads;
    const uint32_t h = is_k ? head - args.num_heads : head;
    const float* x = (is_k ? args.k + static_cast<size_t>(token) * args.k_stride
                           : args.q + static_cast<size_t>(token) * args.q_stride) +
                     static_cast<size_t>(h) * args.head_dim;
    const float* weight = args.qk_norm == QkNormKind::None ? nullptr : is_k ? args.k_norm : args.q_norm;
    float scale = full_scale;
    if (args.qk_norm == QkNormKind::Head) {
      float squares = 0.0f;
      for_own_values(args, [&](uint32_t i, uint32_t j, uint32_t) {
        squares = fmaf(x[i], x[i], squares);
        if (j != i) squares = fmaf(x[j], x[j], squares);
      });
      scale = norm_scale(warp_sum(squares), args.head_dim, args.eps);
    }
    if (full) weight += static_cast<size_t>(h) * args.head_dim;
    const auto normed = [&](uint32_t i) {
      const float value = args.qk_norm == QkNormKind::None ? x[i] : x[i] * scale;
      return clipped(args.clip, weight ? weight[i] * value : value);
    };
    const float2* rotary = args.rotary + static_cast<size_t>(token) * (args.rotary_dim / 2);
    float* q = args.q + static_cast<size_t>(token) * args.q_stride + static_cast<size_t>(h) * args.head_dim;
    uint8_t* block = nullptr;
    size_t slot = 0;
    if (is_k) {
      const uint32_t id = args.block_table[args.block_offsets[token] + position / kKvTokens];
      const size_t block_bytes = 2 * kKvTokens * args.padded_head_dim * kKvBytes<K>;
      block = args.kv + (static_cast<size_t>(id) * args.num_kv_heads + h) * block_bytes;
      slot = static_cast<size_t>(position % kKvTokens) * args.padded_head_dim;
    }
    const float factor = temperature(args, position);
    const auto put = [&](uint32_t i, float value) {
      if (is_k) {
        store_kv<K>(block, slot + i, value);
      } else {
        q[i] = value * factor;
      }
    };
    for_own_values(args, [&](uint32_t i, uint32_t j, uint32_t pair) {
      const float a = normed(i);
      if (i == j) return put(i, a);
      const float b = normed(j);
      const float2 turn = rotary[pair];
      put(i, __fadd_rn(__fmul_rn(a, turn.x), -__fmul_rn(b, turn.y)));
      put(j, __fadd_rn(__fmul_rn(b, turn.x), __fmul_rn(a, turn.y)));
    });
    if (!is_k) continue;
    store_value<K>(
        args, args.v + static_cast<size_t>(token) * args.v_stride + static_cast<size_t>(h) * args.head_dim,
        block, slot);
  }
}

}  // namespace

cudaError_t rope_kv_write(const RopeKvArgs& args, cudaStream_t stream) {
  const uint32_t blocks =
      args.qk_norm == QkNormKind::Full ? 2 : (args.num_heads + args.num_kv_heads + kWarps - 1) / kWarps;
  return with_kv_kind(args.kv_dtype, [&]<KvKind K>() {
    return gpu_launch("rope_kv_write", rope_kv_write_kernel<K>, dim3(args.tokens, blocks), dim3(kWarps * 32),
                      0, stream, args);
  });
}

uint32_t padded_head_dim(uint32_t head_dim) {
  return head_dim <= 64 ? 64 : head_dim <= 128 ? 128 : head_dim <= 256 ? 256 : head_dim <= 512 ? 512 : 0;
}

size_t kv_pool_block_bytes(uint32_t kv_dtype, uint32_t padded) {
  return size_t{2} * kKvTokens * padded * (static_cast<KvKind>(kv_dtype) == KvKind::F32 ? 4 : 2);
}

}  // namespace nearmoe::cuda
