// prepare_activations: floats are copied, Q8 rows quantised block by block. quantise_block also serves
// kv_store and attention over a Q8_0 cache.

#include "../activations.h"
#include "vec.h"

namespace nearmoe {
namespace {

/// Quantises up to 32 floats (zeros beyond n); the same bits as reference::quantise_row.
static void quantise_block(const float* x, size_t n, int8_t* values, Q8Meta* meta) {
  const VF low = f_load_up_to(x, n), high = n > 16 ? f_load_up_to(x + 16, n - 16) : f_zero();
  // Magnitudes compared as integers: NaN and infinity come out on top and end up in the scale.
  const VI sign_off = i_set(0x7fffffff);
  const int32_t bits = i_reduce_max(i_max(i_and(i_bits(low), sign_off), i_and(i_bits(high), sign_off)));
  float top;
  std::memcpy(&top, &bits, sizeof top);
  const bool quantisable = top >= kQ8Smallest && top <= 0x1.fffffep+127f;
  const VF inverse = f_set(quantisable ? 127.0f / top : 0.0f);
  const VI q_low = quantisable ? i_nearest(f_mul(low, inverse)) : i_zero();
  const VI q_high = quantisable ? i_nearest(f_mul(high, inverse)) : i_zero();
  i_store_s8(values, q_low);
  i_store_s8(values + 16, q_high);
  meta->scale = top < kQ8Smallest ? 0.0f : top / 127.0f;
  meta->half[0] = i_reduce_add(q_low);
  meta->half[1] = i_reduce_add(q_high);
  meta->sum = meta->half[0] + meta->half[1];
  meta->scaled_sum = meta->scale * static_cast<float>(meta->sum);
  for (int h = 0; h < 2; ++h) meta->scaled_half[h] = meta->scale * static_cast<float>(meta->half[h]);
  meta->unused = 0;
}

static void prepare_activations(ActFormat format, const float* x, size_t x_stride, size_t tokens, size_t cols,
                                std::byte* out) {
  const size_t stride = activation_stride(format, cols);
  for (size_t t = 0; t < tokens; ++t, x += x_stride, out += stride) {
    if (format == ActFormat::F32) {
      std::memcpy(out, x, cols * sizeof(float));
      continue;
    }
    const size_t blocks = (cols + 31) / 32, filled = q8_value_bytes(cols);
    auto* values = reinterpret_cast<int8_t*>(out);
    auto* meta = reinterpret_cast<Q8Meta*>(out + filled);
    if (blocks * 32 < filled) std::memset(values + blocks * 32, 0, filled - blocks * 32);
    for (size_t b = 0; b < blocks; ++b) {
      const size_t left = cols - 32 * b;
      quantise_block(x + 32 * b, left < 32 ? left : 32, values + 32 * b, meta + b);
    }
    const size_t written = filled + blocks * sizeof(Q8Meta);
    std::memset(out + written, 0, stride - written);
  }
}

}  // namespace
}  // namespace nearmoe
