// Attention over latents: plain softmax(q . latent) of every query head, values are the latents' first part.
#include <cmath>
#include <cstring>

#include "../half.h"
#include "../kv_block.h"
#include "reference.h"

namespace nearmoe::reference {
namespace {

float latent_value(const LatentAttentionArgs& args, const KvLayout& layout, size_t position, size_t d) {
  const std::byte* block = args.blocks[position / kKvBlockTokens];
  const size_t slot = position % kKvBlockTokens;
  const auto read_u16 = [&](size_t offset) {
    uint16_t word;
    std::memcpy(&word, block + offset, sizeof word);
    return word;
  };
  const size_t index = slot * args.latent_dim + d;
  switch (args.kv_dtype) {
    case KvDType::F32: {
      float x;
      std::memcpy(&x, block + 4 * index, sizeof x);
      return x;
    }
    case KvDType::F16:
      return f16_to_f32(read_u16(2 * index));
    case KvDType::BF16:
      return bf16_to_f32(read_u16(2 * index));
    case KvDType::Q8_0:
      break;
  }
  const auto code = static_cast<int8_t>(block[slot * layout.blocks * 32 + d]);
  const float scale = f16_to_f32(read_u16(layout.v_scales + (slot * layout.blocks + d / 32) * 2));
  return static_cast<float>(code) * scale;
}

float logit(const LatentAttentionArgs& args, const KvLayout& layout, const float* q, size_t position) {
  float dot = 0.0f;
  for (size_t d = 0; d < args.latent_dim; ++d)
    dot = std::fma(q[d], latent_value(args, layout, position, d), dot);
  return dot * args.scale;
}

void attend(const LatentAttentionArgs& args, const KvLayout& layout, size_t t, size_t h) {
  const float* q = args.q + t * args.q_stride + h * args.latent_dim;
  float* out = args.out + t * args.out_stride + h * args.value_dim;
  const size_t last = args.first_position + t;
  float largest = -INFINITY, sum = 0.0f;
  for (size_t p = 0; p <= last; ++p) largest = std::fmax(largest, logit(args, layout, q, p));
  for (size_t d = 0; d < args.value_dim; ++d) out[d] = 0.0f;
  for (size_t p = 0; p <= last; ++p) {
    const float weight = std::exp(logit(args, layout, q, p) - largest);
    sum += weight;
    for (size_t d = 0; d < args.value_dim; ++d)
      out[d] = std::fma(weight, latent_value(args, layout, p, d), out[d]);
  }
  for (size_t d = 0; d < args.value_dim; ++d) out[d] /= sum;
}

}  // namespace

void latent_attention(const LatentAttentionArgs& args) {
  const KvLayout layout = latent_layout(args.kv_dtype, args.latent_dim);
  for (size_t t = 0; t < args.tokens; ++t) {
    for (size_t h = 0; h < args.q_heads; ++h) attend(args, layout, t, h);
  }
}

}  // namespace nearmoe::reference
