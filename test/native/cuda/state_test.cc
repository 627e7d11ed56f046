// causal_conv against its reference, gated_delta and gated_norm against plain loops in double.
#include <cmath>

#include "harness.h"
#include "kernels/cuda/state_kernels.h"
#include "kernels/reference/reference.h"

namespace gpu_test {
namespace {

using namespace nearmoe::cuda;

/// Sequences of a step over a pool of 6 slots whose values are not to be changed but where a sequence writes.
struct States {
  std::vector<StateSequence> sequences;
  std::vector<uint32_t> sequence_of;
  size_t slot_floats;
  std::vector<float> pool;
  Buffer<StateSequence> device_sequences;
  Buffer<uint32_t> device_sequence_of;
  Buffer<float> device_pool;

  static constexpr uint32_t kSlots = 6;

  /// Counts of new sequences, ones that go on, and two that go on from one state.
  explicit States(size_t slot_floats_, uint32_t longest)
      : sequences{{0, 1, 4, 2}, {1, longest, -1, 0}, {1 + longest, 3, 4, 5}, {4 + longest, 2, 3, 1}},
        slot_floats(slot_floats_),
        pool(random_floats(kSlots * slot_floats_)),
        device_sequences(sequences),
        device_sequence_of(size_t{tokens()}),
        device_pool(pool) {
    for (uint32_t s = 0; s < sequences.size(); ++s)
      sequence_of.insert(sequence_of.end(), sequences[s].count, s);
    device_sequence_of.set(sequence_of);
  }
  uint32_t tokens() const { return sequences.back().first_token + sequences.back().count; }
  /// The layer's states begin `offset` values into a slot.
  StateStep step(size_t offset) {
    return {device_sequences.data(),
            static_cast<uint32_t>(sequences.size()),
            device_sequence_of.data(),
            {device_pool.data() + offset, slot_floats}};
  }
  const float* source(const StateSequence& s, size_t offset) const {
    return s.source < 0 ? nullptr : pool.data() + static_cast<size_t>(s.source) * slot_floats + offset;
  }
};

struct ConvCase {
  uint32_t channels, width;
  bool silu, gated;
  uint32_t longest;
};

void check_conv(const ConvCase& c) {
  const std::string name = text("causal_conv %u channels, width %u, silu %d, gated %d, %u tokens", c.channels,
                                c.width, c.silu, c.gated, c.longest);
  const uint32_t kept = c.width - 1, offset = 5, stride = 3 * c.channels + 7;
  States states(offset + size_t{kept} * c.channels + 3, c.longest);
  const uint32_t tokens = states.tokens();
  const std::vector<float> rows = random_floats(size_t{tokens} * stride, 1.0f, true);
  const std::vector<float> kernel = random_floats(size_t{c.width} * c.channels);
  const Buffer<float> device_rows(rows), device_kernel(kernel);
  const uint32_t y_stride = c.channels + 2;
  Buffer<float> y(size_t{tokens} * y_stride);
  CausalConvArgs args{};
  args.x = device_rows.data();
  args.gate = c.gated ? args.x + c.channels : nullptr;
  args.output_gate = c.gated ? args.x + 2 * c.channels : nullptr;
  args.x_stride = stride;
  args.kernel = device_kernel.data();
  args.y = y.data();
  args.y_stride = y_stride;
  args.tokens = tokens;
  args.channels = c.channels;
  args.width = c.width;
  args.silu = c.silu;
  args.step = states.step(offset);
  const std::vector<float> unwritten(y.size(), -7.0f);
  const auto prepare = [&] {
    y.set(unwritten);
    states.device_pool.set(states.pool);
  };
  const auto collect = [&] {
    std::vector<std::byte> bytes;
    append_bytes(bytes, y);
    append_bytes(bytes, states.device_pool);
    return bytes;
  };
  if (!run_in_orders(
          name, prepare, [&] { return causal_conv(args, nullptr); }, collect))
    return;
  std::vector<float> inputs(size_t{tokens} * c.channels), convolved(inputs.size()), pool = states.pool;
  for (uint32_t t = 0; t < tokens; ++t) {
    for (uint32_t i = 0; i < c.channels; ++i) {
      const float* row = rows.data() + size_t{t} * stride + i;
      inputs[size_t{t} * c.channels + i] = c.gated ? row[c.channels] * row[0] : row[0];
    }
  }
  for (const StateSequence& s : states.sequences) {
    nearmoe::CausalConvArgs reference;
    reference.x = inputs.data() + size_t{s.first_token} * c.channels;
    reference.y = convolved.data() + size_t{s.first_token} * c.channels;
    reference.x_stride = reference.y_stride = reference.kernel_stride = reference.state_stride = c.channels;
    reference.tokens = s.count;
    reference.channels = c.channels;
    reference.width = c.width;
    reference.kernel = kernel.data();
    reference.state_in = states.source(s, offset);
    reference.state_out = pool.data() + size_t{s.target} * states.slot_floats + offset;
    reference.silu = c.silu;
    nearmoe::reference::causal_conv(reference);
  }
  std::vector<double> expected(unwritten.begin(), unwritten.end()), tolerance(unwritten.size(), 0.0);
  for (uint32_t t = 0; t < tokens; ++t) {
    for (uint32_t i = 0; i < c.channels; ++i) {
      const double sum = convolved[size_t{t} * c.channels + i];
      const double gate = c.gated ? rows[size_t{t} * stride + 2 * c.channels + i] : 1.0f;
      expected[size_t{t} * y_stride + i] = gate * sum;
      tolerance[size_t{t} * y_stride + i] = 1e-6 * std::fabs(gate * sum) + 1e-37;
    }
  }
  check_close(name, y.get(), expected, tolerance);
  check_same(name + ", states", states.device_pool.get(), pool);
}

GPU_TEST(causal_conv) {
  check_conv({1, 2, false, false, 1});
  check_conv({40, 3, false, true, 9});
  check_conv({300, 4, true, false, 2});
  check_conv({33, 16, true, true, 20});
  check_conv({7, 1, false, true, 4});
  if (full()) check_conv({2048, 4, true, false, 70});
}

struct DeltaCase {
  uint32_t key_heads, value_heads, key_dim, value_dim;
  bool tiled;
  uint32_t longest;
};

/// One token's q, k, v and gates of one value head, made ready in double.
struct ReadyToken {
  std::vector<double> q, k;
  const float* v;
  double decay, beta;
};

struct DeltaFixture {
  DeltaCase c;
  uint32_t keys, stride, gate_stride, out_stride, offset = 4;
  size_t matrix;
  States states;
  std::vector<float> rows, gates, rate, bias;
  Buffer<float> device_rows, device_gates, device_rate, device_bias, out;

