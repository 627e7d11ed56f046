// kv_store: one position's K (scattered into the transposed block) and V (one row). Needs
// prepare_activations.inl.h.

#include "../half.h"
#include "../kv_block.h"
#include "vec.h"

namespace nearmoe {
namespace {

static void kv_store_q8(const float* k, const float* v, size_t head_dim, size_t slot, std::byte* block) {
  const KvLayout layout = kv_layout(KvDType::Q8_0, head_dim);
  auto* bytes = reinterpret_cast<uint8_t*>(block);
  for (size_t b = 0; b < layout.blocks; ++b) {
    const size_t width = head_dim - 32 * b < 32 ? head_dim - 32 * b : 32;
    int8_t codes[32];
    Q8Meta meta;
    quantise_block(k + 32 * b, width, codes, &meta);
    for (size_t j = 0; j < 8; ++j) {
      uint32_t quad;
      std::memcpy(&quad, codes + 4 * j, sizeof quad);
      quad ^= 0x80808080u;
      std::memcpy(bytes + ((b * 8 + j) * kKvBlockTokens + slot) * 4, &quad, sizeof quad);
    }
    const uint16_t k_scale = f32_to_f16(meta.scale);
    std::memcpy(bytes + layout.k_scales + (b * kKvBlockTokens + slot) * 2, &k_scale, 2);
    quantise_block(v + 32 * b, width,
                   reinterpret_cast<int8_t*>(bytes) + layout.v + (slot * layout.blocks + b) * 32, &meta);
    const uint16_t v_scale = f32_to_f16(meta.scale);
    std::memcpy(bytes + layout.v_scales + (slot * layout.blocks + b) * 2, &v_scale, 2);
  }
}

/// 16 values at a time; rounds as f32_to_f16 does, to nearest even.
static void kv_store_f16(const float* k, const float* v, size_t head_dim, size_t slot, std::byte* block) {
  auto* keys = reinterpret_cast<uint16_t*>(block);
  uint16_t* values = keys + head_dim * kKvBlockTokens + slot * head_dim;
  for (size_t d = 0; d < head_dim; d += 16) {
    const size_t n = head_dim - d < 16 ? head_dim - d : 16;
    uint16_t words[16];
    f_store_f16(words, f_load_up_to(v + d, n));
    std::memcpy(values + d, words, n * sizeof *words);
    f_store_f16(words, f_load_up_to(k + d, n));
    for (size_t i = 0; i < n; ++i) keys[(d + i) * kKvBlockTokens + slot] = words[i];
  }
}

template <class Word, class Convert>
NEARMOE_INLINE void kv_store_words(const float* k, const float* v, size_t head_dim, size_t slot,
                                   std::byte* block, Convert convert) {
  auto* keys = reinterpret_cast<Word*>(block);
  Word* values = keys + head_dim * kKvBlockTokens + slot * head_dim;
  for (size_t d = 0; d < head_dim; ++d) {
    keys[d * kKvBlockTokens + slot] = convert(k[d]);
    values[d] = convert(v[d]);
  }
}

static void kv_store(KvDType dtype, const float* k, const float* v, size_t head_dim, size_t slot,
                     std::byte* block) {
  switch (dtype) {
    case KvDType::F32:
      return kv_store_words<float>(k, v, head_dim, slot, block, [](float x) { return x; });
    case KvDType::F16:
      return kv_store_f16(k, v, head_dim, slot, block);
    case KvDType::BF16:
      return kv_store_words<uint16_t>(k, v, head_dim, slot, block, f32_to_bf16);
    case KvDType::Q8_0:
      return kv_store_q8(k, v, head_dim, slot, block);
  }
}

}  // namespace
}  // namespace nearmoe
