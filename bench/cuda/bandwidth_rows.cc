// Kernels of the bandwidth program that pass over rows: a prefill chunk's rows for all but top_k.
#include "kernels/cuda/attention_kernels.h"
#include "measure.h"

namespace gpu_test {
namespace {

using namespace nearmoe::cuda;

constexpr uint32_t kTokens = size_of(512, 8), kCols = size_of(2048, 256), kHeads = size_of(32, 4),
                   kKvHeads = size_of(4, 2), kDim = 128, kF16 = 1;
constexpr size_t kRowBytes = 4 * size_t{kCols};

GPU_TEST(row_bandwidth) {
  const Buffer<float> x(random_floats(size_t{kTokens} * kCols)), weight(random_floats(kCols));
  TestSinks sinks(kTokens, kCols);
  ActivationSinks bytes_only = sinks.view();
  bytes_only.f32 = nullptr;
  bytes_only.high = bytes_only.low = nullptr;
  const size_t q8_row = kCols + kCols / 4;
  measure(text("norm to int8, %u x %u", kTokens, kCols), {kTokens * (kRowBytes + q8_row), 0}, 1, [&](size_t) {
    return norm({x.data(), kCols, kCols, nullptr, kTokens, weight.data(), nullptr, 1e-6f, false, bytes_only},
                nullptr);
  });
  measure(text("prepare to int8, %u x %u", kTokens, kCols), {kTokens * (kRowBytes + q8_row), 0}, 1,
          [&](size_t) {
            return prepare({x.data(), kCols, kTokens, kCols, bytes_only}, nullptr);
          });
  Buffer<float> gates(kTokens), hidden(std::vector<float>(size_t{kTokens} * kCols));
  measure(text("shared_gate, %u x %u", kTokens, kCols), {kTokens * kRowBytes, 0}, 1, [&](size_t) {
    return shared_gate({x.data(), kCols, kCols, kTokens, weight.data(), gates.data()}, nullptr);
  });
  measure(text("add_partial, %u x %u, from device memory", kTokens, kCols), {3 * kTokens * kRowBytes, 0}, 1,
          [&](size_t) {
            return add_partial({hidden.data(), kCols, kCols, kTokens, x.data(), 1.0f}, nullptr);
          });
  measure(text("norm_add, %u x %u", kTokens, kCols), {3 * kTokens * kRowBytes, 0}, 1, [&](size_t) {
    return norm_add({x.data(), kCols, kCols, kTokens, weight.data(), 1e-6f, false, hidden.data(), kCols, 1.0f,
                     nullptr, false},
                    nullptr);
  });
}

GPU_TEST(vocabulary_bandwidth) {
  const uint32_t vocab = size_of(151936, 512), k = 64;
  std::vector<int32_t> ids(kTokens);
  for (uint32_t t = 0; t < kTokens; ++t) ids[t] = static_cast<int32_t>(t * 997 % vocab);
  const Buffer<int32_t> device_ids(ids);
  const TestMatrix table(DType::BF16, vocab, kCols);
  Buffer<float> out(size_t{kTokens} * kCols);
  measure(text("embedding bf16, %u x %u", kTokens, kCols), {kTokens * (kRowBytes + kRowBytes / 2), 0}, 1,
          [&](size_t) {
            return embedding({DType::BF16, table.view(), device_ids.data(), out.data(), kCols, kTokens, 1.0f},
                             nullptr);
          });
  const uint32_t rows = size_of(16, 2);
  Buffer<float> logits(random_floats(size_t{rows} * vocab));
  Buffer<unsigned long long> workspace(top_k_workspace(rows, vocab, k));
  Buffer<int32_t> best(size_t{rows} * k);
  Buffer<float> values(size_t{rows} * k);
  measure(text("soft_cap, %u rows of %u", rows, vocab), {8 * size_t{rows} * vocab, 0}, 1, [&](size_t) {
    return soft_cap({logits.data(), vocab, rows, vocab, 30.0f}, nullptr);
  });
  measure(text("top_k, %u of %u, %u rows", k, vocab, rows), {4 * size_t{rows} * vocab, 0}, 1, [&](size_t) {
    return top_k({logits.data(), vocab, rows, vocab, k, workspace.data(), best.data(), values.data()},
                 nullptr);
  });
}

/// Positions 0, 1, ... of one sequence, with their angles.
struct Positions {
  explicit Positions(uint32_t rotary_dim)
      : positions(counting(kTokens)),
        offsets(std::vector<uint32_t>(kTokens, 0)),
        table(counting((kTokens + kKvTokens - 1) / kKvTokens)),
        rotary(std::vector<float2>(size_t{kTokens} * rotary_dim / 2, make_float2(0.6f, 0.8f))) {}
  static std::vector<uint32_t> counting(uint32_t n) {
    std::vector<uint32_t> values(n);
    for (uint32_t i = 0; i < n; ++i) values[i] = i;
    return values;
  }
  Buffer<uint32_t> positions, offsets, table;
  Buffer<float2> rotary;
};

GPU_TEST(cache_write_bandwidth) {
  const Positions p(kDim);
  const uint32_t q_size = kHeads * kDim, kv_size = kKvHeads * kDim;
  Buffer<float> q(random_floats(size_t{kTokens} * q_size));
  const Buffer<float> k(random_floats(size_t{kTokens} * kv_size)),
      v(random_floats(size_t{kTokens} * kv_size)), norm_weight(random_floats(kDim));
  Buffer<uint8_t> pool(kv_pool_block_bytes(kF16, kDim) * kKvHeads * p.table.size());
  RopeKvArgs args{};
  args.q = q.data();
  args.k = k.data();
  args.v = v.data();
  args.q_stride = q_size;
  args.k_stride = args.v_stride = kv_size;
  args.tokens = kTokens;
  args.num_heads = kHeads;
  args.num_kv_heads = kKvHeads;
  args.head_dim = args.rotary_dim = args.padded_head_dim = kDim;
  args.qk_norm = QkNormKind::Head;
  args.q_norm = args.k_norm = norm_weight.data();
  args.eps = 1e-6f;
  args.rotary = p.rotary.data();
  args.positions = p.positions.data();
  args.block_offsets = p.offsets.data();
  args.block_table = p.table.data();
  args.kv = pool.data();
  args.kv_dtype = kF16;
  measure(text("rope_kv_write f16, %u tokens, %u heads on %u", kTokens, kHeads, kKvHeads),
          {kTokens * (8 * size_t{q_size} + 12 * size_t{kv_size}), 0}, 1,
          [&](size_t) { return rope_kv_write(args, nullptr); });
}

GPU_TEST(latent_write_bandwidth) {
  const uint32_t heads = size_of(16, 2), value_dim = 512, rope_dim = 64, nope_dim = 128;
  const uint32_t latent_dim = value_dim + rope_dim, q_size = heads * (nope_dim + rope_dim);
  const Positions p(rope_dim);
  const Buffer<float> latents(random_floats(size_t{kTokens} * latent_dim)),
      q(random_floats(size_t{kTokens} * q_size)), norm_weight(random_floats(value_dim));
  Buffer<uint8_t> pool(latent_pool_block_bytes(kF16, latent_dim) * p.table.size());
  TestSinks nope(kTokens * heads, nope_dim);
  Buffer<float> latent_q(size_t{kTokens} * heads * latent_dim);
  LatentWriteArgs args{};
  args.latent = latents.data();
  args.q = q.data();
  args.latent_stride = latent_dim;
  args.q_stride = q_size;
  args.tokens = kTokens;
  args.num_heads = heads;
  args.nope_dim = nope_dim;
  args.latent_dim = latent_dim;
  args.value_dim = value_dim;
  args.norm = norm_weight.data();
  args.eps = 1e-6f;
  args.rotary_dim = rope_dim;
  args.rotary = p.rotary.data();
  args.positions = p.positions.data();
  args.block_offsets = p.offsets.data();
  args.block_table = p.table.data();
  args.kv = pool.data();
  args.kv_dtype = kF16;
  args.nope = nope.view();
  args.nope.f32 = nullptr;
  args.nope.high = args.nope.low = nullptr;
  args.latent_q = latent_q.data();
  const size_t row = 6 * size_t{latent_dim} + 4 * size_t{q_size} + heads * (nope_dim * 5 / 4 + 4 * rope_dim);
  measure(text("latent_write f16, %u tokens, %u heads", kTokens, heads), {kTokens * row, 0}, 1,
          [&](size_t) { return latent_write(args, nullptr); });
}

}  // namespace
}  // namespace gpu_test