  explicit DeltaFixture(const DeltaCase& c_)
      : c(c_),
        keys(c.key_heads * c.key_dim),
        stride(2 * keys + c.value_heads * c.value_dim + 3),
        gate_stride(2 * c.value_heads + 1),
        out_stride(c.value_heads * c.value_dim + 5),
        matrix(size_t{c.key_dim} * c.value_dim),
        states(offset + c.value_heads * matrix + 2, c.longest),
        rows(random_floats(size_t{states.tokens()} * stride, 1.0f, true)),
        gates(random_floats(size_t{states.tokens()} * gate_stride, 2.0f)),
        rate(random_floats(c.value_heads)),
        bias(random_floats(c.value_heads)),
        device_rows(rows),
        device_gates(gates),
        device_rate(rate.size()),
        device_bias(bias),
        out(size_t{states.tokens()} * out_stride) {
    for (float& r : rate) r = -std::exp(r);
    device_rate.set(rate);
  }
  GatedDeltaArgs args() {
    const float* q = device_rows.data();
    const float* beta = device_gates.data();
    return {q,
            q + keys,
            q + 2 * keys,
            stride,
            beta,
            beta + c.value_heads,
            gate_stride,
            device_rate.data(),
            device_bias.data(),
            c.key_heads,
            c.value_heads,
            c.key_dim,
            c.value_dim,
            c.tiled,
            out.data(),
            out_stride,
            states.step(offset)};
  }
  ReadyToken ready(uint32_t token, uint32_t head) const {
    const uint32_t key_head = c.tiled ? head % c.key_heads : head / (c.value_heads / c.key_heads);
    const float* q = rows.data() + size_t{token} * stride + key_head * c.key_dim;
    const float* gate = gates.data() + size_t{token} * gate_stride + head;
    ReadyToken out{{q, q + c.key_dim},
                   {q + keys, q + keys + c.key_dim},
                   rows.data() + size_t{token} * stride + 2 * keys + head * c.value_dim,
                   0,
                   1.0 / (1.0 + std::exp(-static_cast<double>(gate[0])))};
    const double d = static_cast<double>(gate[c.value_heads]) + bias[head];
    out.decay = std::exp(rate[head] * std::log1p(std::exp(d)));
    const auto scale = [](std::vector<double>& x, double length) {
      double squares = 0;
      for (const double v : x) squares += v * v;
      for (double& v : x) v *= length / std::sqrt(squares + 1e-6f);
    };
    scale(out.q, 1.0 / std::sqrt(c.key_dim));
    scale(out.k, 1.0);
    return out;
  }
  /// One head of one sequence; the state after it and the outputs. Returns the largest magnitude of any
  /// value.
  double run(const StateSequence& s, uint32_t head, std::vector<double>& state,
             std::vector<double>& outputs) const {
    double largest = 0;
    for (const double v : state) largest = std::fmax(largest, std::fabs(v));
    for (uint32_t i = 0; i < s.count; ++i) {
      const ReadyToken token = ready(s.first_token + i, head);
      for (uint32_t col = 0; col < c.value_dim; ++col) {
        double by_key = 0, sum = 0;
        for (uint32_t key = 0; key < c.key_dim; ++key) {
          double& v = state[size_t{key} * c.value_dim + col];
          v *= token.decay;
          by_key += v * token.k[key];
        }
        const double delta = token.beta * (token.v[col] - by_key);
        for (uint32_t key = 0; key < c.key_dim; ++key) {
          double& v = state[size_t{key} * c.value_dim + col];
          v += token.k[key] * delta;
          sum += v * token.q[key];
        }
        outputs.push_back(sum);
        largest = std::fmax(largest, std::fabs(static_cast<double>(token.v[col])));
      }
    }
    return largest;
  }
};

// float32 sums of up to 256 terms, carried on from token to token by a rule that forgets: relative to the
// largest value that went in.
constexpr double kDeltaTolerance = 4e-6;

void check_delta(const DeltaCase& c) {
  const std::string name = text("gated_delta %u key and %u value heads, %u x %u, tiled %d, %u tokens",
                                c.key_heads, c.value_heads, c.key_dim, c.value_dim, c.tiled, c.longest);
  DeltaFixture f(c);
  const std::vector<float> unwritten(f.out.size(), -7.0f);
  const auto prepare = [&] {
    f.out.set(unwritten);
    f.states.device_pool.set(f.states.pool);
  };
  const auto collect = [&] {
    std::vector<std::byte> bytes;
    append_bytes(bytes, f.out);
    append_bytes(bytes, f.states.device_pool);
    return bytes;
  };
  if (!run_in_orders(
          name, prepare, [&] { return gated_delta(f.args(), nullptr); }, collect))
    return;
  std::vector<double> expected(unwritten.begin(), unwritten.end()), tolerance(unwritten.size(), 0.0);
  std::vector<double> pool(f.states.pool.begin(), f.states.pool.end()), pool_tolerance(pool.size(), 0.0);
  for (const StateSequence& s : f.states.sequences) {
    for (uint32_t head = 0; head < c.value_heads; ++head) {
      const float* source = f.states.source(s, f.offset + head * f.matrix);
      std::vector<double> state(f.matrix), outputs;
      if (source) state.assign(source, source + f.matrix);
      const double allowed = kDeltaTolerance * f.run(s, head, state, outputs);
      const size_t target = size_t{s.target} * f.states.slot_floats + f.offset + head * f.matrix;
      std::copy(state.begin(), state.end(), pool.begin() + static_cast<ptrdiff_t>(target));
      std::fill_n(pool_tolerance.begin() + static_cast<ptrdiff_t>(target), f.matrix, allowed);
      for (size_t i = 0; i < outputs.size(); ++i) {
        const size_t at =
            (s.first_token + i / c.value_dim) * f.out_stride + head * c.value_dim + i % c.value_dim;
        expected[at] = outputs[i];
        tolerance[at] = allowed;
      }
    }
  }
  check_close(name, f.out.get(), expected, tolerance);
  check_close(name + ", states", f.states.device_pool.get(), pool, pool_tolerance);
}

GPU_TEST(gated_delta) {
  check_delta({1, 1, 1, 1, false, 1});
  check_delta({2, 4, 6, 10, false, 5});
  check_delta({3, 6, 12, 20, true, 17});
  check_delta({1, 2, 64, 33, false, 2});
  check_delta({2, 2, 100, 40, true, 3});
  check_delta({1, 1, 130, 32, false, 18});
  if (full()) {
    check_delta({2, 4, 128, 128, false, 70});
    check_delta({1, 2, 256, 96, true, 33});
  }
}

GPU_TEST(gated_norm) {
  struct Case {
    uint32_t tokens, heads, dim;
  };
  for (const Case c : {Case{3, 9, 10}, Case{1, 2, 128}, Case{2, 1, 33}}) {
    const uint32_t stride = c.heads * c.dim + 3, gate_stride = stride + 2;
    const std::vector<float> x = random_floats(size_t{c.tokens} * stride, 2.0f, true),
                             gate = random_floats(size_t{c.tokens} * gate_stride, 3.0f),
                             weight = random_floats(c.dim);
    const Buffer<float> device_gate(gate), device_weight(weight);
    Buffer<float> out(x);
    const std::string name = text("gated_norm %u tokens, %u heads of %u", c.tokens, c.heads, c.dim);
    const auto launch = [&] {
      return gated_norm({out.data(), stride, device_gate.data(), gate_stride, device_weight.data(), c.tokens,
                         c.heads, c.dim, 1e-6f},
                        nullptr);
    };
    const auto collect = [&] {
      std::vector<std::byte> bytes;
      append_bytes(bytes, out);
      return bytes;
    };
    if (!run_in_orders(
            name, [&] { out.set(x); }, launch, collect))
      continue;
    std::vector<double> expected(x.begin(), x.end()), tolerance(x.size(), 0.0);
    for (uint32_t pair = 0; pair < c.tokens * c.heads; ++pair) {
      const uint32_t token = pair / c.heads, first = pair % c.heads * c.dim;
      double squares = 0;
      for (uint32_t i = 0; i < c.dim; ++i) squares += std::pow(x[size_t{token} * stride + first + i], 2.0);
      for (uint32_t i = 0; i < c.dim; ++i) {
        double& y = expected[size_t{token} * stride + first + i];
        const double g = gate[size_t{token} * gate_stride + first + i];
        y *= weight[i] / std::sqrt(squares / c.dim + 1e-6f) * g / (1.0 + std::exp(-g));
        tolerance[size_t{token} * stride + first + i] = 3e-6 * std::fabs(y) + 1e-37;
      }
    }
    check_close(name, out.get(), expected, tolerance);
  }
}

}  // namespace
}  // namespace gpu_test
