// causal_conv and gated_delta against the reference: sums and states bit for bit, SiLU within its tolerance,
// sizes that fill no vector; and a sequence's outputs and state do not depend on how its tokens were cut into
// calls.
#include <algorithm>

#include "cases.h"

namespace nearmoe::testing {
namespace {

constexpr size_t kPad = 3;

struct ConvProblem {
  uint32_t channels, width, tokens;
};
const ConvProblem kConvProblems[] = {{1, 1, 1},  {16, 4, 1}, {16, 3, 2},  {50, 4, 9},
                                     {33, 2, 7}, {7, 16, 5}, {1031, 4, 3}};

/// A problem with a state in front, or zeros.
struct Conv {
  ConvProblem p;
  size_t stride;
  Buffer x, kernel, before, y, after;

  Conv(Random& random, const ConvProblem& problem)
      : p(problem),
        stride(p.channels + kPad),
        x(p.tokens * stride * 4, 4),
        kernel(p.width * stride * 4, 8),
        before(p.width * stride * 4, 4),
        y(p.tokens * stride * 4, 4),
        after(p.width * stride * 4, 12) {
    for (size_t i = 0; i < p.tokens * stride; ++i) x.floats()[i] = normal_(random);
    for (size_t i = 0; i < p.width * stride; ++i) kernel.floats()[i] = normal_(random);
    for (size_t i = 0; i < p.width * stride; ++i) before.floats()[i] = normal_(random);
  }
  void run(const OpTable& ops, bool silu, bool with_state, bool in_place, uint32_t step) {
    if (in_place) std::copy_n(x.floats(), p.tokens * stride, y.floats());
    std::vector<float> state(before.floats(), before.floats() + p.width * stride);
    for (uint32_t first = 0; first < p.tokens; first += step) {
      CausalConvArgs args;
      args.x = (in_place ? y : x).floats() + first * stride;
      args.tokens = std::min(step, p.tokens - first);
      args.channels = p.channels;
      args.width = p.width;
      args.kernel = kernel.floats();
      args.state_in = with_state || first > 0 ? state.data() : nullptr;
      args.state_out = after.floats();
      args.y = y.floats() + first * stride;
      args.x_stride = args.kernel_stride = args.state_stride = args.y_stride = stride;
      args.silu = silu;
      ops.causal_conv(args);
      std::copy_n(after.floats(), p.width * stride, state.data());
    }
  }

 private:
  std::normal_distribution<float> normal_;
};

std::string compare_conv(const Conv& expected, const Conv& got, float tolerance) {
  const ConvProblem& p = expected.p;
  for (size_t t = 0; t < p.tokens; ++t) {
    const float *a = expected.y.floats() + t * expected.stride, *b = got.y.floats() + t * got.stride;
    std::string wrong = tolerance > 0 ? compare_close(a, b, p.channels, tolerance, "causal_conv")
                                      : compare_exact(a, b, p.channels, "causal_conv");
    if (!wrong.empty()) return wrong + format(" (width %u, token %zu)", p.width, t);
  }
  for (size_t j = 0; j + 1 < p.width; ++j) {
    const std::string wrong =
        compare_exact(expected.after.floats() + j * expected.stride, got.after.floats() + j * got.stride,
                      p.channels, "state of causal_conv");
    if (!wrong.empty()) return wrong;
  }
  return {};
}

std::string run_conv(const OpTable& ops) {
  for (const ConvProblem& p : kConvProblems) {
    for (const bool with_state : {false, true}) {
      for (const bool silu : {false, true}) {
        Random one(41), two(41), three(41);
        Conv expected(one, p), got(two, p), cut(three, p);
        expected.run(kScalarOps, silu, with_state, false, p.tokens);
        got.run(ops, silu, with_state, false, p.tokens);
        std::string wrong = compare_conv(expected, got, silu ? kActivationTolerance : 0);
        if (!wrong.empty()) return wrong;
        if (got.y.data()[p.channels * 4] != std::byte{0xa5}) return "wrote past a token";
        for (const uint32_t step : {1U, 2U}) {
          cut.run(ops, silu, with_state, true, step);
          wrong = compare_conv(got, cut, 0);
          if (!wrong.empty()) return wrong + format(" (in place, %u tokens a call)", step);
        }
      }
    }
  }
  return {};
}

struct DeltaProblem {
  uint32_t key_dim, value_dim, tokens;
};
const DeltaProblem kDeltaProblems[] = {{128, 128, 9}, {20, 12, 5},  {16, 16, 1}, {33, 50, 7},
                                       {1, 1, 3},     {64, 130, 4}, {12, 79, 2}};

struct Delta {
  DeltaProblem p;
  size_t key_stride, value_stride;
  Buffer q, k, v, gates, before, out, after;

