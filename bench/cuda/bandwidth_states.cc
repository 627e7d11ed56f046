// Kernels of the bandwidth program for layers with a state: one token of one sequence through the shapes of
// Qwen3-Next and LFM2, states rotating; a prompt's chunk for the delta rule.
#include "kernels/cuda/state_kernels.h"
#include "measure.h"

namespace gpu_test {
namespace {

using namespace nearmoe::cuda;

/// One sequence of `tokens` tokens; copy i of the states is read from slot 0 and written to slot 1.
struct OneSequence {
  OneSequence(uint32_t tokens, size_t state_floats_)
      : state_floats(state_floats_),
        sequence(std::vector<StateSequence>{{0, tokens, 0, 1}}),
        sequence_of(std::vector<uint32_t>(tokens, 0)),
        cold(2 * state_floats * sizeof(float)) {
    demand(cudaMemset(cold.at(0), 0, cold.count() * 2 * state_floats * sizeof(float)), "cudaMemset");
  }
  StateStep step(size_t i) {
    return {sequence.data(), 1, sequence_of.data(), {reinterpret_cast<float*>(cold.at(i)), state_floats}};
  }
  size_t state_floats;
  Buffer<StateSequence> sequence;
  Buffer<uint32_t> sequence_of;
  ColdCopies cold;
};

GPU_TEST(causal_conv_bandwidth) {
  const uint32_t channels = size_of(8192, 64), width = 4;
  const Buffer<float> x(random_floats(channels)), kernel(random_floats(size_t{width} * channels));
  Buffer<float> y(channels);
  OneSequence one(1, size_t{width - 1} * channels);
  CausalConvArgs args{};
  args.x = x.data();
  args.x_stride = args.y_stride = args.channels = channels;
  args.kernel = kernel.data();
  args.y = y.data();
  args.tokens = 1;
  args.width = width;
  args.silu = true;
  measure(text("causal_conv, %u channels, width %u", channels, width),
          {sizeof(float) * size_t{channels} * (2 + width + 2 * (width - 1)), 0}, one.cold.count(),
          [&](size_t i) {
            args.step = one.step(i);
            return causal_conv(args, nullptr);
          });
}

GPU_TEST(gated_delta_bandwidth) {
  const uint32_t key_heads = size_of(16, 1), value_heads = size_of(32, 2), dim = 128;
  for (const uint32_t tokens : {1u, size_of(512, 3)}) {
    const uint32_t stride = (2 * key_heads + value_heads) * dim, gate_stride = 2 * value_heads;
    const Buffer<float> rows(random_floats(size_t{tokens} * stride)),
        gates(random_floats(size_t{tokens} * gate_stride)), rate(std::vector<float>(value_heads, -1.0f)),
        bias(random_floats(value_heads));
    Buffer<float> out(size_t{tokens} * value_heads * dim);
    OneSequence one(tokens, size_t{value_heads} * dim * dim);
    GatedDeltaArgs args{};
    args.q = rows.data();
    args.k = args.q + key_heads * dim;
    args.v = args.k + key_heads * dim;
    args.stride = stride;
    args.beta = gates.data();
    args.decay = args.beta + value_heads;
    args.gate_stride = gate_stride;
    args.decay_rate = rate.data();
    args.decay_bias = bias.data();
    args.num_key_heads = key_heads;
    args.num_value_heads = value_heads;
    args.key_dim = args.value_dim = dim;
    args.out = out.data();
    args.out_stride = value_heads * dim;
    const size_t token_bytes = sizeof(float) * (stride + gate_stride + value_heads * dim);
    measure(
        text("gated_delta, %u heads of %u x %u, %u tokens", value_heads, dim, dim, tokens),
        {2 * one.state_floats * sizeof(float) + tokens * token_bytes, 8.0 * value_heads * dim * dim * tokens},
        one.cold.count(), [&](size_t i) {
          args.step = one.step(i);
          return gated_delta(args, nullptr);
        });
  }
}

GPU_TEST(gated_norm_bandwidth) {
  const uint32_t tokens = size_of(512, 4), heads = size_of(32, 2), dim = 128;
  const size_t values = size_t{tokens} * heads * dim;
  const Buffer<float> gate(random_floats(values)), weight(random_floats(dim));
  Buffer<float> x(random_floats(values));
  measure(text("gated_norm, %u tokens, %u heads of %u", tokens, heads, dim), {3 * values * sizeof(float), 0},
          1, [&](size_t) {
            return gated_norm(
                {x.data(), heads * dim, gate.data(), heads * dim, weight.data(), tokens, heads, dim, 1e-6f},
                nullptr);
          });
}

}  // namespace
}  // namespace gpu_test
