// The contract of every CPU op: shapes, dtypes, layout, tolerance. One table of function pointers per ISA.
// T tokens, H hidden, N output rows, C columns, D head dim. All floats are IEEE binary32 in native order.
//
// Numerics every ISA keeps, so that results do not depend on batch size, tile or ISA-independent choices:
//  - matmul over a float format: one fma chain per (token, row) in ascending column order, starting at +0.
//  - matmul over a quantised format: exact integer dot product per 32-column block; per block one
//    fma(float(dot), row_scale * activation_scale, acc) in ascending block order (formats with minima add
//    their own documented fma per block).
// Thus a token's result is bit-identical in a call with 1 token and in one with 512.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dtypes.h"

namespace nearmoe {

/// Rows are interleaved in groups of this many; a matrix's last group is filled up with zero rows in storage
/// only.
inline constexpr uint32_t kRowGroup = 16;
/// Token positions of one KV block.
inline constexpr uint32_t kKvBlockTokens = 32;
/// Alignment of packed matrices, KV blocks and activation buffers.
inline constexpr size_t kAlignment = 64;

/// A weight matrix [rows][cols] in the packed (row-interleaved) layout of its dtype. Does not own its bytes.
/// Formats with 256-column superblocks may be cut at multiples of 32 columns: `col_begin` must then be what
/// pack was given (the kernels need it modulo 256 to find a block's place in its superblock); other formats
/// ignore it.
struct PackedMatrix {
  const std::byte* data = nullptr;
  uint32_t rows = 0;
  uint32_t cols = 0;
  DType dtype = DType::F32;
  uint32_t col_begin = 0;
};

/// Prepared activations: `count` tokens; token i lies at data + (index ? index[i] : i) * stride.
struct ActView {
  const std::byte* data = nullptr;
  size_t stride = 0;
  const uint32_t* index = nullptr;
  uint32_t count = 0;
};

/// Keys that attention takes in at a time, at multiples of it.
inline constexpr uint32_t kAttentionStep = 128;

enum class KvDType : uint8_t { F32 = 0, F16 = 1, BF16 = 2, Q8_0 = 3 };
enum class RopeStyle : uint8_t { Neox = 0, Interleaved = 1 };
/// SwigluClamped is gpt-oss's: g = min(gate, 7), g * sigmoid(1.702 g) * (clamp(up, -7, 7) + 1). Sigmoid and
/// Identity (the gate as it is) are no activations of experts: attention outputs and convolutions are gated
/// by them.
enum class Activation : uint8_t {
  Silu = 0,
  GeluTanh = 1,
  Gelu = 2,
  SwigluClamped = 3,
  Sigmoid = 4,
  Identity = 5
};

/// Attention of one KV head and the `q_heads` query heads that share it, for `tokens` consecutive query
/// tokens of one sequence (positions first_position ... first_position + tokens - 1). Causal; K and V of
/// those positions are already stored. Online softmax in float32.
struct AttentionArgs {
  const float* q =
      nullptr;          ///< first query head of the group; head h of token t at q + t*q_stride + h*head_dim
  size_t q_stride = 0;  ///< floats between tokens
  uint32_t q_heads = 0;
  uint32_t tokens = 0;
  uint32_t first_position = 0;
  uint32_t head_dim = 0;
  const std::byte* const* blocks = nullptr;  ///< KV block i of this sequence for this layer and KV head
  KvDType kv_dtype = KvDType::F32;
  float scale = 0;              ///< multiplies q.k
  float softcap = 0;            ///< 0 = none; else s = softcap * tanh(s / softcap)
  uint32_t sliding_window = 0;  ///< 0 = none; else keys at distance >= window are not seen
  uint32_t chunk_size = 0;      ///< 0 = none; else only keys of the token's own run of so many positions are
  const float* sinks =
      nullptr;  ///< per query head of the group, or null: an extra logit in the softmax's denominator
  float* out = nullptr;  ///< [tokens][q_heads][head_dim], token stride out_stride
  size_t out_stride = 0;
  /// Where the next call's blocks lie behind these: prefetched while the last of these are read. 0: nowhere.
  size_t next_head_bytes = 0;
  /// Only keys [first_key, end_key), multiples of kAttentionStep; end_key 0: up to the newest.
  uint32_t first_key = 0;
  uint32_t end_key = 0;
  /// Not null: `out` is left undivided, and here are, [tokens][q_heads][2], the largest logit and the sum of
  /// exp(logit - largest), by which parts are put together. The sum is 0, and so is out, where no key is
  /// seen. Sinks are for one of the parts.
  float* stats = nullptr;
};

/// Attention over latents (MLA in its absorbed form, DeepSeek-V2, arXiv 2405.04434): every position has one
/// row of latent_dim values that all query heads share; it is the key, and its first value_dim values are the
/// value. Otherwise as AttentionArgs.
struct LatentAttentionArgs {
  const float* q = nullptr;  ///< head h of token t at q + t*q_stride + h*latent_dim
  size_t q_stride = 0;       ///< floats between tokens
  uint32_t q_heads = 0;
  uint32_t tokens = 0;
  uint32_t first_position = 0;
  uint32_t latent_dim = 0;
  uint32_t value_dim = 0;                    ///< at most latent_dim
  const std::byte* const* blocks = nullptr;  ///< block i of this sequence for this layer
  KvDType kv_dtype = KvDType::F32;
  float scale = 0;       ///< multiplies q.latent
  float* out = nullptr;  ///< [tokens][q_heads][value_dim], token stride out_stride
  size_t out_stride = 0;
};

/// Longest kernel of a causal convolution.
inline constexpr uint32_t kMaxConvWidth = 16;

/// Causal convolution of every channel for itself over consecutive tokens of one sequence:
/// y[t][c] = sum over j < width of kernel[j][c] * x[t + j - (width - 1)][c], one fma chain in ascending j.
/// The rows before the first token are the state's, oldest first.
struct CausalConvArgs {
  const float* x = nullptr;
  size_t x_stride = 0;  ///< floats between tokens
  uint32_t tokens = 0;
  uint32_t channels = 0;
  uint32_t width = 0;             ///< 1 ... kMaxConvWidth
  const float* kernel = nullptr;  ///< [width][kernel_stride]
  size_t kernel_stride = 0;
  const float* state_in = nullptr;  ///< [width - 1][state_stride]; null: zeros
  float* state_out = nullptr;       ///< the last width - 1 rows of state and x; not state_in
  size_t state_stride = 0;
  float* y = nullptr;  ///< may be x
  size_t y_stride = 0;
  bool silu = false;  ///< y is SiLU of the sum
};

/// Values in a lane group of a delta rule's state.
inline constexpr size_t kDeltaLanes = 16;
/// Floats of one head's state: [value_dim / kDeltaLanes, rounded up][key_dim][kDeltaLanes].
constexpr size_t delta_state_floats(size_t key_dim, size_t value_dim) {
  return (value_dim + kDeltaLanes - 1) / kDeltaLanes * kDeltaLanes * key_dim;
}

/// Gated delta rule (Yang et al. 2024, arXiv 2412.06464) of one value head, token by token over consecutive
/// tokens of one sequence. With state S [key_dim][value_dim]: S = decay * S; d = beta * (v - S^T k);
/// S = S + k d^T; out = S^T q. As computed, all in one order: m = S^T k and o = S^T q of the state before, as
/// fma chains in ascending key; d = beta * fma(-decay, m, v); out = fma(d, k.q, decay * o);
/// S = fma(k, d, decay * S).
struct GatedDeltaArgs {
  const float* q = nullptr;  ///< normalised and scaled
  const float* k = nullptr;  ///< normalised
  size_t key_stride = 0;     ///< floats between tokens of q, and of k
  const float* v = nullptr;
  size_t value_stride = 0;
  const float* decay = nullptr;  ///< of each token, 0 ... 1
  const float* beta = nullptr;   ///< of each token
  size_t gate_stride = 0;
  uint32_t tokens = 0;
  uint32_t key_dim = 0;
  uint32_t value_dim = 0;
  const float* state_in = nullptr;  ///< delta_state_floats; null: zeros
  float* state_out = nullptr;       ///< after the last token; not state_in
  float* out = nullptr;             ///< [tokens][value_dim], token stride out_stride
  size_t out_stride = 0;
};

/// One table per ISA. Every function is single-threaded, allocates nothing and never throws.
struct OpTable {
  const char* isa;  ///< "scalar", "avx2", "avxvnni", "avx512", "amx", "neon", "dotprod", "i8mm"

