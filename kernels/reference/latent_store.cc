// Writes the latent of one position into a block of latents (layout in kv_block.h).
#include <cstring>

#include "../activations.h"
#include "../half.h"
#include "../kv_block.h"
#include "reference.h"

namespace nearmoe::reference {

void latent_store(KvDType dtype, const float* x, size_t dim, size_t slot, std::byte* block) {
  if (dtype == KvDType::F32) {
    std::memcpy(block + slot * dim * sizeof(float), x, dim * sizeof(float));
    return;
  }
  const KvLayout layout = latent_layout(dtype, dim);
  const auto write_u16 = [&](size_t offset, uint16_t word) {
    std::memcpy(block + offset, &word, sizeof word);
  };
  if (dtype == KvDType::Q8_0) {
    for (size_t b = 0; b < layout.blocks; ++b) {
      const size_t width = dim - 32 * b < 32 ? dim - 32 * b : 32;
      float values[32] = {};
      std::memcpy(values, x + 32 * b, width * sizeof(float));
      int8_t codes[32];
      Q8Meta meta;
      quantise_row(values, 32, codes, reinterpret_cast<std::byte*>(&meta));
      std::memcpy(block + (slot * layout.blocks + b) * 32, codes, sizeof codes);
      write_u16(layout.v_scales + (slot * layout.blocks + b) * 2, f32_to_f16(meta.scale));
    }
    return;
  }
  for (size_t d = 0; d < dim; ++d)
    write_u16((slot * dim + d) * 2, dtype == KvDType::F16 ? f32_to_f16(x[d]) : f32_to_bf16(x[d]));
}

}  // namespace nearmoe::reference
