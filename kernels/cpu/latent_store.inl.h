// latent_store: one position's latent as a row of its block. Needs prepare_activations.inl.h.

#include "../half.h"
#include "../kv_block.h"
#include "vec.h"

namespace nearmoe {
namespace {

static void latent_store(KvDType dtype, const float* x, size_t dim, size_t slot, std::byte* block) {
  if (dtype != KvDType::Q8_0) return reference::latent_store(dtype, x, dim, slot, block);
  const KvLayout layout = latent_layout(dtype, dim);
  for (size_t b = 0; b < layout.blocks; ++b) {
    const size_t width = dim - 32 * b < 32 ? dim - 32 * b : 32;
    Q8Meta meta;
    auto* codes = reinterpret_cast<int8_t*>(block) + (slot * layout.blocks + b) * 32;
    quantise_block(x + 32 * b, width, codes, &meta);
    const uint16_t scale = f32_to_f16(meta.scale);
    std::memcpy(block + layout.v_scales + (slot * layout.blocks + b) * 2, &scale, 2);
  }
}

}  // namespace
}  // namespace nearmoe
