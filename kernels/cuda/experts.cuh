// What the expert kernels share: the gated activation, and finding the slice that holds a hidden column.
#pragma once

#include "formats.cuh"

namespace nearmoe::cuda {

/// gpt-oss's, written so that NaN passes through.
__device__ __forceinline__ float swiglu_clamped(float gate, float up) {
  const float g = gate > 7.0f ? 7.0f : gate;
  const float bounded = up > 7.0f ? 7.0f : up < -7.0f ? -7.0f : up;
  return g / (1.0f + expf(-1.702f * g)) * (bounded + 1.0f);
}

/// act(gate) * up, as kernels/reference/gated_activation.cc.
__device__ __forceinline__ float gated(ActivationKind kind, float gate, float up) {
  if (kind == ActivationKind::SwigluClamped) return swiglu_clamped(gate, up);
  float act;
  if (kind == ActivationKind::Silu) {
    act = gate / (1.0f + expf(-gate));
  } else if (kind == ActivationKind::GeluTanh) {
    const float inner = 0.79788456080286535588f * (gate + 0.044715f * gate * gate * gate);
    act = 0.5f * gate * (1.0f + tanhf(inner));
  } else {
    act = 0.5f * gate * (1.0f + erff(gate * 0.70710678118654752440f));
  }
  return act * up;
}

/// Value `index` of a bias, 0 where there is none.
__device__ __forceinline__ float bias_at(const float* bias, uint32_t index) {
  return bias ? __ldg(bias + index) : 0.0f;
}

/// The slice whose part of a hidden row (its rows rounded up to 32) holds column `col`, a multiple of 16.
__device__ __forceinline__ const ExpertSlice* slice_of(const ExpertView& view, uint32_t col) {
  for (uint32_t s = 0; s < view.num_slices; ++s) {
    const ExpertSlice& slice = view.slices[s];
    if (col >= slice.hidden_offset && col < slice.hidden_offset + (slice.rows + 31) / 32 * 32) return &slice;
  }
  return nullptr;
}

/// The layout of a slice's gate, up or down matrix.
__device__ __forceinline__ WeightView slice_matrix(const ExpertShape& shape, const ExpertSlice& slice,
                                                   const uint8_t* data) {
  WeightView w = shape.gate;
  w.data = data;
  w.rows = slice.rows;
  return w;
}
__device__ __forceinline__ WeightView slice_down(const ExpertShape& shape, const ExpertSlice& slice) {
  return {slice.down,      shape.hidden_size, slice.rows, slice.down_group_bytes, slice.down_superblocks,
          slice.down_phase};
}

/// The expert of a pair: null where it is not on the GPU.
__device__ __forceinline__ const ExpertView* view_of(const PairRouting& pairs, uint32_t pair) {
  if (!pairs.ids) return pairs.views;
  const int slot = pairs.slots[pairs.ids[pair]];
  return slot < 0 ? nullptr : pairs.views + slot;
}

}  // namespace nearmoe::cuda
