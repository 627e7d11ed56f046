#include "weights.h"

#include <cmath>

#include "kernels/activations.h"
#include "kernels/half.h"
#include "kernels/quant_format.h"
#include "kernels/reference/reference.h"

namespace gpu_test {
namespace {

/// Random bytes in file layout whose scales are finite; a quantiser would not reach all codes of all formats.
std::vector<std::byte> random_source(DType dtype, uint32_t rows, uint32_t cols, float scale) {
  std::vector<std::byte> source(nearmoe::source_bytes(dtype, rows, cols));
  const nearmoe::QuantFormat* format = nearmoe::quant_format(dtype);
  if (!format) {
    const std::vector<float> values = random_floats(size_t{rows} * cols, scale, true);
    nearmoe::quantize(dtype, values.data(), rows, cols, source.data());
    return source;
  }
  for (std::byte& b : source) b = static_cast<std::byte>(random_below(256));
  const size_t block = nearmoe::traits(dtype).block_bytes;
  for (size_t at = 0; at < source.size(); at += block) {
    if (dtype == DType::MXFP4) {
      source[at] = static_cast<std::byte>(random_below(16) == 0 ? random_below(3) : 120 + random_below(8));
      continue;
    }
    const auto factor = [&](size_t offset) {
      const float value =
          random_below(32) == 0 ? 0.0f : scale * (0.002f + 0.001f * static_cast<float>(random_below(16)));
      const uint16_t bits = nearmoe::f32_to_f16(value);
      std::memcpy(source.data() + at + offset, &bits, sizeof bits);
    };
    factor(format->pieces[0].offset);
    if (format->has_min) factor(format->pieces[1].offset);
  }
  return source;
}

std::vector<float> pad_rows(const std::vector<float>& x, uint32_t rows, uint32_t cols, uint32_t stride) {
  std::vector<float> padded(size_t{rows} * stride);
  for (uint32_t r = 0; r < rows; ++r)
    std::copy_n(x.begin() + size_t{r} * cols, cols, padded.begin() + size_t{r} * stride);
  return padded;
}

}  // namespace

nearmoe::cuda::WeightView weight_layout(DType dtype, uint32_t rows, uint32_t cols, uint32_t col_begin) {
  nearmoe::cuda::WeightView view{};
  view.rows = rows;
  view.cols = cols;
  if (const nearmoe::QuantFormat* format = nearmoe::quant_format(dtype)) {
    const nearmoe::PackedLayout layout = nearmoe::packed_layout(*format, cols, col_begin);
    view.group_bytes = static_cast<uint32_t>(layout.group_bytes);
    view.superblocks = static_cast<uint32_t>(layout.superblocks);
    view.phase = static_cast<uint32_t>(layout.phase);
  } else {
    view.group_bytes = static_cast<uint32_t>(nearmoe::float_group_bytes(dtype, cols));
  }
  return view;
}

TestMatrix::TestMatrix(DType dtype_, uint32_t rows_, uint32_t cols_, float scale, uint32_t col_begin_)
    : dtype(dtype_),
      rows(rows_),
      cols(cols_),
      col_begin(col_begin_),
      packed(nearmoe::packed_bytes(dtype_, rows_, cols_, col_begin_)),
      values(size_t{rows_} * cols_),
      device(packed.size()) {
  const uint32_t source_cols = round_up(col_begin + cols, nearmoe::traits(dtype).block_cols);
  const std::vector<std::byte> source = random_source(dtype, rows, source_cols, scale);
  const size_t row_bytes = nearmoe::source_bytes(dtype, 1, source_cols);
  check(nearmoe::pack(dtype, source.data(), row_bytes, rows, col_begin, cols, packed.data()), "pack");
  for (uint32_t r = 0; r < rows; ++r)
    nearmoe::reference::unpack_row(host(), r, values.data() + size_t{r} * cols);
  std::vector<uint8_t> bytes(packed.size());
  std::memcpy(bytes.data(), packed.data(), packed.size());
  device.set(bytes);
}

nearmoe::PackedMatrix TestMatrix::host() const { return {packed.data(), rows, cols, dtype, col_begin}; }

nearmoe::cuda::WeightView TestMatrix::view() const {
  nearmoe::cuda::WeightView view = weight_layout(dtype, rows, cols, col_begin);
  view.data = device.data();
  return view;
}

TestActivations::TestActivations(const std::vector<float>& x, uint32_t rows_, uint32_t cols_)
    : rows(rows_),
      cols(cols_),
      stride(round_up(cols_, 32)),
      padded(pad_rows(x, rows_, cols_, stride)),
      prepared(rows_ * nearmoe::activation_stride(nearmoe::ActFormat::Q8, stride)),
      f32(padded),
      high(padded.size()),
      low(padded.size()),
      q8(padded.size()),
      q8_meta(padded.size() / 32) {
  nearmoe::reference::prepare_activations(nearmoe::ActFormat::Q8, padded.data(), stride, rows, stride,
                                          prepared.data());
  std::vector<uint16_t> h(padded.size()), l(padded.size());
  for (size_t i = 0; i < padded.size(); ++i) {
    h[i] = nearmoe::f32_to_bf16(padded[i]);
    l[i] = nearmoe::f32_to_bf16(padded[i] - nearmoe::bf16_to_f32(h[i]));
  }
  high.set(h);
  low.set(l);
  std::vector<int8_t> codes(padded.size());
  std::vector<float2> meta(padded.size() / 32);
  const size_t row_bytes = nearmoe::activation_stride(nearmoe::ActFormat::Q8, stride);
  for (uint32_t r = 0; r < rows; ++r) {
    const std::byte* row = prepared.data() + r * row_bytes;
    std::memcpy(codes.data() + size_t{r} * stride, row, stride);
    for (uint32_t b = 0; b < stride / 32; ++b) {
      nearmoe::Q8Meta m;
      std::memcpy(&m, row + nearmoe::q8_value_bytes(stride) + b * sizeof m, sizeof m);
      meta[size_t{r} * (stride / 32) + b] = make_float2(m.scale, m.scaled_sum);
    }
  }
  q8.set(codes);
  q8_meta.set(meta);
}

nearmoe::cuda::Activations TestActivations::view() const {
  return {f32.data(), high.data(), low.data(), q8.data(), q8_meta.data(), stride};
}

TestSinks::TestSinks(uint32_t rows_, uint32_t cols)
    : rows(rows_),
      stride(round_up(cols, 32)),
      f32(size_t{rows_} * stride),
      high(size_t{rows_} * stride),
      low(size_t{rows_} * stride),
      q8(size_t{rows_} * stride),
      q8_meta(size_t{rows_} * stride / 32) {}

nearmoe::cuda::ActivationSinks TestSinks::view() {
  return {f32.data(), high.data(), low.data(), q8.data(), q8_meta.data(), stride};
}

nearmoe::cuda::Activations TestSinks::as_input() const {
  return {f32.data(), high.data(), low.data(), q8.data(), q8_meta.data(), stride};
}

Product reference_product(const TestMatrix& w, uint32_t row, const TestActivations& x, uint32_t token) {
  Product out{0, 0};
  const bool quantised = nearmoe::quant_format(w.dtype) != nullptr;
  const size_t row_bytes = nearmoe::activation_stride(nearmoe::ActFormat::Q8, x.stride);
  const std::byte* prepared = x.prepared.data() + token * row_bytes;
  for (uint32_t c = 0; c < w.cols; ++c) {
    double value = x.padded[size_t{token} * x.stride + c];
    if (quantised) {
      nearmoe::Q8Meta m;
      std::memcpy(&m, prepared + nearmoe::q8_value_bytes(x.stride) + c / 32 * sizeof m, sizeof m);
      value = static_cast<double>(m.scale) * static_cast<int8_t>(prepared[c]);
    }
    const double term = value * w.values[size_t{row} * w.cols + c];
    out.sum += term;
    out.magnitude += std::fabs(term);
  }
  return out;
}

}  // namespace gpu_test
