// The KV pool in device memory and its element types. A block of one KV head holds K [32][Dp], then V
// [32][Dp], where Dp is the head dim filled up with zeros to 64, 128, 256 or 512; block b of head h lies at
// (b * G
// + h) * block bytes.
#pragma once

#include "attention_kernels.h"
#include "formats.cuh"

namespace nearmoe::cuda {

enum class KvKind : uint32_t { F32 = 0, F16 = 1, BF16 = 2 };

template <KvKind K>
struct KvElement {
  using Type = uint16_t;
};
template <>
struct KvElement<KvKind::F32> {
  using Type = float;
};

__device__ __forceinline__ unsigned float_to_half_bits(float x) {
#if defined(__CUDACC__)
  return __half_as_ushort(__float2half_rn(x));
#else
  return std::bit_cast<uint16_t>(__float2half_rn(x).value);
#endif
}

/// Two floats as f16 pair (x in the low half), and what is left of them as another pair.
__device__ __forceinline__ void split_half_pair(float x, float y, unsigned& high, unsigned& low) {
  const unsigned hx = float_to_half_bits(x), hy = float_to_half_bits(y);
  high = hx | hy << 16;
  low = float_to_half_bits(x - half_bits_to_float(hx)) | float_to_half_bits(y - half_bits_to_float(hy)) << 16;
}

template <KvKind K>
__device__ __forceinline__ void store_kv(uint8_t* base, size_t index, float x) {
  if constexpr (K == KvKind::F32) {
    reinterpret_cast<float*>(base)[index] = x;
  } else if constexpr (K == KvKind::BF16) {
    reinterpret_cast<uint16_t*>(base)[index] = static_cast<uint16_t>(float_to_bf16_bits(x));
  } else {
    reinterpret_cast<uint16_t*>(base)[index] = static_cast<uint16_t>(float_to_half_bits(x));
  }
}

/// N (2, 4 or 8) consecutive elements from `index` on, which is a multiple of N.
template <KvKind K, int N>
__device__ __forceinline__ void load_kv(const uint8_t* base, size_t index, float (&out)[N]) {
  if constexpr (K == KvKind::F32) {
#pragma unroll
    for (int i = 0; i < N; i += 2) {
      const float2 v = __ldg(reinterpret_cast<const float2*>(base + (index + static_cast<size_t>(i)) * 4));
      out[i] = v.x;
      out[i + 1] = v.y;
    }
  } else {
    unsigned words[N / 2];
    const uint8_t* from = base + index * 2;
    if constexpr (N == 8) {
      const uint4 v = __ldg(reinterpret_cast<const uint4*>(from));
      words[0] = v.x, words[1] = v.y, words[2] = v.z, words[3] = v.w;
    } else if constexpr (N == 4) {
      const uint2 v = __ldg(reinterpret_cast<const uint2*>(from));
      words[0] = v.x, words[1] = v.y;
    } else {
      words[0] = __ldg(reinterpret_cast<const unsigned*>(from));
    }
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const unsigned bits = words[i / 2] >> (16 * (i % 2)) & 0xffffu;
      out[i] = K == KvKind::F16 ? half_bits_to_float(bits) : bf16_bits_to_float(bits);
    }
  }
}

/// The first key that a query at `position` sees.
__device__ __forceinline__ int first_seen(const AttentionArgs& args, int position) {
  const int window = static_cast<int>(args.sliding_window), chunk = static_cast<int>(args.chunk_size);
  const int first = window > 0 && position + 1 > window ? position + 1 - window : 0;
  return chunk > 0 ? max(first, position / chunk * chunk) : first;
}

template <KvKind K>
constexpr size_t kKvBytes = sizeof(typename KvElement<K>::Type);

template <class Function>
cudaError_t with_kv_kind(uint32_t kv_dtype, Function&& f) {
  switch (static_cast<KvKind>(kv_dtype)) {
    case KvKind::F32:
      return f.template operator()<KvKind::F32>();
    case KvKind::F16:
      return f.template operator()<KvKind::F16>();
    case KvKind::BF16:
      return f.template operator()<KvKind::BF16>();
  }
  return cudaErrorInvalidValue;
}

/// Calls f with the padded head dim, at most LARGEST, as a template argument.
template <int LARGEST, class Function>
cudaError_t with_head_dim(uint32_t padded, Function&& f) {
  if constexpr (LARGEST >= 512) {
    if (padded == 512) return f.template operator()<512>();
  }
  switch (padded) {
    case 64:
      return f.template operator()<64>();
    case 128:
      return f.template operator()<128>();
    case 256:
      return f.template operator()<256>();
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace nearmoe::cuda
