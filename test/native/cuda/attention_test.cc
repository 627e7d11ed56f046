// rope_kv_write, attention_decode and attention_prefill against plain loops in double.
#include <cmath>

#include "kv_host.h"

namespace gpu_test {
namespace {

using namespace nearmoe::cuda;

/// A KV pool on the host: blocks of [K 32 x Dp, V 32 x Dp] per KV head.
struct Pool : KvElements {
  uint32_t kv_heads, head_dim, padded;

  Pool(uint32_t kv_dtype_, uint32_t kv_heads_, uint32_t head_dim_, uint32_t blocks)
      : KvElements(kv_dtype_,
                   blocks * kv_heads_ * kv_pool_block_bytes(kv_dtype_, padded_head_dim(head_dim_))),
        kv_heads(kv_heads_),
        head_dim(head_dim_),
        padded(padded_head_dim(head_dim_)) {}
  size_t index(uint32_t block, uint32_t head, uint32_t slot, uint32_t d, bool value) const {
    return ((size_t{block} * kv_heads + head) * 2 + value) * kKvTokens * padded + slot * padded + d;
  }
};

struct RopeCase {
  uint32_t heads, kv_heads, head_dim, rotary_dim, kv_dtype;
  QkNormKind norm;
  bool interleaved;
  bool unit = false;         ///< norms of q and k without weights, and a norm of v
  float temperature = 0.0f;  ///< its scale; the floor is 10 positions
};

void check_rope(const RopeCase& c) {
  const std::string name =
      text("rope_kv_write %u/%u heads of %u, rotary %u, %s, norm %u%s", c.heads, c.kv_heads, c.head_dim,
           c.rotary_dim, kKvNames[c.kv_dtype], static_cast<unsigned>(c.norm),
           c.interleaved ? ", interleaved" : "") +
      text("%s, temperature %g", c.unit ? " of units" : "", static_cast<double>(c.temperature));
  Batch batch;
  batch.add(30, 4);
  batch.add(0, 1);
  const uint32_t tokens = batch.tokens(), q_size = c.heads * c.head_dim, kv_size = c.kv_heads * c.head_dim;
  const uint32_t stride = q_size + 2 * kv_size;
  const std::vector<float> qkv = random_floats(size_t{tokens} * stride, 2.0f, true);
  const bool full_norm = c.norm == QkNormKind::Full;
  std::vector<float> q_norm = random_floats(full_norm ? q_size : c.head_dim);
  std::vector<float> k_norm = random_floats(full_norm ? kv_size : c.head_dim);
  if (c.unit) q_norm = k_norm = std::vector<float>(c.head_dim, 1.0f);
  const uint32_t half = c.rotary_dim / 2;
  std::vector<float2> rotary(size_t{tokens} * half);
  for (float2& r : rotary) {
    const float angle = random_floats(1)[0];
    r = make_float2(std::cos(angle), std::sin(angle));
  }
  Pool pool(c.kv_dtype, c.kv_heads, c.head_dim, batch.blocks);
  Buffer<float> device_qkv(qkv);
  const Buffer<float> device_q_norm(q_norm), device_k_norm(k_norm);
  const Buffer<float2> device_rotary(rotary.empty() ? std::vector<float2>(1) : rotary);
  const Buffer<uint32_t> positions(batch.positions), offsets(batch.offsets), table(batch.table);
  Buffer<uint8_t> device_pool(pool.bytes);
  RopeKvArgs args{};
  args.q = device_qkv.data();
  args.k = args.q + q_size;
  args.v = args.q + q_size + kv_size;
  args.q_stride = args.k_stride = args.v_stride = stride;
  args.tokens = tokens;
  args.num_heads = c.heads;
  args.num_kv_heads = c.kv_heads;
  args.head_dim = c.head_dim;
  args.qk_norm = c.norm;
  args.q_norm = c.unit ? nullptr : device_q_norm.data();
  args.k_norm = c.unit ? nullptr : device_k_norm.data();
  args.value_norm = c.unit;
  args.temperature_scale = c.temperature;
  args.temperature_floor = 10.0f;
  args.eps = 1e-6f;
  args.rotary_dim = c.rotary_dim;
  args.rotary = device_rotary.data();
  args.interleaved = c.interleaved;
  args.positions = positions.data();
  args.block_offsets = offsets.data();
  args.block_table = table.data();
  args.kv = device_pool.data();
  args.kv_dtype = c.kv_dtype;
  args.padded_head_dim = pool.padded;
  const auto prepare = [&] {
    device_qkv.set(qkv);
    device_pool.set(pool.bytes);
  };
  const auto collect = [&] {
    std::vector<std::byte> bytes;
    append_bytes(bytes, device_qkv);
    append_bytes(bytes, device_pool);
    return bytes;
  };
  if (!run_in_orders(
          name, prepare, [&] { return rope_kv_write(args, nullptr); }, collect))
    return;
  const std::vector<float> got = device_qkv.get();
  Pool stored = pool;
  stored.bytes = device_pool.get();
  std::vector<float> got_all;
  std::vector<double> expected, tolerance;
  std::vector<uint8_t> touched(pool.size());
  for (uint32_t t = 0; t < tokens; ++t) {
    for (uint32_t h = 0; h < c.heads + c.kv_heads; ++h) {
      const bool is_k = h >= c.heads;
      const float* row = qkv.data() + size_t{t} * stride + (is_k ? q_size : 0);
      const uint32_t first = (is_k ? h - c.heads : h) * c.head_dim;
      const std::vector<float>& weight = is_k ? k_norm : q_norm;
      double squares = 0;
      const uint32_t n = full_norm ? (is_k ? kv_size : q_size) : c.head_dim;
      for (uint32_t i = 0; i < n; ++i) squares += std::pow(row[full_norm ? i : first + i], 2.0);
      const double scale = 1.0 / std::sqrt(squares / n + 1e-6f);
      std::vector<double> x(c.head_dim);
      for (uint32_t i = 0; i < c.head_dim; ++i) {
        x[i] = c.norm == QkNormKind::None ? row[first + i]
                                          : row[first + i] * scale * weight[full_norm ? first + i : i];
      }
      std::vector<double> y = x;
      for (uint32_t i = 0; i < half; ++i) {
        const uint32_t a = c.interleaved ? 2 * i : i, b = c.interleaved ? 2 * i + 1 : i + half;
        const float2 turn = rotary[size_t{t} * half + i];
        y[a] = x[a] * turn.x - x[b] * turn.y;
        y[b] = x[b] * turn.x + x[a] * turn.y;
      }
      const uint32_t position = batch.positions[t], block = batch.block_of(t, position);
      const double steps = std::floor((position + 1.0) / 10.0);
      for (double& v : y) v *= is_k ? 1.0 : 1.0 + static_cast<double>(c.temperature) * std::log1p(steps);
      double size = 0;
      for (const double v : x) size = std::fmax(size, std::fabs(v));
      for (uint32_t i = 0; i < (is_k ? pool.padded : c.head_dim); ++i) {
        const size_t at = is_k ? stored.index(block, h - c.heads, position % kKvTokens, i, false) : 0;
        got_all.push_back(is_k ? stored.get(at) : got[size_t{t} * stride + first + i]);
        const bool pad = i >= c.head_dim;
        expected.push_back(pad ? 0.0 : y[i]);
        const double rounding = !is_k || c.kv_dtype == kF32 ? 3e-6 : c.kv_dtype == kF16 ? 1e-3 : 8e-3;
        tolerance.push_back(pad ? 0.0 : rounding * size + (c.kv_dtype == kF16 ? 1e-7 : 1e-30));
        if (is_k) touched[at] = 1;
      }
      if (!is_k) continue;
      const float* values = qkv.data() + size_t{t} * stride + q_size + kv_size + first;
      double value_squares = 0;
      for (uint32_t i = 0; i < c.head_dim; ++i) value_squares += std::pow(values[i], 2.0);
      const double value_scale = c.unit ? 1.0 / std::sqrt(value_squares / c.head_dim + 1e-6f) : 1.0;
      for (uint32_t i = 0; i < pool.padded; ++i) {
        const size_t at = stored.index(block, h - c.heads, position % kKvTokens, i, true);
        const double v = i < c.head_dim ? values[i] * value_scale : 0.0;
        got_all.push_back(stored.get(at));
        expected.push_back(c.unit ? v : round_to(c.kv_dtype, static_cast<float>(v)));
        const double rounding = c.kv_dtype == kF32 ? 3e-6 : c.kv_dtype == kF16 ? 1e-3 : 8e-3;
        tolerance.push_back(c.unit ? rounding * std::fabs(v) + 1e-7 : 0.0);
        touched[at] = 1;
      }
    }
  }
  check_close(name, got_all, expected, tolerance);
  const size_t spilled = stored.spilled(pool, touched);
  check(spilled == 0, name + text(": %zu values outside the tokens' slots were written", spilled));
}

GPU_TEST(rope_kv_write) {
  check_rope({4, 2, 32, 32, kF32, QkNormKind::None, false});
  check_rope({9, 3, 40, 20, kF16, QkNormKind::Head, false});
  check_rope({3, 1, 128, 128, kBF16, QkNormKind::Full, false});
  check_rope({2, 2, 6, 4, kF32, QkNormKind::Head, true});
  check_rope({10, 5, 72, 0, kBF16, QkNormKind::None, false});
  check_rope({16, 16, 16, 16, kF32, QkNormKind::Full, true});
  check_rope({4, 2, 40, 40, kF32, QkNormKind::Head, true, true, 0.3f});
  check_rope({5, 1, 10, 4, kBF16, QkNormKind::Head, false, true});
  check_rope({2, 1, 64, 0, kF16, QkNormKind::None, false, false, 0.1f});
  check_rope({2, 1, 512, 128, kF16, QkNormKind::Head, false, true});
}

struct AttentionCase {
  uint32_t heads, kv_heads, head_dim, kv_dtype;
  float softcap;
  uint32_t window;
  bool sinks;
  uint32_t chunk = 0;
};

/// Buffers and references shared by both attention kernels.
struct AttentionFixture {
  AttentionCase c;
  Batch batch;
  Pool pool;
  std::vector<float> q, sinks;
  Buffer<float> device_q, device_sinks, out;
  Buffer<uint32_t> positions, offsets, table;
  Buffer<uint8_t> device_pool;

