// causal_conv: 16 channels at a time; the sums have the reference's bits, SiLU is within its tolerance.

#include "vec.h"

namespace nearmoe {
namespace {

/// Row `index` of the state and then x, counted from the first token; null for zeros.
static const float* conv_row(const CausalConvArgs& args, int64_t index) {
  if (index >= 0) return args.x + static_cast<size_t>(index) * args.x_stride;
  if (args.state_in == nullptr) return nullptr;
  return args.state_in + static_cast<size_t>(index + args.width - 1) * args.state_stride;
}

static void keep_rows(const CausalConvArgs& args) {
  const int64_t before = int64_t{args.width} - 1;
  for (int64_t j = 0; j < before; ++j) {
    const float* row = conv_row(args, int64_t{args.tokens} - before + j);
    float* kept = args.state_out + static_cast<size_t>(j) * args.state_stride;
    if (row != nullptr) {
      std::memcpy(kept, row, args.channels * sizeof(float));
    } else {
      std::memset(kept, 0, args.channels * sizeof(float));
    }
  }
}

static void causal_conv(const CausalConvArgs& args) {
  keep_rows(args);
  const int64_t before = int64_t{args.width} - 1;
  // The last token first: y may lie where x does.
  for (int64_t t = int64_t{args.tokens} - 1; t >= 0; --t) {
    const float* rows[kMaxConvWidth];
    for (uint32_t j = 0; j < args.width; ++j) rows[j] = conv_row(args, t + j - before);
    float* y = args.y + static_cast<size_t>(t) * args.y_stride;
    for (size_t c = 0; c < args.channels; c += 16) {
      const size_t n = args.channels - c;
      VF sum = f_zero();
      for (uint32_t j = 0; j < args.width; ++j) {
        if (rows[j] == nullptr) continue;
        const VF weight = f_load_up_to(args.kernel + j * args.kernel_stride + c, n);
        sum = f_fma(weight, f_load_up_to(rows[j] + c, n), sum);
      }
      f_store_up_to(y + c, args.silu ? times_sigmoid(sum, sum) : sum, n);
    }
  }
}

}  // namespace
}  // namespace nearmoe
