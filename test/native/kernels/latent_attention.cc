// latent_store bit for bit, latent_attention within its tolerance of the reference: every cache dtype, sizes
// that fill no vector, many and few query heads; slots that were never written hold NaN. And a token's output
// does not depend on how many tokens and heads the call has.
#include "cases.h"

namespace nearmoe::testing {
namespace {

struct Problem {
  size_t latent_dim, value_dim, q_heads, tokens, first_position;
};
const Problem kProblems[] = {{576, 512, 16, 1, 300}, {576, 512, 5, 9, 120}, {28, 20, 3, 40, 0},
                             {16, 16, 1, 1, 0},      {33, 1, 2, 6, 127},    {320, 256, 9, 3, 31},
                             {1030, 600, 2, 2, 5}};

/// Every position up to the last token stored, the rest of the last block poisoned.
struct Latents {
  std::vector<Buffer> blocks;
  std::vector<const std::byte*> pointers;

  Latents(Random& random, const OpTable& ops, KvDType dtype, const Problem& p) {
    const size_t positions = p.first_position + p.tokens, bytes = latent_block_bytes(dtype, p.latent_dim);
    for (size_t b = 0; b * kKvBlockTokens < positions; ++b) {
      blocks.emplace_back(bytes);
      std::memset(blocks.back().data(), 0xff, bytes);
    }
    std::normal_distribution<float> normal;
    std::vector<float> x(p.latent_dim);
    for (size_t position = 0; position < positions; ++position) {
      for (float& value : x) value = normal(random);
      ops.latent_store(dtype, x.data(), p.latent_dim, position % kKvBlockTokens,
                       blocks[position / kKvBlockTokens].data());
    }
    for (const Buffer& block : blocks) pointers.push_back(block.data());
  }
};

LatentAttentionArgs arguments(const Problem& p, KvDType dtype, const Latents& latents, const float* q,
                              float* out) {
  LatentAttentionArgs args;
  args.q = q;
  args.q_stride = p.q_heads * p.latent_dim + 5;
  args.q_heads = static_cast<uint32_t>(p.q_heads);
  args.tokens = static_cast<uint32_t>(p.tokens);
  args.first_position = static_cast<uint32_t>(p.first_position);
  args.latent_dim = static_cast<uint32_t>(p.latent_dim);
  args.value_dim = static_cast<uint32_t>(p.value_dim);
  args.blocks = latents.pointers.data();
  args.kv_dtype = dtype;
  args.scale = 1.0f / std::sqrt(static_cast<float>(p.latent_dim));
  args.out = out;
  args.out_stride = p.q_heads * p.value_dim + 3;
  return args;
}

std::string run_attention(const OpTable& ops, KvDType dtype) {
  Random random(23);
  for (const Problem& p : kProblems) {
    const Latents latents(random, kScalarOps, dtype, p);
    std::normal_distribution<float> normal;
    Buffer q(p.tokens * (p.q_heads * p.latent_dim + 5) * 4, 4);
    for (size_t i = 0; i < p.tokens * (p.q_heads * p.latent_dim + 5); ++i)
      q.floats()[i] = 2.0f * normal(random);
    const size_t stride = p.q_heads * p.value_dim + 3, n = p.tokens * stride;
    Buffer expected(n * 4), got(n * 4, 4), single(n * 4);
    kScalarOps.latent_attention(arguments(p, dtype, latents, q.floats(), expected.floats()));
    LatentAttentionArgs args = arguments(p, dtype, latents, q.floats(), got.floats());
    ops.latent_attention(args);
    args.tokens = args.q_heads = 1;
    for (size_t t = 0; t < p.tokens; ++t) {
      for (size_t h = 0; h < p.q_heads; ++h) {
        args.q = q.floats() + t * args.q_stride + h * p.latent_dim;
        args.out = single.floats() + t * stride + h * p.value_dim;
        args.first_position = static_cast<uint32_t>(p.first_position + t);
        ops.latent_attention(args);
      }
    }
    for (size_t t = 0; t < p.tokens; ++t) {
      const float *row = got.floats() + t * stride, *reference = expected.floats() + t * stride;
      std::string wrong = compare_close(reference, row, stride - 3, kAttentionTolerance, "latent_attention");
      if (wrong.empty()) wrong = compare_exact(row, single.floats() + t * stride, stride - 3, "row alone");
      if (wrong.empty() && std::memcmp(row + stride - 3, reference + stride - 3, 12) != 0)
        wrong = "wrote past a token";
      if (!wrong.empty()) return wrong + format(" (latent_dim %zu, token %zu)", p.latent_dim, t);
    }
  }
  return {};
}

std::string run_store(const OpTable& ops, KvDType dtype) {
  for (const Problem& p : kProblems) {
    Random one(31), two(31);
    const Latents expected(one, kScalarOps, dtype, p), got(two, ops, dtype, p);
    for (size_t b = 0; b < expected.blocks.size(); ++b) {
      if (std::memcmp(expected.blocks[b].data(), got.blocks[b].data(),
                      latent_block_bytes(dtype, p.latent_dim)) != 0)
        return format("block %zu differs (latent_dim %zu)", b, p.latent_dim);
    }
  }
  return {};
}

}  // namespace

void add_latent_attention_cases(Cases& cases) {
  const char* names[] = {"f32", "f16", "bf16", "q8_0"};
  for (const OpTable* ops : tables()) {
    for (int d = 0; d < 4; ++d) {
      const auto dtype = static_cast<KvDType>(d);
      if (ops != &kScalarOps) {
        cases.push_back({format("%s latent_store %s equals the reference", ops->isa, names[d]),
                         [ops, dtype] { return run_store(*ops, dtype); }});
      }
      cases.push_back(
          {format("%s latent_attention %s is within tolerance, alone or in a batch", ops->isa, names[d]),
           [ops, dtype] { return run_attention(*ops, dtype); }});
    }
  }
}

}  // namespace nearmoe::testing
