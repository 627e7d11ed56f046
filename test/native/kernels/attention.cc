// kv_store bit for bit, attention within its tolerance of the reference: every cache dtype, head sizes that
// fill no vector, shared KV heads, windows, soft caps, sinks; slots that were never written hold NaN. And a
// token's output does not depend on how many tokens the call has.
#include "cases.h"

namespace nearmoe::testing {
namespace {

struct Problem {
  size_t head_dim, q_heads, tokens, first_position;
  uint32_t window;
  float softcap;
  bool sinks;
  uint32_t chunk = 0;
};
const Problem kProblems[] = {
    {128, 1, 1, 0, 0, 0, false},       {128, 8, 1, 200, 0, 0, false},   {64, 5, 3, 31, 0, 0, false},
    {128, 4, 17, 120, 0, 0, false},    {16, 2, 40, 0, 0, 0, false},     {80, 3, 7, 127, 40, 0, false},
    {96, 1, 9, 300, 130, 5, false},    {20, 7, 6, 63, 0, 30, true},     {256, 2, 5, 150, 1, 0, true},
    {512, 1, 2, 33, 0, 0, false},      {528, 1, 2, 33, 0, 0, false},    {33, 8, 11, 90, 70, 0, true},
    {64, 2, 40, 100, 0, 0, false, 24}, {48, 3, 70, 0, 20, 0, true, 33}, {128, 1, 1, 383, 0, 0, false, 128},
    {80, 2, 5, 254, 0, 0, false, 256}};

/// A cache with every position up to the last token stored, the rest of the last block poisoned.
struct Cache {
  std::vector<Buffer> blocks;
  std::vector<const std::byte*> pointers;

