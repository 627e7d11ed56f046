// Causal convolution of every channel for itself, SiLU on top where asked for.
#include <cmath>

#include "reference.h"

namespace nearmoe::reference {

namespace {

/// Row `index` of the state and then x, counted from the first token; null for zeros.
const float* row_at(const CausalConvArgs& args, int64_t index) {
  if (index >= 0) return args.x + static_cast<size_t>(index) * args.x_stride;
  if (args.state_in == nullptr) return nullptr;
  return args.state_in + static_cast<size_t>(index + args.width - 1) * args.state_stride;
}

}  // namespace

void causal_conv(const CausalConvArgs& args) {
  const int64_t tokens = args.tokens, before = int64_t{args.width} - 1;
  for (int64_t j = 0; j < before; ++j) {
    const float* row = row_at(args, tokens - before + j);
    float* kept = args.state_out + static_cast<size_t>(j) * args.state_stride;
    for (uint32_t c = 0; c < args.channels; ++c) kept[c] = row != nullptr ? row[c] : 0.0f;
  }
  // The last token first: y may lie where x does.
  for (int64_t t = tokens - 1; t >= 0; --t) {
    float* y = args.y + static_cast<size_t>(t) * args.y_stride;
    for (uint32_t c = 0; c < args.channels; ++c) {
      float sum = 0.0f;
      for (uint32_t j = 0; j < args.width; ++j) {
        const float* row = row_at(args, t + j - before);
        if (row != nullptr) sum = std::fma(args.kernel[j * args.kernel_stride + c], row[c], sum);
      }
      y[c] = args.silu ? sum / (1.0f + std::exp(-sum)) : sum;
    }
  }
}

}  // namespace nearmoe::reference
