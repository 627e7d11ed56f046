// One token times a packed block-format matrix, straight from the packed bytes: the decode path, bound by
// memory. Several row groups run side by side, each from its own contiguous run of groups, so that a few
// sequential streams are open at a time. Numerics: ../ops.h.

#pragma once

#include "../activations.h"
#include "quant_block.h"

namespace nearmoe {
namespace {

constexpr size_t kGemvStreams = 4;
// Ahead of use in each stream, and no nearer than L2: a line on its way to L1 holds one of the few buffers
// that loads need themselves. Farther in Q6_K, where it measured 9% faster on cold weights, and no other did.
template <class Q>
constexpr size_t kPrefetchBytes = Q::kDType == DType::Q6_K ? 2048 : 1024;

/// Adds one block to the accumulator of 16 rows.
template <class Q>
NEARMOE_INLINE VF add_block(const VB w[8], const VF* scale, const VF* min, const int8_t* a,
                            const Q8Meta& meta, VF acc) {
  if constexpr (Q::kHalves == 1) {
    const VI dot = dot_quads<Q::kMaxCode, 8>(w, a, i_set(-Q::kZero * meta.sum));
    acc = f_fma(f_from_int(dot), f_mul(scale[0], f_set(meta.scale)), acc);
    if constexpr (Q::kHasMin) acc = f_fma(min[0], f_set(meta.scaled_sum), acc);
  } else {
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      const VI dot = dot_quads<Q::kMaxCode, 4>(w + 4 * h, a + 16 * h, i_set(-Q::kZero * meta.half[h]));
      acc = f_fma(f_from_int(dot), f_mul(scale[h], f_set(meta.scale)), acc);
      if constexpr (Q::kHasMin) acc = f_fma(min[h], f_set(meta.scaled_half[h]), acc);
    }
  }
  return acc;
}

/// kGroups row groups, group g at first + g * stream_bytes; writes 16 sums each to out.
template <class Q, size_t kGroups>
static void gemv_groups(const uint8_t* first, size_t stream_bytes, const PackedLayout& layout,
                        const int8_t* values, const Q8Meta* meta, float (*out)[kRowGroup]) {
  constexpr size_t kSubs = Q::kSubs, kHalves = Q::kHalves;
  VF acc[kGroups];
  for (VF& a : acc) a = f_zero();
  VF scale[kGroups][kSubs * kHalves], min[kGroups][kSubs * kHalves];
  for (size_t index = 0, b = 0, sub = layout.phase; b < layout.blocks; ++index) {
    const Record record = packed_record(layout, index);
    const uint8_t* header = first + record.offset;
    const uint8_t* codes = first + record.codes;
    const size_t record_end = b + record.blocks;
    for (; b < record_end; sub = 0, header += Q::kHeaderBytes) {
      for (size_t g = 0; g < kGroups; ++g) {
        for (size_t line = 0; line < Q::kHeaderBytes; line += 64) {
          prefetch_far(header + g * stream_bytes + kPrefetchBytes<Q> + line);
        }
        Q::scales(header + g * stream_bytes, scale[g], min[g]);
      }
      for (; sub < kSubs && b < record_end; ++sub, ++b, codes += Q::kCodeBytes) {
#pragma GCC unroll 4
        for (size_t g = 0; g < kGroups; ++g) {
          const uint8_t* from = codes + g * stream_bytes;
          for (size_t line = 0; line < Q::kCodeBytes; line += 64)
            prefetch_far(from + kPrefetchBytes<Q> + line);
          VB w[8];
          Q::codes(from, w);
          acc[g] = add_block<Q>(w, scale[g] + sub * kHalves, min[g] + sub * kHalves, values + b * kBlockCols,
                                meta[b], acc[g]);
        }
      }
    }
  }
  for (size_t g = 0; g < kGroups; ++g) f_store(out[g], acc[g]);
}

template <class Q>
static void gemv(const PackedMatrix& w, const PackedLayout& layout, const std::byte* activations, float* y) {
  const auto* data = reinterpret_cast<const uint8_t*>(w.data);
  const auto* values = reinterpret_cast<const int8_t*>(activations);
  const auto* meta = reinterpret_cast<const Q8Meta*>(activations + q8_value_bytes(w.cols));
  const size_t groups = (w.rows + kRowGroup - 1) / kRowGroup;
  const size_t run = groups / kGemvStreams;
  float out[kGemvStreams][kRowGroup];
  const auto write = [&](size_t group, const float* from) {
    const size_t row = group * kRowGroup;
    std::memcpy(y + row, from, (w.rows - row < kRowGroup ? w.rows - row : kRowGroup) * sizeof(float));
  };
  for (size_t i = 0; i < run; ++i) {
    gemv_groups<Q, kGemvStreams>(data + i * layout.group_bytes, run * layout.group_bytes, layout, values,
                                 meta, out);
    for (size_t g = 0; g < kGemvStreams; ++g) write(g * run + i, out[g]);
  }
  for (size_t group = run * kGemvStreams; group < groups; ++group) {
    gemv_groups<Q, 1>(data + group * layout.group_bytes, 0, layout, values, meta, out);
    write(group, out[0]);
  }
}

}  // namespace
}  // namespace nearmoe
