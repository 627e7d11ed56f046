// latent_write and latent_attention against plain loops in double.
#include <cmath>

#include "kv_host.h"
#include "weights.h"

namespace gpu_test {
namespace {

using namespace nearmoe::cuda;

/// Latents on the host: blocks of [32][padded].
struct LatentPool : KvElements {
  uint32_t padded;

  LatentPool(uint32_t kv_dtype_, uint32_t latent_dim, uint32_t blocks)
      : KvElements(kv_dtype_, blocks * latent_pool_block_bytes(kv_dtype_, latent_dim)),
        padded(padded_latent_dim(latent_dim)) {}
  size_t index(uint32_t block, uint32_t position, uint32_t d) const {
    return (size_t{block} * kKvTokens + position % kKvTokens) * padded + d;
  }
};

struct WriteCase {
  uint32_t heads, nope_dim, value_dim, rope_dim, rotary_dim, kv_dtype;
  bool interleaved;
  uint32_t latent_dim() const { return value_dim + rope_dim; }
};

std::vector<double> rotated(const WriteCase& c, const float* x, const float2* rotary) {
  std::vector<double> y(x, x + c.rope_dim);
  const uint32_t half = c.rotary_dim / 2;
  for (uint32_t i = 0; i < half; ++i) {
    const uint32_t a = c.interleaved ? 2 * i : i, b = c.interleaved ? 2 * i + 1 : i + half;
    const double cos = rotary[i].x, sin = rotary[i].y;
    y[a] = x[a] * cos - x[b] * sin;
    y[b] = x[b] * cos + x[a] * sin;
  }
  return y;
}

struct WriteFixture {
  WriteCase c;
  Batch batch;
  uint32_t q_stride, latent_stride;
  std::vector<float> latent, q, norm;
  std::vector<float2> rotary;
  LatentPool pool;
  Buffer<float> device_latent, device_q, device_norm, latent_q;
  Buffer<float2> device_rotary;
  Buffer<uint32_t> positions, offsets, table;
  Buffer<uint8_t> device_pool;
  TestSinks nope;