  /// Prepares `tokens` rows of `cols` floats (row stride x_stride floats) for matmul; row i goes to
  /// out + i * activation_stride(format, cols).
  void (*prepare_activations)(ActFormat format, const float* x, size_t x_stride, size_t tokens, size_t cols,
                              std::byte* out);
  /// y[t][n] = sum_c W[n][c] * x[t][c] for all rows n < w.rows and tokens t < x.count; y's token stride is
  /// ldy floats. x was prepared in traits(w.dtype).activation.
  void (*matmul)(const PackedMatrix& w, const ActView& x, float* y, size_t ldy);
  /// Row `row` of a packed matrix as floats.
  void (*unpack_row)(const PackedMatrix& w, size_t row, float* out);

  void (*rms_norm)(const float* x, const float* weight, float eps, float* y, size_t n);
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps, float* y, size_t n);
  /// Rotates the first rotary_dim values of each of `heads` heads of head_dim in place; cos/sin: [rotary_dim
  /// / 2].
  void (*rope)(float* x, size_t heads, size_t head_dim, size_t rotary_dim, const float* cos, const float* sin,
               RopeStyle style);
  /// out[i] = act(gate[i]) * up[i]; SwigluClamped as above
  void (*gated_activation)(Activation act, const float* gate, const float* up, float* out, size_t n);
  /// out[i] = fma(weight, x[i], out[i])
  void (*accumulate)(const float* x, float weight, float* out, size_t n);
  /// out[i] += x[i]
  void (*add)(const float* x, float* out, size_t n);

