// Causal convolution of every channel for itself, with what gates it on its way in and out: the gated short
// convolutions of LFM2, and q, k and v before a delta rule. A thread a token and channel; the last token's
// threads also write the sequence's state.
#include "state_kernels.h"

namespace nearmoe::cuda {
namespace {

constexpr uint32_t kThreads = 256;

/// The inputs of one channel, counted from the sequence's first token; the state's are before 0.
struct Inputs {
  const float *x, *gate, *state;
  size_t x_stride, state_stride;
  int kept;  ///< rows of the state

  __device__ float at(int index) const {
    if (index >= 0) {
      const size_t from = static_cast<size_t>(index) * x_stride;
      return gate ? gate[from] * x[from] : x[from];
    }
    return state ? state[static_cast<size_t>(index + kept) * state_stride] : 0.0f;
  }
};

__global__ void __launch_bounds__(kThreads) causal_conv_kernel(CausalConvArgs args) {
  const uint32_t token = blockIdx.x, channel = blockIdx.y * kThreads + threadIdx.x;
  if (channel >= args.channels) return;
  const StateSequence sequence = args.step.sequences[args.step.sequence_of[token]];
  const StatePool& states = args.step.states;
  const size_t first = static_cast<size_t>(sequence.first_token) * args.x_stride + channel;
  const int kept = static_cast<int>(args.width) - 1;
  const Inputs inputs{args.x + first,
                      args.gate ? args.gate + first : nullptr,
                      sequence.source < 0
                          ? nullptr
                          : states.data + static_cast<size_t>(sequence.source) * states.slot_floats + channel,
                      args.x_stride,
                      args.channels,
                      kept};
  const int at = static_cast<int>(token - sequence.first_token);
  float sum = 0.0f;
  for (int j = 0; j <= kept; ++j) {
    const float weight = args.kernel[static_cast<size_t>(j) * args.channels + channel];
    sum = fmaf(weight, inputs.at(at + j - kept), sum);
  }
  if (args.silu) sum = sum / (1.0f + expf(-sum));
  if (args.output_gate) sum *= args.output_gate[static_cast<size_t>(token) * args.x_stride + channel];
  args.y[static_cast<size_t>(token) * args.y_stride + channel] = sum;
  if (at + 1 < static_cast<int>(sequence.count)) return;
  float* target = states.data + static_cast<size_t>(sequence.target) * states.slot_floats + channel;
  for (int j = 0; j < kept; ++j)
    target[static_cast<size_t>(j) * args.channels] = inputs.at(at + 1 + j - kept);
}

}  // namespace

cudaError_t causal_conv(const CausalConvArgs& args, cudaStream_t stream) {
  if (args.width == 0 || args.width > kMaxConvWidth) return cudaErrorInvalidValue;
  const dim3 grid(args.tokens, (args.channels + kThreads - 1) / kThreads);
  return gpu_launch("causal_conv", causal_conv_kernel, grid, dim3(kThreads), 0, stream, args);
}

}  // namespace nearmoe::cuda