  WriteFixture(const WriteCase& c_, const Batch& batch_)
      : c(c_),
        batch(batch_),
        q_stride(c.heads * (c.nope_dim + c.rope_dim) + 5),
        latent_stride(c.latent_dim() + 3),
        latent(random_floats(size_t{batch.tokens()} * latent_stride, 2.0f, true)),
        q(random_floats(size_t{batch.tokens()} * q_stride, 2.0f, true)),
        norm(random_floats(c.value_dim)),
        rotary(size_t{batch.tokens()} * (c.rotary_dim / 2)),
        pool(c.kv_dtype, c.latent_dim(), batch.blocks),
        device_latent(latent),
        device_q(q),
        device_norm(norm),
        latent_q(size_t{batch.tokens()} * c.heads * c.latent_dim()),
        device_rotary(rotary.size()),
        positions(batch.positions),
        offsets(batch.offsets),
        table(batch.table),
        device_pool(pool.bytes.size()),
        nope(batch.tokens() * c.heads, c.nope_dim) {
    for (float2& r : rotary) {
      const float angle = random_floats(1)[0];
      r = make_float2(std::cos(angle), std::sin(angle));
    }
    device_rotary.set(rotary);
  }
  LatentWriteArgs args() {
    return {device_latent.data(),
            device_q.data(),
            latent_stride,
            q_stride,
            batch.tokens(),
            c.heads,
            c.nope_dim,
            c.latent_dim(),
            c.value_dim,
            device_norm.data(),
            1e-6f,
            c.rotary_dim,
            device_rotary.data(),
            c.interleaved,
            positions.data(),
            offsets.data(),
            table.data(),
            device_pool.data(),
            c.kv_dtype,
            nope.view(),
            latent_q.data()};
  }
  std::vector<std::byte> collect() const {
    std::vector<std::byte> bytes;
    append_bytes(bytes, device_pool);
    append_bytes(bytes, latent_q);
    append_bytes(bytes, nope.f32);
    append_bytes(bytes, nope.high);
    append_bytes(bytes, nope.low);
    append_bytes(bytes, nope.q8);
    append_bytes(bytes, nope.q8_meta);
    return bytes;
  }
};

void check_stored(const WriteFixture& f, const std::string& name) {
  const WriteCase& c = f.c;
  LatentPool stored = f.pool;
  stored.bytes = f.device_pool.get();
  std::vector<uint8_t> touched(stored.size());
  std::vector<float> got;
  std::vector<double> expected, tolerance;
  for (uint32_t t = 0; t < f.batch.tokens(); ++t) {
    const float* x = f.latent.data() + size_t{t} * f.latent_stride;
    double squares = 0;
    for (uint32_t i = 0; i < c.value_dim; ++i) squares += static_cast<double>(x[i]) * x[i];
    const double scale = 1.0 / std::sqrt(squares / c.value_dim + static_cast<double>(1e-6f));
    std::vector<double> row(stored.padded);
    for (uint32_t i = 0; i < c.value_dim; ++i) row[i] = f.norm[i] * x[i] * scale;
    const std::vector<double> turned =
        rotated(c, x + c.value_dim, f.rotary.data() + size_t{t} * (c.rotary_dim / 2));
    std::copy(turned.begin(), turned.end(), row.begin() + c.value_dim);
    double size = 0;
    for (const double v : row) size = std::fmax(size, std::fabs(v));
    for (uint32_t d = 0; d < stored.padded; ++d) {
      const size_t at = stored.index(f.batch.block_of(t, f.batch.positions[t]), f.batch.positions[t], d);
      touched[at] = 1;
      got.push_back(stored.get(at));
      expected.push_back(row[d]);
      const double rounding = c.kv_dtype == kF32 ? 3e-6 : c.kv_dtype == kF16 ? 1e-3 : 8e-3;
      tolerance.push_back(d >= c.latent_dim() ? 0.0 : rounding * size + (c.kv_dtype == kF16 ? 1e-7 : 1e-30));
    }
  }
  check_close(name + ", latents", got, expected, tolerance);
  const size_t spilled = stored.spilled(f.pool, touched);
  check(spilled == 0, name + text(": %zu values outside the tokens' slots were written", spilled));
}

void check_queries(const WriteFixture& f, const std::string& name) {
  const WriteCase& c = f.c;
  const std::vector<float> among = f.latent_q.get();
  std::vector<float> nope, got;
  std::vector<double> expected, tolerance;
  for (uint32_t pair = 0; pair < f.batch.tokens() * c.heads; ++pair) {
    const uint32_t t = pair / c.heads, head = pair % c.heads;
    const float* x = f.q.data() + size_t{t} * f.q_stride + size_t{head} * (c.nope_dim + c.rope_dim);
    nope.insert(nope.end(), x, x + c.nope_dim);
    const std::vector<double> turned =
        rotated(c, x + c.nope_dim, f.rotary.data() + size_t{t} * (c.rotary_dim / 2));
    double size = 0;
    for (const double v : turned) size = std::fmax(size, std::fabs(v));
    for (uint32_t i = 0; i < c.rope_dim; ++i) {
      got.push_back(among[size_t{pair} * c.latent_dim() + c.value_dim + i]);
      expected.push_back(turned[i]);
      tolerance.push_back(3e-6 * size + 1e-30);
    }
  }
  check_close(name + ", rotated queries", got, expected, tolerance);
  const TestActivations forms(nope, f.batch.tokens() * c.heads, c.nope_dim);
  check_same(name + ", queries", f.nope.f32.get(), forms.padded);
  check_same(name + ", queries high", f.nope.high.get(), forms.high.get());
  check_same(name + ", queries q8", f.nope.q8.get(), forms.q8.get());
}

void check_write(const WriteCase& c) {
  Batch batch;
  batch.add(30, 4);
  batch.add(0, 1);
  WriteFixture f(c, batch);
  const std::string name =
      text("latent_write %u heads of %u + %u, latents of %u, rotary %u, %s%s", c.heads, c.nope_dim,
           c.rope_dim, c.value_dim, c.rotary_dim, kKvNames[c.kv_dtype], c.interleaved ? ", interleaved" : "");
  const auto prepare = [&] {
    f.device_pool.set(f.pool.bytes);
    check(cudaMemset(f.latent_q.data(), 0xff, f.latent_q.size() * sizeof(float)) == cudaSuccess, "poison");
  };
  if (!run_in_orders(
          name, prepare, [&] { return latent_write(f.args(), nullptr); }, [&] { return f.collect(); }))
    return;
  check_stored(f, name);
  check_queries(f, name);
}

GPU_TEST(latent_write) {
  check_write({3, 12, 20, 8, 8, kF32, true});
  check_write({9, 33, 65, 10, 6, kF16, false});
  check_write({2, 128, 512, 64, 64, kBF16, true});
  check_write({1, 1, 1, 2, 0, kF32, false});
}

struct LatentCase {
  uint32_t heads, value_dim, rope_dim, kv_dtype;
  float q_scale = 1.0f, scale = 1.0f;  ///< of queries, and of scores beside kScale
  uint32_t latent_dim() const { return value_dim + rope_dim; }
};

constexpr float kScale = 0.2f;

struct LatentFixture {
  LatentCase c;
  Batch batch;
  LatentPool pool;
  std::vector<float> q;
  Buffer<float> device_q, out;
  Buffer<uint32_t> positions, offsets, table;
  Buffer<uint8_t> device_pool;

