// One token times a packed block-format matrix, straight from the packed bytes: the decode path, bound by memory.
// Several row groups run side by side, each from its own contiguous run of groups, so that a few sequential streams
// are open at a time. Numerics: ../ops.h.

namespace nearmoe {
namespace {

constexpr size_t kGemvStreams = 4;
constexpr size_t kPrefetchBytes = 1536;  // ahead of use in each stream

/// Adds one block to the accumulator of 16 rows.
template <class Q>
NEARMOE_INLINE VF add_block(const VB w[8], const VF* scale, const VF* min, const int8_t* a, const Q8Meta& meta, VF acc) {
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
static void gemv_groups(const uint8_t* first, size_t stream_bytes, const PackedLayout& layout, const int8_t* values,
                        const Q8Meta* meta, float (*out)[kRowGroup]) {
  constexpr size_t kSubs = Q::kSubs, kHalves = Q::kHalves;
  VF acc[kGroups];
  for (VF& a : acc) a = f_zero();
  size_t sub = layout.phase;
  for (size_t s = 0, b = 0; s < layout.superblocks; ++s, sub = 0) {
    const size_t end = layout.blocks - b < kSubs - sub ? sub + layout.blocks - b : kSubs;
#pragma GCC unroll 4
    for (size_t g = 0; g < kGroups; ++g) {
      const uint8_t* group = first + g * stream_bytes;
      VF scale[kSubs * kHalves], min[kSubs * kHalves];
      Q::scales(group + layout.header_offset + s * Q::kHeaderBytes, scale, min);
      prefetch(group + layout.header_offset + s * Q::kHeaderBytes + kPrefetchBytes / 4);
      const uint8_t* codes = group + b * Q::kCodeBytes;
      for (size_t i = sub; i < end; ++i, codes += Q::kCodeBytes) {
        for (size_t line = 0; line < Q::kCodeBytes; line += 64) prefetch(codes + kPrefetchBytes + line);
        VB w[8];
        Q::codes(codes, w);
        const size_t block = b + i - sub;
        acc[g] = add_block<Q>(w, scale + i * kHalves, min + i * kHalves, values + block * kBlockCols, meta[block], acc[g]);
      }
    }
    b += end - sub;
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
    gemv_groups<Q, kGemvStreams>(data + i * layout.group_bytes, run * layout.group_bytes, layout, values, meta, out);
    for (size_t g = 0; g < kGemvStreams; ++g) write(g * run + i, out[g]);
  }
  for (size_t group = run * kGemvStreams; group < groups; ++group) {
    gemv_groups<Q, 1>(data + group * layout.group_bytes, 0, layout, values, meta, out);
    write(group, out[0]);
  }
}

}  // namespace
}  // namespace nearmoe
