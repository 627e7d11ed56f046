// matmul of every format: each ISA equals the scalar reference bit for bit, over row and token tails, slices
// that cut superblocks, gathered tokens, strided output; and a token's result does not depend on the tokens
// beside it.
#include "cases.h"

namespace nearmoe::testing {
namespace {

struct Shape {
  uint32_t rows, cols, col_begin;  // col_begin != 0 only where the format has superblocks
};

// Long rows cross the panels of the GEMM (8192 columns with few tokens, 1024 with many).
const Shape kBlockShapes[] = {{1, 32, 0},    {16, 64, 0},    {37, 96, 0},  {83, 512, 0},   {17, 1056, 0},
                              {16, 8480, 0}, {130, 256, 0},  {33, 384, 0}, {33, 384, 384}, {20, 32, 224},
                              {18, 480, 32}, {16, 640, 128}, {5, 288, 96}};
const Shape kFloatShapes[] = {{1, 1, 0}, {16, 7, 0}, {37, 33, 0}, {83, 100, 0}, {130, 513, 0}, {64, 1030, 0}};
const uint32_t kTokenCounts[] = {1, 2, 3, 5, 8, 13, 16, 17, 31, 33, 131};

struct Problem {
  Shape shape;
  DType dtype;
  std::vector<std::byte> packed;
  size_t packed_offset;
  PackedMatrix w;
  size_t stride, tokens;
  Buffer activations;
  std::vector<uint32_t> index;

  Problem(Random& random, DType type, Shape s, size_t count)
      : shape(s),
        dtype(type),
        packed(packed_bytes(type, s.rows, s.cols, s.col_begin) + 64),
        stride(activation_stride(traits(type).activation, s.cols) + 64),
        tokens(count),
        activations(stride * (count + 3)) {
    const size_t block = traits(dtype).block_cols;
    const size_t full_cols = (s.col_begin + s.cols + block - 1) / block * block;
    const std::vector<std::byte> source = random_weights(random, dtype, s.rows, full_cols);
    packed_offset = (64 - reinterpret_cast<uintptr_t>(packed.data()) % 64) % 64;
    std::byte* data = packed.data() + packed_offset;
    pack(dtype, source.data(), source_bytes(dtype, 1, full_cols), s.rows, s.col_begin, s.cols, data);
    w = {data, s.rows, s.cols, dtype, s.col_begin};
    // Tokens lie in another order than they are asked for, with gaps between the rows.
    for (size_t t = 0; t < count + 3; ++t) {
      const std::vector<float> x = random_floats(random, s.cols);
      kScalarOps.prepare_activations(traits(dtype).activation, x.data(), s.cols, 1, s.cols,
                                     activations.data() + t * stride);
    }
    for (size_t t = 0; t < count; ++t) index.push_back(static_cast<uint32_t>((t * 7 + 2) % (count + 3)));
  }

  ActView view(size_t first, size_t count) const {
    return {activations.data(), stride, index.data() + first, static_cast<uint32_t>(count)};
  }
};

std::string run_problem(const OpTable& ops, const Problem& problem) {
  const size_t rows = problem.shape.rows, ldy = rows + 5, n = problem.tokens * ldy;
  Buffer expected(n * 4), got(n * 4, 4);
  kScalarOps.matmul(problem.w, problem.view(0, problem.tokens), expected.floats(), ldy);
  ops.matmul(problem.w, problem.view(0, problem.tokens), got.floats(), ldy);
  const std::string what = format("%u x %u from column %u, %zu tokens", problem.shape.rows,
                                  problem.shape.cols, problem.shape.col_begin, problem.tokens);
  for (size_t t = 0; t < problem.tokens; ++t) {
    std::string wrong =
        compare_exact(expected.floats() + t * ldy, got.floats() + t * ldy, rows, what.c_str());
    if (!wrong.empty()) return wrong + format(" (token %zu)", t);
    // What lies between the rows of y stays as it was.
    if (std::memcmp(expected.floats() + t * ldy + rows, got.floats() + t * ldy + rows, 5 * 4) != 0) {
      return what + format(": wrote past the %zu rows of token %zu", rows, t);
    }
  }
  return {};
}

std::string run_format(const OpTable& ops, DType dtype) {
  Random random(static_cast<uint32_t>(dtype) + 1);
  const QuantFormat* quantised = quant_format(dtype);
  const Shape* shapes = quantised ? kBlockShapes : kFloatShapes;
  const size_t num_shapes = quantised ? std::size(kBlockShapes) : std::size(kFloatShapes);
  size_t turn = static_cast<size_t>(dtype);
  for (size_t i = 0; i < num_shapes; ++i) {
    if (shapes[i].col_begin != 0 && quantised->subs == 1) continue;
    // Every shape with one token and with two other counts in turn.
    for (const size_t pick : {size_t{0}, 1 + turn % 10, 1 + (turn + 5) % 10}) {
      const Problem problem(random, dtype, shapes[i], kTokenCounts[pick]);
      std::string wrong = run_problem(ops, problem);
      if (!wrong.empty()) return wrong;
    }
    ++turn;
  }
  return {};
}

/// All token counts give a token the bits it has alone.
std::string run_invariance(const OpTable& ops, DType dtype) {
  Random random(99);
  const Problem problem(random, dtype, {40, 544, 0}, 131);
  const size_t rows = problem.shape.rows;
  Buffer alone(131 * rows * 4);
  for (size_t t = 0; t < 131; ++t) ops.matmul(problem.w, problem.view(t, 1), alone.floats() + t * rows, rows);
  for (const uint32_t count : kTokenCounts) {
    Buffer together(131 * rows * 4);
    for (size_t t = 0; t < 131; t += count) {
      const size_t tokens = 131 - t < count ? 131 - t : count;
      ops.matmul(problem.w, problem.view(t, tokens), together.floats() + t * rows, rows);
    }
    if (!same_bits(alone.floats(), together.floats(), 131 * rows)) {
      return format("tokens in calls of %u differ from tokens alone", count);
    }
  }
  return {};
}

}  // namespace

void add_matmul_cases(Cases& cases) {
  for (const OpTable* ops : tables()) {
    for (size_t d = 0; d < kNumDTypes; ++d) {
      const auto dtype = static_cast<DType>(d);
      if (ops != &kScalarOps) {
        cases.push_back({format("%s matmul %s equals the reference", ops->isa, traits(dtype).name),
                         [ops, dtype] { return run_format(*ops, dtype); }});
      }
      cases.push_back({format("%s matmul %s does not depend on the batch", ops->isa, traits(dtype).name),
                       [ops, dtype] { return run_invariance(*ops, dtype); }});
    }
  }
}

}  // namespace nearmoe::testing
