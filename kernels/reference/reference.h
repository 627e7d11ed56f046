// The scalar ops, one file each: obvious, slow, the definition every SIMD version is tested against.
// Collected into the "scalar" table by table.cc; nothing else calls them.
#pragma once

#include "../ops.h"

namespace nearmoe::reference {

void prepare_activations(ActFormat format, const float* x, size_t x_stride, size_t tokens, size_t cols,
                         std::byte* out);
void matmul(const PackedMatrix& w, const ActView& x, float* y, size_t ldy);
void unpack_row(const PackedMatrix& w, size_t row, float* out);
void rms_norm(const float* x, const float* weight, float eps, float* y, size_t n);
void layer_norm(const float* x, const float* weight, const float* bias, float eps, float* y, size_t n);
void rope(float* x, size_t heads, size_t head_dim, size_t rotary_dim, const float* cos, const float* sin,
          RopeStyle style);
void gated_activation(Activation act, const float* gate, const float* up, float* out, size_t n);
void accumulate(const float* x, float weight, float* out, size_t n);
void add(const float* x, float* out, size_t n);
void kv_store(KvDType dtype, const float* k, const float* v, size_t head_dim, size_t slot, std::byte* block);
void attention(const AttentionArgs& args);
void latent_store(KvDType dtype, const float* x, size_t dim, size_t slot, std::byte* block);
void latent_attention(const LatentAttentionArgs& args);
void causal_conv(const CausalConvArgs& args);
void gated_delta(const GatedDeltaArgs& args);
uint32_t argmax(const float* x, size_t n);

/// Quantises one row of `cols` floats: int8 values filled up to whole blocks, then the blocks' Q8Meta.
void quantise_row(const float* x, size_t cols, int8_t* values, std::byte* meta);

}  // namespace nearmoe::reference
