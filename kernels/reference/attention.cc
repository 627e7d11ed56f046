// Attention over KV blocks: plain softmax(q K) V of one KV head, float32. With a Q8_0 cache the
// query is quantised like any activation and q.k is a sum over blocks of 32 dimensions, as in matmul.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "../activations.h"
#include "../half.h"
#include "../kv_block.h"
#include "reference.h"

namespace nearmoe::reference {
namespace {

constexpr size_t kTokens = kKvBlockTokens;
constexpr size_t kMaxHeadDim = 1024;

uint16_t read_u16(const std::byte* p) {
  uint16_t word;
  std::memcpy(&word, p, sizeof word);
  return word;
}

float read_float(KvDType dtype, const std::byte* base, size_t index) {
  if (dtype == KvDType::F32) {
    float x;
    std::memcpy(&x, base + 4 * index, sizeof x);
    return x;
  }
  const uint16_t word = read_u16(base + 2 * index);
  return dtype == KvDType::F16 ? f16_to_f32(word) : bf16_to_f32(word);
}

float key_dot_q8(const std::byte* block, size_t slot, size_t head_dim, const int8_t* q, const Q8Meta* meta) {
  const KvLayout layout = kv_layout(KvDType::Q8_0, head_dim);
  float dot = 0.0f;
  for (size_t b = 0; b < layout.blocks; ++b) {
    int32_t sum = 0;
    for (size_t i = 0; i < 32; ++i) {
      const int code = static_cast<int>(block[((b * 8 + i / 4) * kTokens + slot) * 4 + i % 4]) - 128;
      sum += code * q[32 * b + i];
    }
    const float scale = f16_to_f32(read_u16(block + layout.k_scales + (b * kTokens + slot) * 2));
    dot = std::fma(static_cast<float>(sum), scale * meta[b].scale, dot);
  }
  return dot;
}

float value_at(const AttentionArgs& args, size_t position, size_t d) {
  const std::byte* block = args.blocks[position / kTokens];
  const size_t slot = position % kTokens;
  const KvLayout layout = kv_layout(args.kv_dtype, args.head_dim);
  if (args.kv_dtype != KvDType::Q8_0)
    return read_float(args.kv_dtype, block + layout.v, slot * args.head_dim + d);
  const auto code = static_cast<int8_t>(block[layout.v + slot * layout.blocks * 32 + d]);
  const float scale = f16_to_f32(read_u16(block + layout.v_scales + (slot * layout.blocks + d / 32) * 2));
  return scale * static_cast<float>(code);
}

/// The logit of one query head and one key, scaled and capped.
float logit(const AttentionArgs& args, const float* q, const int8_t* q_codes, const Q8Meta* q_meta,
            size_t position) {
  const std::byte* block = args.blocks[position / kTokens];
  const size_t slot = position % kTokens;
  float dot = 0.0f;
  if (args.kv_dtype == KvDType::Q8_0) {
    dot = key_dot_q8(block, slot, args.head_dim, q_codes, q_meta);
  } else {
    for (size_t d = 0; d < args.head_dim; ++d) {
      dot = std::fma(q[d], read_float(args.kv_dtype, block, d * kTokens + slot), dot);
    }
  }
  dot *= args.scale;
  return args.softcap > 0.0f ? args.softcap * std::tanh(dot / args.softcap) : dot;
}

void attend(const AttentionArgs& args, size_t t, size_t h) {
  const float* q = args.q + t * args.q_stride + h * args.head_dim;
  float* out = args.out + t * args.out_stride + h * args.head_dim;
  int8_t q_codes[kMaxHeadDim];
  Q8Meta q_meta[kMaxHeadDim / 32];
  if (args.kv_dtype == KvDType::Q8_0)
    quantise_row(q, args.head_dim, q_codes, reinterpret_cast<std::byte*>(q_meta));
  const size_t last = args.first_position + t;
  const size_t end = args.end_key > 0 && args.end_key <= last ? args.end_key : last + 1;
  const size_t first = std::max<size_t>(oldest_visible(args, last), args.first_key);
  float largest = args.sinks ? args.sinks[h] : -INFINITY;
  for (size_t p = first; p < end; ++p) largest = std::fmax(largest, logit(args, q, q_codes, q_meta, p));
  float sum = args.sinks ? std::exp(args.sinks[h] - largest) : 0.0f;
  for (size_t d = 0; d < args.head_dim; ++d) out[d] = 0.0f;
  for (size_t p = first; p < end; ++p) {
    const float weight = std::exp(logit(args, q, q_codes, q_meta, p) - largest);
    sum += weight;
    for (size_t d = 0; d < args.head_dim; ++d) out[d] = std::fma(weight, value_at(args, p, d), out[d]);
  }
  if (args.stats) {
    float* stats = args.stats + (t * args.q_heads + h) * 2;
    stats[0] = largest;
    stats[1] = sum;
    return;
  }
  for (size_t d = 0; d < args.head_dim; ++d) out[d] /= sum;
}

}  // namespace

void attention(const AttentionArgs& args) {
  for (size_t t = 0; t < args.tokens; ++t) {
    for (size_t h = 0; h < args.q_heads; ++h) attend(args, t, h);
  }
}

}  // namespace nearmoe::reference
