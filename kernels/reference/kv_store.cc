// Writes K and V of one position into a KV block (layout in kv_block.h).
#include <cstring>

#include "../activations.h"
#include "../half.h"
#include "../kv_block.h"
#include "reference.h"

namespace nearmoe::reference {

namespace {

constexpr size_t kTokens = kKvBlockTokens;

void write_u16(std::byte* p, uint16_t word) { std::memcpy(p, &word, sizeof word); }

void write_float(KvDType dtype, std::byte* base, size_t index, float x) {
  if (dtype == KvDType::F32) {
    std::memcpy(base + 4 * index, &x, sizeof x);
  } else {
    write_u16(base + 2 * index, dtype == KvDType::F16 ? f32_to_f16(x) : f32_to_bf16(x));
  }
}

/// 32 values (or fewer, filled with zeros) as int8 with a binary16 scale.
uint16_t quantise_block(const float* x, size_t n, int8_t codes[32]) {
  float values[32] = {};
  std::memcpy(values, x, n * sizeof(float));
  Q8Meta meta;
  quantise_row(values, 32, codes, reinterpret_cast<std::byte*>(&meta));
  return f32_to_f16(meta.scale);
}

size_t block_width(size_t head_dim, size_t b) { return head_dim - 32 * b < 32 ? head_dim - 32 * b : 32; }

void store_q8(const float* k, const float* v, size_t head_dim, size_t slot, std::byte* block) {
  const KvLayout layout = kv_layout(KvDType::Q8_0, head_dim);
  for (size_t b = 0; b < layout.blocks; ++b) {
    int8_t codes[32];
    const uint16_t k_scale = quantise_block(k + 32 * b, block_width(head_dim, b), codes);
    for (size_t i = 0; i < 32; ++i) {
      block[((b * 8 + i / 4) * kTokens + slot) * 4 + i % 4] = static_cast<std::byte>(codes[i] + 128);
    }
    write_u16(block + layout.k_scales + (b * kTokens + slot) * 2, k_scale);
    const uint16_t v_scale = quantise_block(v + 32 * b, block_width(head_dim, b), codes);
    std::memcpy(block + layout.v + (slot * layout.blocks + b) * 32, codes, 32);
    write_u16(block + layout.v_scales + (slot * layout.blocks + b) * 2, v_scale);
  }
}

}  // namespace

void kv_store(KvDType dtype, const float* k, const float* v, size_t head_dim, size_t slot, std::byte* block) {
  if (dtype == KvDType::Q8_0) {
    store_q8(k, v, head_dim, slot, block);
    return;
  }
  std::byte* values = block + kv_layout(dtype, head_dim).v;
  for (size_t d = 0; d < head_dim; ++d) {
    write_float(dtype, block, d * kTokens + slot, k[d]);
    write_float(dtype, values, slot * head_dim + d, v[d]);
  }
}

}  // namespace nearmoe::reference