  Cache(Random& random, const OpTable& ops, KvDType dtype, const Problem& p) {
    const size_t positions = p.first_position + p.tokens;
    for (size_t b = 0; b * kKvBlockTokens < positions; ++b) {
      blocks.emplace_back(kv_block_bytes(dtype, p.head_dim));
      std::memset(blocks.back().data(), 0xff, kv_block_bytes(dtype, p.head_dim));
    }
    std::normal_distribution<float> normal;
    std::vector<float> k(p.head_dim), v(p.head_dim);
    for (size_t position = 0; position < positions; ++position) {
      for (float& x : k) x = normal(random);
      for (float& x : v) x = normal(random);
      ops.kv_store(dtype, k.data(), v.data(), p.head_dim, position % kKvBlockTokens,
                   blocks[position / kKvBlockTokens].data());
    }
    for (const Buffer& block : blocks) pointers.push_back(block.data());
  }
};

AttentionArgs arguments(const Problem& p, KvDType dtype, const Cache& cache, const float* q,
                        const float* sinks, float* out) {
  AttentionArgs args;
  args.q = q;
  args.q_stride = args.out_stride = p.q_heads * p.head_dim + 3;
  args.q_heads = static_cast<uint32_t>(p.q_heads);
  args.tokens = static_cast<uint32_t>(p.tokens);
  args.first_position = static_cast<uint32_t>(p.first_position);
  args.head_dim = static_cast<uint32_t>(p.head_dim);
  args.blocks = cache.pointers.data();
  args.kv_dtype = dtype;
  args.scale = 1.0f / std::sqrt(static_cast<float>(p.head_dim));
  args.softcap = p.softcap;
  args.sliding_window = p.window;
  args.chunk_size = p.chunk;
  args.sinks = p.sinks ? sinks : nullptr;
  args.out = out;
  return args;
}

std::string run_attention(const OpTable& ops, KvDType dtype) {
  Random random(21);
  for (const Problem& p : kProblems) {
    const Cache cache(random, kScalarOps, dtype, p);
    const size_t stride = p.q_heads * p.head_dim + 3, n = p.tokens * stride;
    std::normal_distribution<float> normal;
    Buffer q(n * 4, 4);
    for (size_t i = 0; i < n; ++i) q.floats()[i] = 2.0f * normal(random);
    std::vector<float> sinks(p.q_heads);
    for (float& s : sinks) s = normal(random);
    Buffer expected(n * 4), got(n * 4, 4), single(n * 4);
    kScalarOps.attention(arguments(p, dtype, cache, q.floats(), sinks.data(), expected.floats()));
    AttentionArgs args = arguments(p, dtype, cache, q.floats(), sinks.data(), got.floats());
    ops.attention(args);
    for (size_t t = 0; t < p.tokens; ++t) {
      args.q = q.floats() + t * stride;
      args.out = single.floats() + t * stride;
      args.tokens = 1;
      args.first_position = static_cast<uint32_t>(p.first_position + t);
      ops.attention(args);
    }
    const std::string what = format("head_dim %zu, %zu heads, %zu tokens from %zu, window %u, chunk %u",
                                    p.head_dim, p.q_heads, p.tokens, p.first_position, p.window, p.chunk);
    for (size_t t = 0; t < p.tokens; ++t) {
      const float* row = got.floats() + t * stride;
      const size_t used = stride - 3;
      std::string wrong =
          compare_close(expected.floats() + t * stride, row, used, kAttentionTolerance, what.c_str());
      if (wrong.empty()) wrong = compare_exact(row, single.floats() + t * stride, used, "token alone");
      if (!wrong.empty()) return wrong + format(" (%s, token %zu)", what.c_str(), t);
      if (std::memcmp(row + used, expected.floats() + t * stride + used, 12) != 0)
        return what + ": wrote past a token";
    }
  }
  return {};
}

/// Parts of the keys, put together by their stats, are the whole; a token's part has the same bits in any
/// batch.
std::string run_parts(const OpTable& ops, KvDType dtype) {
  Random random(22);
  for (const Problem& p : kProblems) {
    const Cache cache(random, kScalarOps, dtype, p);
    const size_t stride = p.q_heads * p.head_dim + 3, n = p.tokens * stride, rows = p.tokens * p.q_heads;
    std::normal_distribution<float> normal;
    Buffer q(n * 4, 4);
    for (size_t i = 0; i < n; ++i) q.floats()[i] = 2.0f * normal(random);
    std::vector<float> sinks(p.q_heads);
    for (float& s : sinks) s = normal(random);
    Buffer expected(n * 4), part(n * 4), single(n * 4);
    kScalarOps.attention(arguments(p, dtype, cache, q.floats(), sinks.data(), expected.floats()));
    std::vector<double> sums(rows), outs(rows * p.head_dim), largest(rows, -1e30);
    const auto positions = static_cast<uint32_t>(p.first_position + p.tokens);
    for (uint32_t first = 0; first < positions; first += kAttentionStep) {
      std::vector<float> stats(2 * rows), alone(2 * p.q_heads);
      AttentionArgs args =
          arguments(p, dtype, cache, q.floats(), first == 0 ? sinks.data() : nullptr, part.floats());
      args.first_key = first;
      args.end_key = first + kAttentionStep;
      args.stats = stats.data();
      ops.attention(args);
      for (size_t row = 0; row < rows; ++row) {
        const size_t t = row / p.q_heads, h = row % p.q_heads;
        const float* out = part.floats() + t * stride + h * p.head_dim;
        if (stats[2 * row + 1] == 0) continue;
        const double top = std::max(largest[row], double{stats[2 * row]});
        const double before = std::exp(largest[row] - top), now = std::exp(stats[2 * row] - top);
        sums[row] = sums[row] * before + stats[2 * row + 1] * now;
        for (size_t d = 0; d < p.head_dim; ++d)
          outs[row * p.head_dim + d] = outs[row * p.head_dim + d] * before + out[d] * now;
        largest[row] = top;
      }
      const size_t last = p.tokens - 1;
      args.q = q.floats() + last * stride;
      args.out = single.floats();
      args.tokens = 1;
      args.first_position = positions - 1;
      args.stats = alone.data();
      ops.attention(args);
      const std::string wrong =
          compare_exact(part.floats() + last * stride, single.floats(), stride - 3, "token alone");
      if (!wrong.empty()) return wrong;
      if (std::memcmp(alone.data(), stats.data() + 2 * last * p.q_heads, alone.size() * 4) != 0)
        return "stats of a token alone differ";
    }
    for (size_t t = 0; t < p.tokens; ++t) {
      std::vector<float> whole(p.q_heads * p.head_dim);
      for (size_t i = 0; i < whole.size(); ++i) {
        const size_t at = t * whole.size() + i;
        whole[i] = static_cast<float>(outs[at] / sums[at / p.head_dim]);
      }
      const std::string wrong = compare_close(expected.floats() + t * stride, whole.data(), whole.size(),
                                              kAttentionTolerance, "parts");
      if (!wrong.empty())
        return wrong + format(" (head_dim %zu, %zu heads, %zu tokens from %zu, token %zu)", p.head_dim,
                              p.q_heads, p.tokens, p.first_position, t);
    }
  }
  return {};
}

std::string run_store(const OpTable& ops, KvDType dtype) {
  for (const Problem& p : kProblems) {
    Random one(31), two(31);
    const Cache expected(one, kScalarOps, dtype, p), got(two, ops, dtype, p);
    for (size_t b = 0; b < expected.blocks.size(); ++b) {
      if (std::memcmp(expected.blocks[b].data(), got.blocks[b].data(), kv_block_bytes(dtype, p.head_dim)) !=
          0) {
        return format("block %zu differs (head_dim %zu)", b, p.head_dim);
      }
    }
  }
  return {};
}

}  // namespace

void add_attention_cases(Cases& cases) {
  const char* names[] = {"f32", "f16", "bf16", "q8_0"};
  for (const OpTable* ops : tables()) {
    for (int d = 0; d < 4; ++d) {
      const auto dtype = static_cast<KvDType>(d);
      if (ops != &kScalarOps) {
        cases.push_back({format("%s kv_store %s equals the reference", ops->isa, names[d]),
                         [ops, dtype] { return run_store(*ops, dtype); }});
      }
      cases.push_back({format("%s attention %s is within tolerance, alone or in a batch", ops->isa, names[d]),
                       [ops, dtype] { return run_attention(*ops, dtype); }});
      cases.push_back({format("%s attention %s by parts is the whole", ops->isa, names[d]),
                       [ops, dtype] { return run_parts(*ops, dtype); }});
    }
  }
}

}  // namespace nearmoe::testing
