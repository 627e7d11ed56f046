// The KV pool and a batch's block tables on the host, for the tests of the attention kernels.
#pragma once

#include <algorithm>

#include "harness.h"
#include "kernels/cuda/attention_kernels.h"
#include "kernels/half.h"

namespace gpu_test {

inline constexpr uint32_t kF32 = 0, kF16 = 1, kBF16 = 2;
inline constexpr const char* kKvNames[] = {"f32", "f16", "bf16"};

inline float round_to(uint32_t kv_dtype, float x) {
  if (kv_dtype == kF16) return nearmoe::f16_to_f32(nearmoe::f32_to_f16(x));
  return kv_dtype == kBF16 ? nearmoe::bf16_to_f32(nearmoe::f32_to_bf16(x)) : x;
}

/// Elements of a KV dtype, 0xff where nothing was stored.
struct KvElements {
  uint32_t kv_dtype;
  std::vector<uint8_t> bytes;

  KvElements(uint32_t kv_dtype_, size_t size_bytes) : kv_dtype(kv_dtype_), bytes(size_bytes, 0xff) {}

  size_t element_bytes() const { return kv_dtype == kF32 ? 4 : 2; }
  size_t size() const { return bytes.size() / element_bytes(); }
  void put(size_t i, float x) {
    if (kv_dtype == kF32) {
      std::memcpy(&bytes[4 * i], &x, 4);
    } else {
      const uint16_t bits = kv_dtype == kF16 ? nearmoe::f32_to_f16(x) : nearmoe::f32_to_bf16(x);
      std::memcpy(&bytes[2 * i], &bits, 2);
    }
  }
  float get(size_t i) const {
    float x;
    uint16_t bits;
    if (kv_dtype == kF32) {
      std::memcpy(&x, &bytes[4 * i], 4);
      return x;
    }
    std::memcpy(&bits, &bytes[2 * i], 2);
    return kv_dtype == kF16 ? nearmoe::f16_to_f32(bits) : nearmoe::bf16_to_f32(bits);
  }
  /// Elements that differ from `other` where `touched` is 0.
  size_t spilled(const KvElements& other, const std::vector<uint8_t>& touched) const {
    size_t count = 0;
    const size_t n = element_bytes();
    for (size_t i = 0; i < touched.size(); ++i)
      count += !touched[i] && std::memcmp(&bytes[i * n], &other.bytes[i * n], n) != 0;
    return count;
  }
};

/// Tokens of several sequences: where each stands and which blocks its sequence has.
struct Batch {
  std::vector<uint32_t> positions, offsets, table;
  uint32_t blocks = 0;

  /// Adds `count` tokens from `first` on; the sequence's blocks are scattered over the pool.
  void add(uint32_t first, uint32_t count) {
    const auto offset = static_cast<uint32_t>(table.size());
    for (uint32_t i = 0; i < (first + count + nearmoe::cuda::kKvTokens - 1) / nearmoe::cuda::kKvTokens; ++i)
      table.push_back(blocks++);
    std::shuffle(table.begin() + offset, table.end(), generator());
    for (uint32_t i = 0; i < count; ++i) {
      positions.push_back(first + i);
      offsets.push_back(offset);
    }
  }
  uint32_t tokens() const { return static_cast<uint32_t>(positions.size()); }
  uint32_t block_of(uint32_t token, uint32_t position) const {
    return table[offsets[token] + position / nearmoe::cuda::kKvTokens];
  }
  /// True for the last of a sequence's tokens.
  bool last_of_sequence(uint32_t token) const {
    return token + 1 == tokens() || offsets[token + 1] != offsets[token];
  }
  /// Runs of at most `each` tokens of one sequence.
  std::vector<nearmoe::cuda::PrefillTile> tiles(uint32_t each) const {
    std::vector<nearmoe::cuda::PrefillTile> out;
    for (uint32_t t = 0; t < tokens();) {
      uint32_t count = 1;
      while (count < each && !last_of_sequence(t + count - 1)) ++count;
      out.push_back({t, count});
      t += count;
    }
    return out;
  }
};

}  // namespace gpu_test
