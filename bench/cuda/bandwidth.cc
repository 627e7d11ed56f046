// Dense matrices and attention of the bandwidth program (target gpu_bandwidth, run by
// scripts/cuda/check-gpu.mjs). Every kernel of kernels/cuda has at least one line in its table; the main
// program is that of the kernel tests.
#include <algorithm>

#include "kernels/cuda/attention_kernels.h"
#include "measure.h"

namespace gpu_test {
namespace {

using namespace nearmoe::cuda;

constexpr uint32_t kHeadDim = 128, kF16 = 1;

std::vector<uint32_t> counting(uint32_t n) {
  std::vector<uint32_t> values(n);
  for (uint32_t i = 0; i < n; ++i) values[i] = i;
  return values;
}

void matmul_rate(const char* op, cudaError_t (*multiply)(const MatmulArgs&, cudaStream_t), DType dtype,
                 uint32_t tokens) {
  const uint32_t rows = size_of(4096, 32), cols = size_of(2048, 256);
  const TestMatrix w(dtype, rows, cols);
  const TestActivations x(random_floats(size_t{tokens} * cols), tokens, cols);
  Buffer<float> y(size_t{tokens} * rows);
  ColdCopies cold(w.packed);
  MatmulArgs args{};
  args.dtype = dtype;
  args.segments[0] = {w.view(), nullptr, y.data(), rows};
  args.num_segments = 1;
  args.x = x.view();
  args.tokens = tokens;
  args.multiplier = 1.0f;
  const size_t row = wants_q8(dtype) ? cols + cols / 4 : 4 * size_t{cols};
  measure(text("%s %s, %u x %u, %u tokens", op, nearmoe::traits(dtype).name, rows, cols, tokens),
          {w.packed.size() + tokens * (row + 4 * size_t{rows}), 2.0 * rows * cols * tokens}, cold.count(),
          [&](size_t i) {
            args.segments[0].weight.data = cold.at(i);
            return multiply(args, nullptr);
          });
}

/// Queries, positions and a KV pool of one sequence of `positions` positions whose last `tokens` are asked
/// about.
struct Sequence {
  Sequence(uint32_t positions, uint32_t tokens_, size_t block_bytes, uint32_t q_size, uint32_t out_size)
      : tokens(tokens_),
        blocks((positions + kKvTokens - 1) / kKvTokens),
        table(counting(blocks)),
        offsets(std::vector<uint32_t>(tokens, 0)),
        last(positions_of(positions, tokens)),
        q(random_floats(size_t{tokens} * q_size)),
        out(size_t{tokens} * out_size),
        pools(block_bytes * blocks) {}
  static std::vector<uint32_t> positions_of(uint32_t positions, uint32_t tokens) {
    std::vector<uint32_t> values = counting(tokens);
    for (uint32_t& value : values) value += positions - tokens;
    return values;
  }

  uint32_t tokens, blocks;
  Buffer<uint32_t> table, offsets, last;
  Buffer<float> q, out;
  ColdCopies pools;
};

void attention_rate(uint32_t heads, uint32_t kv_heads, uint32_t tokens, uint32_t head_dim = kHeadDim) {
  const uint32_t positions = size_of(2048, 96), q_size = heads * head_dim, splits = size_of(11, 2);
  const size_t block_bytes = kv_pool_block_bytes(kF16, head_dim) * kv_heads;
  Sequence s(positions, tokens, block_bytes, q_size, q_size);
  Buffer<float> parts(attention_decode_workspace(1, heads, head_dim, splits));
  AttentionArgs args{s.q.data(),       q_size,         s.out.data(), q_size, heads, kv_heads, head_dim,
                     head_dim,         0.1f,           0.0f,         0,      0,     nullptr,  s.last.data(),
                     s.offsets.data(), s.table.data(), nullptr,      kF16};
  std::vector<PrefillTile> tiles;
  const uint32_t tile = prefill_tile_tokens(heads / kv_heads, head_dim);
  for (uint32_t at = 0; at < tokens; at += tile) tiles.push_back({at, std::min(tile, tokens - at)});
  const Buffer<PrefillTile> device_tiles(tiles);
  const bool decode = tokens == 1;
  const double pairs = static_cast<double>(tokens) * (positions - (tokens - 1) / 2.0);
  measure(
      text("%s f16, %u heads of %u on %u, %u tokens behind %u",
           decode ? "attention_decode" : "attention_prefill", heads, head_dim, kv_heads, tokens,
           positions - tokens),
      {block_bytes * s.blocks + 8 * size_t{tokens} * q_size, 4 * pairs * q_size}, s.pools.count(),
      [&](size_t i) {
        args.kv = s.pools.at(i);
        if (decode) return attention_decode({args, nullptr, 1, splits, parts.data()}, nullptr);
        return attention_prefill({args, device_tiles.data(), static_cast<uint32_t>(tiles.size())}, nullptr);
      });
}

/// DeepSeek-V2-Lite's latents.
void latent_rate(uint32_t tokens) {
  const uint32_t heads = 16, latent_dim = 576, value_dim = 512, positions = size_of(2048, 96);
  const uint32_t splits = tokens == 1 ? size_of(3, 2) : 1;
  const size_t block_bytes = latent_pool_block_bytes(kF16, latent_dim);
  Sequence s(positions, tokens, block_bytes, heads * latent_dim, heads * value_dim);
  Buffer<float> parts(latent_attention_workspace(1, heads, value_dim, splits));
  std::vector<PrefillTile> tiles;
  const uint32_t tile = latent_tile_tokens(heads);
  for (uint32_t at = 0; at < tokens; at += tile) tiles.push_back({at, std::min(tile, tokens - at)});
  const Buffer<PrefillTile> device_tiles(tiles);
  LatentAttentionArgs args{
      s.q.data(),     s.out.data(), heads, latent_dim, value_dim, 0.1f, s.last.data(), s.offsets.data(),
      s.table.data(), nullptr,      kF16,  nullptr,    nullptr,   1,    splits,        parts.data()};
  if (tokens > 1) {
    args.tiles = device_tiles.data();
    args.num_tiles = static_cast<uint32_t>(tiles.size());
  }
  const double pairs = static_cast<double>(tokens) * (positions - (tokens - 1) / 2.0);
  measure(text("latent_attention f16, %u heads, %u tokens behind %u", heads, tokens, positions - tokens),
          {block_bytes * s.blocks + 4 * size_t{tokens} * heads * (latent_dim + value_dim),
           2 * pairs * heads * (latent_dim + value_dim)},
          s.pools.count(), [&](size_t i) {
            args.kv = s.pools.at(i);
            return latent_attention(args, nullptr);
          });
}

GPU_TEST(matrix_bandwidth) {
  for (const DType dtype : kFormats) matmul_rate("gemv", gemv, dtype, 1);
  for (const DType dtype : kFormats) {
    if (wants_q8(dtype) || has_bf16_matrices()) matmul_rate("gemm", gemm, dtype, size_of(512, 16));
  }
}

GPU_TEST(attention_bandwidth) {
  attention_rate(16, 16, 1);
  attention_rate(32, 4, 1);
  attention_rate(size_of(16, 4), 2, 1, 512);
  if (!has_bf16_matrices()) return;
  attention_rate(32, 4, size_of(512, 16));
  attention_rate(size_of(16, 4), 2, size_of(512, 4), 512);
  latent_rate(1);
  latent_rate(size_of(512, 4));
}

}  // namespace
}  // namespace gpu_test