  Delta(Random& random, const DeltaProblem& problem)
      : p(problem),
        key_stride(p.key_dim + kPad),
        value_stride(p.value_dim + kPad),
        q((p.tokens + 1) * key_stride * 4, 4),
        k((p.tokens + 1) * key_stride * 4, 8),
        v(p.tokens * value_stride * 4, 4),
        gates(p.tokens * 2 * 4, 4),
        before(delta_state_floats(p.key_dim, p.value_dim) * 4),
        out(p.tokens * value_stride * 4, 4),
        after(delta_state_floats(p.key_dim, p.value_dim) * 4) {
    std::normal_distribution<float> normal;
    const float scale = 1.0f / std::sqrt(static_cast<float>(p.key_dim));
    for (size_t i = 0; i < p.tokens * key_stride; ++i) q.floats()[i] = scale * normal(random);
    for (size_t i = 0; i < p.tokens * key_stride; ++i) k.floats()[i] = scale * normal(random);
    for (size_t i = 0; i < p.tokens * value_stride; ++i) v.floats()[i] = normal(random);
    std::uniform_real_distribution<float> share(0.01f, 1.0f);
    for (size_t i = 0; i < p.tokens * 2; ++i) gates.floats()[i] = share(random);
    for (size_t i = 0; i < delta_state_floats(p.key_dim, p.value_dim); ++i)
      before.floats()[i] = normal(random);
  }
  void run(const OpTable& ops, bool with_state, uint32_t step) {
    const size_t state_size = delta_state_floats(p.key_dim, p.value_dim);
    std::vector<float> state(before.floats(), before.floats() + state_size);
    for (uint32_t first = 0; first < p.tokens; first += step) {
      GatedDeltaArgs args;
      args.q = q.floats() + first * key_stride;
      args.k = k.floats() + first * key_stride;
      args.key_stride = key_stride;
      args.v = v.floats() + first * value_stride;
      args.value_stride = args.out_stride = value_stride;
      args.decay = gates.floats() + first * 2;
      args.beta = args.decay + 1;
      args.gate_stride = 2;
      args.tokens = std::min(step, p.tokens - first);
      args.key_dim = p.key_dim;
      args.value_dim = p.value_dim;
      args.state_in = with_state || first > 0 ? state.data() : nullptr;
      args.state_out = after.floats();
      args.out = out.floats() + first * value_stride;
      ops.gated_delta(args);
      std::copy_n(after.floats(), state_size, state.data());
    }
  }
  /// Value of the state, wherever it lies; lanes beyond value_dim do not count.
  float state(size_t key, size_t column) const {
    return after.floats()[(column / kDeltaLanes * p.key_dim + key) * kDeltaLanes + column % kDeltaLanes];
  }
};

std::string compare_delta(const Delta& expected, const Delta& got) {
  const DeltaProblem& p = expected.p;
  for (size_t t = 0; t < p.tokens; ++t) {
    const std::string wrong =
        compare_exact(expected.out.floats() + t * expected.value_stride,
                      got.out.floats() + t * got.value_stride, p.value_dim, "gated_delta");
    if (!wrong.empty()) return wrong + format(" (%u x %u, token %zu)", p.key_dim, p.value_dim, t);
  }
  for (size_t key = 0; key < p.key_dim; ++key) {
    for (size_t column = 0; column < p.value_dim; ++column) {
      if (expected.state(key, column) != got.state(key, column))
        return format("state differs at key %zu, column %zu", key, column);
    }
  }
  return {};
}

std::string run_delta(const OpTable& ops) {
  for (const DeltaProblem& p : kDeltaProblems) {
    for (const bool with_state : {false, true}) {
      Random one(43), two(43);
      Delta expected(one, p), got(two, p);
      expected.run(kScalarOps, with_state, p.tokens);
      for (const uint32_t step : {p.tokens, 1U, 2U}) {
        got.run(ops, with_state, step);
        const std::string wrong = compare_delta(expected, got);
        if (!wrong.empty()) return wrong + format(" (%u tokens a call)", step);
        if (got.out.data()[p.value_dim * 4] != std::byte{0xa5}) return "wrote past a token";
      }
    }
  }
  return {};
}

/// The definition by its formula, in double precision: what the order of sums may differ by.
std::string run_delta_definition(const OpTable& ops) {
  Random random(47);
  Delta delta(random, {24, 20, 6});
  delta.run(ops, false, 6);
  std::vector<double> state(24 * 20);
  for (size_t t = 0; t < 6; ++t) {
    const float *k = delta.k.floats() + t * delta.key_stride, *q = delta.q.floats() + t * delta.key_stride;
    const double decay = static_cast<double>(delta.gates.floats()[2 * t]);
    const double beta = static_cast<double>(delta.gates.floats()[2 * t + 1]);
    for (size_t c = 0; c < 20; ++c) {
      double seen = 0, out = 0;
      for (size_t i = 0; i < 24; ++i) seen += (state[i * 20 + c] *= decay) * static_cast<double>(k[i]);
      const double change = beta * (static_cast<double>(delta.v.floats()[t * delta.value_stride + c]) - seen);
      for (size_t i = 0; i < 24; ++i) {
        state[i * 20 + c] += static_cast<double>(k[i]) * change;
        out += state[i * 20 + c] * static_cast<double>(q[i]);
      }
      const double got = static_cast<double>(delta.out.floats()[t * delta.value_stride + c]);
      if (!(std::fabs(out - got) < 1e-5)) return format("out is %.9g, expected %.9g", got, out);
    }
  }
  return {};
}

}  // namespace

void add_recurrent_cases(Cases& cases) {
  for (const OpTable* ops : tables()) {
    cases.push_back({format("%s gated_delta follows its definition", ops->isa),
                     [ops] { return run_delta_definition(*ops); }});
    cases.push_back({format("%s gated_delta equals the reference, however its tokens are cut", ops->isa),
                     [ops] { return run_delta(*ops); }});
    cases.push_back({format("%s causal_conv equals the reference, however its tokens are cut", ops->isa),
                     [ops] { return run_conv(*ops); }});
  }
}

}  // namespace nearmoe::testing