  /// Stores K and V [head_dim] of one position (slot = position % kKvBlockTokens) into one head's KV block.
  void (*kv_store)(KvDType dtype, const float* k, const float* v, size_t head_dim, size_t slot,
                   std::byte* block);
  void (*attention)(const AttentionArgs& args);
  /// Stores the latent [dim] of one position into a block of latents.
  void (*latent_store)(KvDType dtype, const float* x, size_t dim, size_t slot, std::byte* block);
  void (*latent_attention)(const LatentAttentionArgs& args);

  void (*causal_conv)(const CausalConvArgs& args);
  void (*gated_delta)(const GatedDeltaArgs& args);

  /// Index of the largest value (lowest index wins ties).
  uint32_t (*argmax)(const float* x, size_t n);
};

/// Bytes of one prepared token row (a multiple of kAlignment).
size_t activation_stride(ActFormat format, size_t cols);
/// Bytes of one KV block of one head (K and V of kKvBlockTokens positions), a multiple of kAlignment.
size_t kv_block_bytes(KvDType dtype, size_t head_dim);
/// Bytes of one block of latents of kKvBlockTokens positions, a multiple of kAlignment.
size_t latent_block_bytes(KvDType dtype, size_t dim);

/// Bytes of a packed matrix (a multiple of kAlignment); col_begin as given to pack.
size_t packed_bytes(DType dtype, size_t rows, size_t cols, size_t col_begin = 0);
/// Packs columns [col_begin, col_begin + cols) of `rows` source rows (file layout, row stride row_bytes) into
/// dst. col_begin and cols are multiples of traits(dtype).slice_cols. Returns false where a float value or a
/// block scale is NaN or infinite (the weight is then unusable); dst is then unspecified.
bool pack(DType dtype, const std::byte* src, size_t row_bytes, size_t rows, size_t col_begin, size_t cols,
          std::byte* dst);
/// Inverse of pack: dst in file layout, bit for bit for every value pack accepts. Where a slice begins or
/// ends inside a superblock, dst holds the touched superblocks whole, the quants of columns outside the slice
/// as zero bits.
void unpack(const PackedMatrix& w, std::byte* dst);
/// Quantises float rows to the file layout of dtype (bf16, f16, f32 convert); cols in whole blocks. False
/// where can_quantize(dtype) is. A block that holds NaN or infinity gets a scale that pack refuses.
bool quantize(DType dtype, const float* src, size_t rows, size_t cols, std::byte* dst);
/// All but q2_k, q3_k and iq4_xs.
bool can_quantize(DType dtype);
/// Converts file-layout values of any dtype to floats; n is a multiple of the block's columns.
void dequantize(DType dtype, const std::byte* src, float* dst, size_t n);

/// The best table this CPU and OS can run, or the one NEARMOE_ISA names (null if that one cannot run here).
const OpTable* select_ops(const char* forced_isa);
/// Vector registers that the operating system saves ("avx", "avx512", "amx"), for reports; none known
/// elsewhere than on x86. A table runs where CPU and operating system both allow it (and Linux grants AMX on
/// request).
size_t saved_register_names(const char** out, size_t capacity);
/// All tables compiled in and runnable here, "scalar" first.
size_t runnable_ops(const OpTable** out, size_t capacity);

}  // namespace nearmoe