  LatentFixture(const LatentCase& c_, const Batch& batch_)
      : c(c_),
        batch(batch_),
        pool(c.kv_dtype, c.latent_dim(), batch.blocks),
        q(random_floats(size_t{batch.tokens()} * c.heads * c.latent_dim(), c.q_scale)),
        device_q(q),
        out(size_t{batch.tokens()} * c.heads * c.value_dim),
        positions(batch.positions),
        offsets(batch.offsets),
        table(batch.table),
        device_pool(pool.bytes.size()) {
    for (uint32_t t = 0; t < batch.tokens(); ++t) {
      for (uint32_t p = 0; batch.last_of_sequence(t) && p <= batch.positions[t]; ++p) {
        const std::vector<float> row = random_floats(pool.padded);
        for (uint32_t d = 0; d < pool.padded; ++d)
          pool.put(pool.index(batch.block_of(t, p), p, d), d < c.latent_dim() ? row[d] : 0.0f);
      }
    }
    device_pool.set(pool.bytes);
  }
  LatentAttentionArgs args() {
    LatentAttentionArgs args{};
    args.q = device_q.data();
    args.out = out.data();
    args.num_heads = c.heads;
    args.latent_dim = c.latent_dim();
    args.value_dim = c.value_dim;
    args.scale = kScale * c.scale;
    args.positions = positions.data();
    args.block_offsets = offsets.data();
    args.block_table = table.data();
    args.kv = device_pool.data();
    args.kv_dtype = c.kv_dtype;
    args.num_tiles = batch.tokens();
    args.num_splits = 1;
    return args;
  }
  std::string name(const char* how) const {
    return text("latent_attention %u heads, latents of %u + %u, %s, queries by %g, %u tokens, %s", c.heads,
                c.value_dim, c.rope_dim, kKvNames[c.kv_dtype], static_cast<double>(c.q_scale), batch.tokens(),
                how);
  }
  /// Expected outputs and, as the scale of tolerances, the weighted sum of the values' magnitudes.
  void reference(uint32_t t, uint32_t head, std::vector<double>& expected, std::vector<double>& scale) const {
    std::vector<double> score;
    const float* query = q.data() + (size_t{t} * c.heads + head) * c.latent_dim();
    const auto value = [&](uint32_t p, uint32_t d) {
      return static_cast<double>(pool.get(pool.index(batch.block_of(t, p), p, d)));
    };
    double top = -INFINITY, total = 0;
    for (uint32_t p = 0; p <= batch.positions[t]; ++p) {
      double s = 0;
      for (uint32_t d = 0; d < c.latent_dim(); ++d) s += query[d] * value(p, d);
      score.push_back(s * static_cast<double>(kScale * c.scale));
      top = std::fmax(top, score.back());
    }
    for (double& s : score) total += s = std::exp(s - top);
    for (uint32_t d = 0; d < c.value_dim; ++d) {
      double sum = 0, magnitude = 0;
      for (uint32_t p = 0; p <= batch.positions[t]; ++p) {
        sum += score[p] * value(p, d);
        magnitude += std::fabs(score[p] * value(p, d));
      }
      expected.push_back(sum / total);
      scale.push_back(magnitude / total);
    }
  }
  void compare(const std::string& what) const {
    // Operands of 16 bits of mantissa: errors of scores become relative errors of weights.
    constexpr double kTolerance = 4e-4;
    std::vector<double> expected, scale;
    for (uint32_t t = 0; t < batch.tokens(); ++t) {
      for (uint32_t h = 0; h < c.heads; ++h) reference(t, h, expected, scale);
    }
    for (double& s : scale) s = kTolerance * s + 1e-30;
    check_close(what, out.get(), expected, scale);
  }
};

/// Single tokens, in the order that `tokens` names.
void check_single(const LatentCase& c, const Batch& batch, uint32_t splits) {
  LatentFixture f(c, batch);
  std::vector<uint32_t> order(batch.tokens());
  for (uint32_t t = 0; t < batch.tokens(); ++t) order[t] = batch.tokens() - 1 - t;
  const Buffer<uint32_t> tokens(order);
  Buffer<float> partial(latent_attention_workspace(batch.tokens(), c.heads, c.value_dim, splits));
  LatentAttentionArgs args = f.args();
  args.tokens = tokens.data();
  args.num_splits = splits;
  args.partial = partial.data();
  const std::string name = f.name("one by one") + text(", %u splits", splits);
  if (run_in_orders(
          name, [&] { return latent_attention(args, nullptr); }, f.out))
    f.compare(name);
}

void check_tiles(const LatentCase& c, const Batch& batch) {
  LatentFixture f(c, batch);
  const std::vector<PrefillTile> tiles = batch.tiles(latent_tile_tokens(c.heads));
  const Buffer<PrefillTile> device_tiles(tiles);
  LatentAttentionArgs args = f.args();
  args.tiles = device_tiles.data();
  args.num_tiles = static_cast<uint32_t>(tiles.size());
  const std::string name = f.name("in tiles");
  if (run_in_orders(
          name, [&] { return latent_attention(args, nullptr); }, f.out))
    f.compare(name);
}

GPU_TEST(latent_attention) {
  if (!has_bf16_matrices()) return;
  Batch one, several, start;
  one.add(69, 1);
  several.add(0, 1);
  several.add(31, 2);
  several.add(150, 1);
  start.add(0, 20);
  start.add(45, 3);
  check_single({3, 20, 8, kF32}, several, 1);
  check_single({16, 64, 16, kF16}, several, 3);
  check_single({20, 33, 3, kBF16}, several, 8);
  check_single({17, 512, 64, kF16}, one, 2);
  check_single({33, 48, 16, kBF16}, several, 2);
  check_single({2, 48, 16, kF32, 40.0f}, one, 2);            // one key has all the weight
  check_single({3, 48, 16, kF16, 1e5f, 1e-5f}, several, 2);  // queries beyond the range of f16, on both sides
  check_single({18, 48, 16, kF16, 1e-7f, 1e7f}, one, 1);
  check_tiles({3, 20, 8, kF32}, start);
  check_tiles({5, 100, 28, kF16}, start);
  check_tiles({1, 16, 16, kBF16}, start);
  check_tiles({18, 40, 24, kF16}, start);
  check_tiles({40, 40, 24, kF32}, start);
  if (full()) {
    Batch many, prompt;
    many.add(700, 1);
    many.add(1030, 1);
    prompt.add(0, 70);
    prompt.add(200, 30);
    for (const uint32_t kv_dtype : {kF32, kF16, kBF16}) {
      check_single({16, 512, 64, kv_dtype}, many, 5);
      check_single({128, 512, 64, kv_dtype}, several, 2);
      check_tiles({16, 512, 64, kv_dtype}, prompt);
      check_tiles({6, 256, 32, kv_dtype}, prompt);
    }
  }
  LatentAttentionArgs wide{};
  wide.latent_dim = kMaxLatentDim + 1;
  wide.num_splits = 1;
  check(latent_attention(wide, nullptr) == cudaErrorInvalidValue,
        "latent_attention: rows that are too wide are refused");
}

}  // namespace
}  // namespace gpu_test