  AttentionFixture(const AttentionCase& c_, const Batch& batch_)
      : c(c_),
        batch(batch_),
        pool(c.kv_dtype, c.kv_heads, c.head_dim, batch.blocks),
        q(random_floats(size_t{batch.tokens()} * c.heads * c.head_dim, 2.0f)),
        sinks(random_floats(c.heads)),
        device_q(q),
        device_sinks(sinks),
        out(q.size()),
        positions(batch.positions),
        offsets(batch.offsets),
        table(batch.table),
        device_pool(pool.bytes.size()) {
    for (uint32_t t = 0; t < batch.tokens(); ++t) {
      if (!batch.last_of_sequence(t)) continue;
      for (uint32_t p = 0; p <= batch.positions[t]; ++p) fill(t, p);
    }
    device_pool.set(pool.bytes);
  }
  void fill(uint32_t token, uint32_t position) {
    for (uint32_t h = 0; h < c.kv_heads; ++h) {
      const std::vector<float> kv = random_floats(2 * pool.padded);
      for (uint32_t d = 0; d < pool.padded; ++d) {
        for (const bool value : {false, true}) {
          const float x = d < c.head_dim ? kv[2 * d + value] : 0.0f;
          pool.put(pool.index(batch.block_of(token, position), h, position % kKvTokens, d, value), x);
        }
      }
    }
  }
  AttentionArgs args() {
    return {device_q.data(),
            c.heads * c.head_dim,
            out.data(),
            c.heads * c.head_dim,
            c.heads,
            c.kv_heads,
            c.head_dim,
            pool.padded,
            0.3f,
            c.softcap,
            c.window,
            c.chunk,
            c.sinks ? device_sinks.data() : nullptr,
            positions.data(),
            offsets.data(),
            table.data(),
            device_pool.data(),
            c.kv_dtype};
  }
  std::string name(const char* op) const {
    return text("%s %u/%u heads of %u, %s, softcap %g, window %u, chunk %u, sinks %d, %u tokens", op, c.heads,
                c.kv_heads, c.head_dim, kKvNames[c.kv_dtype], static_cast<double>(c.softcap), c.window,
                c.chunk, c.sinks, batch.tokens());
  }
  /// Expected outputs and, as the scale of tolerances, the weighted sum of |V|.
  void reference(uint32_t t, uint32_t h, std::vector<double>& expected, std::vector<double>& scale) const {
    const uint32_t kv_head = h / (c.heads / c.kv_heads), last = batch.positions[t];
    uint32_t first = c.window > 0 && last + 1 > c.window ? last + 1 - c.window : 0;
    if (c.chunk > 0) first = std::max(first, last / c.chunk * c.chunk);
    std::vector<double> score;
    double top = c.sinks ? sinks[h] : -INFINITY;
    for (uint32_t p = first; p <= last; ++p) {
      double s = 0;
      for (uint32_t d = 0; d < c.head_dim; ++d) {
        s += static_cast<double>(q[(size_t{t} * c.heads + h) * c.head_dim + d]) *
             pool.get(pool.index(batch.block_of(t, p), kv_head, p % kKvTokens, d, false));
      }
      s *= 0.3f;
      if (c.softcap > 0) s = c.softcap * std::tanh(s / c.softcap);
      score.push_back(s);
      top = std::fmax(top, s);
    }
    double total = c.sinks ? std::exp(sinks[h] - top) : 0.0;
    for (double& s : score) total += s = std::exp(s - top);
    for (uint32_t d = 0; d < c.head_dim; ++d) {
      double sum = 0, magnitude = 0;
      for (uint32_t p = first; p <= last; ++p) {
        const double v =
            score[p - first] * pool.get(pool.index(batch.block_of(t, p), kv_head, p % kKvTokens, d, true));
        sum += v;
        magnitude += std::fabs(v);
      }
      expected.push_back(sum / total);
      scale.push_back(magnitude / total);
    }
  }
  void compare(const std::string& what, double tolerance) const {
    std::vector<double> expected, scale;
    for (uint32_t t = 0; t < batch.tokens(); ++t) {
      for (uint32_t h = 0; h < c.heads; ++h) reference(t, h, expected, scale);
    }
    for (double& s : scale) s = tolerance * s + 1e-30;
    check_close(what, out.get(), expected, scale);
  }
};

// float32 dot products of up to 256 terms inside exp: errors of scores become relative errors of weights.
constexpr double kDecodeTolerance = 3e-5;
// The same with operands of 16 bits of mantissa.
constexpr double kPrefillTolerance = 4e-4;

void check_decode(const AttentionCase& c, const Batch& batch, uint32_t splits) {
  AttentionFixture f(c, batch);
  const std::string name = f.name("attention_decode") + text(", %u splits", splits);
  Buffer<float> partial(attention_decode_workspace(batch.tokens(), c.heads, f.pool.padded, splits));
  const auto launch = [&] {
    return attention_decode({f.args(), nullptr, batch.tokens(), splits, partial.data()}, nullptr);
  };
  if (run_in_orders(name, launch, f.out)) f.compare(name, kDecodeTolerance);
}

GPU_TEST(attention_decode) {
  Batch one, several, longer;
  longer.add(300, 1);
  check_decode({2, 1, 64, kF16, 0, 0, false}, longer, 1);  // warps with more than one KV block
  one.add(69, 1);
  several.add(0, 1);
  several.add(31, 2);
  several.add(150, 1);
  check_decode({4, 2, 64, kF32, 0, 0, false}, one, 1);
  check_decode({4, 4, 40, kF16, 0, 0, false}, several, 3);
  check_decode({8, 2, 128, kBF16, 20.0f, 33, false}, several, 2);
  check_decode({7, 1, 96, kF16, 0, 0, true}, one, 4);
  check_decode({20, 2, 16, kF32, 0, 40, true}, several, 8);
  check_decode({3, 1, 256, kF16, 0, 0, false}, one, 2);
  check_decode({4, 2, 10, kF32, 0, 0, false, 24}, several, 2);
  check_decode({2, 2, 64, kF16, 0, 12, true, 31}, several, 3);
  check_decode({5, 1, 512, kBF16, 0, 0, false}, one, 2);
  check_decode({2, 2, 300, kF32, 20.0f, 40, true}, several, 3);
  if (full()) {
    Batch many;
    many.add(700, 1);
    many.add(1030, 1);
    for (const uint32_t kv_dtype : {kF32, kF16, kBF16}) {
      check_decode({16, 2, 128, kv_dtype, 0, 0, false}, many, 5);
      check_decode({12, 6, 200, kv_dtype, 30.0f, 100, true}, many, 3);
      check_decode({8, 1, 512, kv_dtype, 0, 0, false}, many, 4);
    }
  }
}

void check_prefill(const AttentionCase& c, const Batch& batch) {
  AttentionFixture f(c, batch);
  const std::string name = f.name("attention_prefill");
  const uint32_t each = prefill_tile_tokens(c.heads / c.kv_heads, f.pool.padded);
  const std::vector<PrefillTile> tiles = batch.tiles(each);
  const Buffer<PrefillTile> device_tiles(tiles);
  const auto launch = [&] {
    return attention_prefill({f.args(), device_tiles.data(), static_cast<uint32_t>(tiles.size())}, nullptr);
  };
  if (run_in_orders(name, launch, f.out)) f.compare(name, kPrefillTolerance);
}

GPU_TEST(attention_prefill) {
  if (!has_bf16_matrices()) return;
  Batch start, later;
  start.add(0, 40);
  later.add(50, 19);
  later.add(3, 1);
  check_prefill({4, 2, 64, kF32, 0, 0, false}, start);
  check_prefill({4, 4, 40, kF16, 0, 0, false}, later);
  check_prefill({8, 1, 128, kBF16, 20.0f, 33, false}, later);
  check_prefill({5, 1, 96, kF16, 0, 24, true}, start);
  check_prefill({3, 1, 256, kF16, 0, 0, true}, later);
  check_prefill({4, 2, 10, kF32, 0, 0, false, 24}, start);
  check_prefill({2, 1, 128, kBF16, 0, 10, true, 27}, later);
  check_prefill({3, 1, 512, kBF16, 0, 0, false}, later);
  check_prefill({4, 2, 300, kF32, 20.0f, 24, true}, later);
  check_prefill({18, 1, 264, kF16, 0, 0, true, 24}, start);
  if (full()) {
    Batch many;
    many.add(0, 130);
    many.add(200, 70);
    for (const uint32_t kv_dtype : {kF32, kF16, kBF16}) {
      check_prefill({16, 2, 128, kv_dtype, 0, 0, false}, many);
      check_prefill({6, 3, 80, kv_dtype, 30.0f, 100, true}, many);
      check_prefill({4, 2, 200, kv_dtype, 0, 64, false}, many);
      check_prefill({8, 1, 512, kv_dtype, 0, 0, false}, many);
    }
  }
}

}  // namespace
}  // namespace gpu_test
