// embedding, norm, prepare, gemv and gemm against plain loops and the reference ops.
#include <cmath>
#include <memory>

#include "kernels/half.h"
#include "kernels/reference/reference.h"
#include "weights.h"

namespace gpu_test {
namespace {

using namespace nearmoe::cuda;
using nearmoe::traits;

std::string shape_name(const char* op, DType dtype, uint32_t rows, uint32_t cols, uint32_t tokens) {
  return text("%s %s [%u x %u], %u tokens", op, traits(dtype).name, rows, cols, tokens);
}

/// Shapes (rows, cols); quantised formats round the columns up to a block.
struct Shape {
  uint32_t rows, cols;
};
uint32_t fitting_cols(DType dtype, uint32_t cols) { return round_up(cols, traits(dtype).block_cols); }

// Relative to the sum of the terms' magnitudes: float32 sums of up to a few thousand terms in another order.
constexpr double kFloatSum = 2e-6;
// Products of two-part bf16 numbers: about 2^-16 of each term.
constexpr double kSplitSum = 4e-5;

GPU_TEST(embedding) {
  for (const DType dtype : kFormats) {
    for (const Shape shape : {Shape{37, 96}, Shape{16, 33}, Shape{5, 256}}) {
      const uint32_t cols = fitting_cols(dtype, shape.cols), stride = round_up(cols, 32);
      const TestMatrix w(dtype, shape.rows, cols);
      const std::vector<int32_t> ids = {0, static_cast<int32_t>(shape.rows) - 1, 3, 3};
      const Buffer<int32_t> device_ids(ids);
      Buffer<float> out(ids.size() * stride);
      const float multiplier = 12.0f;
      const std::string name = shape_name("embedding", dtype, shape.rows, cols, 4);
      const auto launch = [&] {
        return embedding({dtype, w.view(), device_ids.data(), out.data(), stride, 4, multiplier}, nullptr);
      };
      if (!run_in_orders(name, launch, out)) continue;
      std::vector<float> expected(ids.size() * stride);
      for (size_t t = 0; t < ids.size(); ++t) {
        for (uint32_t c = 0; c < cols; ++c) {
          expected[t * stride + c] = multiplier * w.values[static_cast<size_t>(ids[t]) * cols + c];
        }
      }
      check_same(name, out.get(), expected);
    }
  }
}

/// Checks that all forms of `sinks` are those of the float rows it holds.
void check_forms(const std::string& name, const TestSinks& sinks) {
  const std::vector<float> x = sinks.f32.get();
  const TestActivations expected(x, sinks.rows, sinks.stride);
  check_same(name + ", high", sinks.high.get(), expected.high.get());
  check_same(name + ", low", sinks.low.get(), expected.low.get());
  check_same(name + ", q8", sinks.q8.get(), expected.q8.get());
  const std::vector<float2> meta = sinks.q8_meta.get(), want = expected.q8_meta.get();
  check(std::memcmp(meta.data(), want.data(), meta.size() * sizeof(float2)) == 0, name + ", q8 scales");
}

GPU_TEST(norm) {
  for (const bool layer_norm : {false, true}) {
    for (const Shape shape : {Shape{1, 64}, Shape{3, 33}, Shape{2, 2048}, Shape{2, 1}}) {
      const std::vector<float> x = random_floats(size_t{shape.rows} * shape.cols, 3.0f, true);
      const std::vector<float> weight = random_floats(shape.cols), bias = random_floats(shape.cols);
      const Buffer<float> device_x(x), device_weight(weight), device_bias(bias);
      const std::vector<uint32_t> rows = {shape.rows - 1, 0, shape.rows - 1};
      const Buffer<uint32_t> device_rows(rows);
      TestSinks sinks(static_cast<uint32_t>(rows.size()), shape.cols);
      const std::string name =
          text("norm %s [%u x %u]", layer_norm ? "layer" : "rms", shape.rows, shape.cols);
      const auto launch = [&] {
        return nearmoe::cuda::norm(
            {device_x.data(), shape.cols, shape.cols, device_rows.data(), 3, device_weight.data(),
             layer_norm ? device_bias.data() : nullptr, 1e-5f, layer_norm, sinks.view()},
            nullptr);
      };
      if (!run_in_orders(name, launch, sinks.f32, sinks.high, sinks.low, sinks.q8, sinks.q8_meta)) continue;
      std::vector<double> expected(rows.size() * sinks.stride), tolerance(expected.size(), 1e-30);
      for (size_t t = 0; t < rows.size(); ++t) {
        const float* row = x.data() + size_t{rows[t]} * shape.cols;
        double mean = 0, squares = 0;
        for (uint32_t c = 0; c < shape.cols; ++c) mean += row[c];
        mean = layer_norm ? mean / shape.cols : 0.0;
        for (uint32_t c = 0; c < shape.cols; ++c) squares += (row[c] - mean) * (row[c] - mean);
        const double scale = 1.0 / std::sqrt(squares / shape.cols + 1e-5f);
        for (uint32_t c = 0; c < shape.cols; ++c) {
          const double value = (row[c] - mean) * scale * weight[c];
          expected[t * sinks.stride + c] = value + (layer_norm ? bias[c] : 0.0f);
          // The mean's own rounding is relative to the largest value of the row.
          tolerance[t * sinks.stride + c] =
              2e-6 * (std::fabs(value) + (layer_norm ? 10.0 + std::fabs(bias[c]) : 0.0)) + 1e-30;
        }
      }
      check_close(name, sinks.f32.get(), expected, tolerance);
      check_forms(name, sinks);
    }
  }
}

GPU_TEST(norm_add) {
  const uint32_t tokens = 3, cols = 70, stride = 96;
  const std::vector<float> x = random_floats(tokens * stride, 3.0f), start = random_floats(tokens * stride),
                           weight = random_floats(cols), scale = {0.7f};
  const Buffer<float> device_x(x), device_weight(weight), device_scale(scale);
  for (const bool overwrite : {false, true}) {
    Buffer<float> out(start);
    const std::string name = text("norm_add, overwrite %d", overwrite);
    const auto launch = [&] {
      return norm_add({device_x.data(), stride, cols, tokens, device_weight.data(), 1e-5f, false, out.data(),
                       stride, 0.22f, overwrite ? nullptr : device_scale.data(), overwrite},
                      nullptr);
    };
    const auto collect = [&] {
      std::vector<std::byte> bytes;
      append_bytes(bytes, out);
      return bytes;
    };
    if (!run_in_orders(
            name, [&] { out.set(start); }, launch, collect))
      continue;
    std::vector<double> expected(start.begin(), start.end()), tolerance(start.size(), 0.0);
    for (uint32_t t = 0; t < tokens; ++t) {
      double squares = 0;
      for (uint32_t c = 0; c < cols; ++c) squares += std::pow(x[t * stride + c], 2.0);
      for (uint32_t c = 0; c < cols; ++c) {
        double& y = expected[t * stride + c];
        const double value = 0.22f * x[t * stride + c] / std::sqrt(squares / cols + 1e-5f) * weight[c];
        y = overwrite ? value : (y + value) * static_cast<double>(scale[0]);
        tolerance[t * stride + c] = 2e-6 * (std::fabs(value) + 1.0);
      }
    }
    check_close(name, out.get(), expected, tolerance);
  }
}

GPU_TEST(soft_cap) {
  const uint32_t rows = 2, cols = 300;
  const std::vector<float> x = random_floats(rows * 320, 20.0f, true);
  Buffer<float> out(x);
  const auto collect = [&] {
    std::vector<std::byte> bytes;
    append_bytes(bytes, out);
    return bytes;
  };
  if (!run_in_orders(
          "soft_cap", [&] { out.set(x); },
          [&] {
            return soft_cap({out.data(), 320, rows, cols, 30.0f}, nullptr);
          },
          collect))
    return;
  std::vector<double> expected(x.begin(), x.end()), tolerance(x.size(), 0.0);
  for (uint32_t r = 0; r < rows; ++r) {
    for (uint32_t c = 0; c < cols; ++c) {
      double& y = expected[r * 320 + c];
      y = 30.0 * std::tanh(y / 30.0);
      tolerance[r * 320 + c] = 1e-6 * std::fabs(y) + 1e-37;
    }
  }
  check_close("soft_cap", out.get(), expected, tolerance);
}

GPU_TEST(prepare) {
  for (const Shape shape : {Shape{3, 40}, Shape{1, 2048}, Shape{2, 32}}) {
    std::vector<float> x = random_floats(size_t{shape.rows} * shape.cols, 1.0f, true);
    x[1] = INFINITY;  // must reach the scale, so that the error is seen and not lost
    const Buffer<float> device_x(x);
    TestSinks sinks(shape.rows, shape.cols);
    const std::string name = text("prepare [%u x %u]", shape.rows, shape.cols);
    const auto launch = [&] {
      return prepare({device_x.data(), shape.cols, shape.rows, shape.cols, sinks.view()}, nullptr);
    };
    if (!run_in_orders(name, launch, sinks.f32, sinks.high, sinks.low, sinks.q8, sinks.q8_meta)) continue;
    const TestActivations expected(x, shape.rows, shape.cols);
    check_same(name, sinks.f32.get(), expected.padded);
    check_same(name + ", q8", sinks.q8.get(), expected.q8.get());
    const std::vector<float2> meta = sinks.q8_meta.get(), want = expected.q8_meta.get();
    for (size_t i = 0; i < meta.size(); ++i) {
      const bool nan = std::isnan(want[i].y) && std::isnan(meta[i].y);
      check(meta[i].x == want[i].x && (nan || meta[i].y == want[i].y),
            name + text(", scale of block %zu", i));
    }
  }
}

GPU_TEST(prepare_gated) {
  const uint32_t rows = 3, cols = 40, stride = 48;
  const std::vector<float> x = random_floats(rows * stride, 1.0f, true),
                           gate = random_floats(rows * stride, 3.0f);
  const Buffer<float> device_x(x), device_gate(gate);
  TestSinks sinks(rows, cols);
  const auto launch = [&] {
    return prepare({device_x.data(), stride, rows, cols, sinks.view(), device_gate.data(), stride}, nullptr);
  };
  if (!run_in_orders("prepare, gated", launch, sinks.f32, sinks.high, sinks.low, sinks.q8, sinks.q8_meta))
    return;
  std::vector<double> expected(rows * sinks.stride), tolerance(expected.size());
  for (uint32_t row = 0; row < rows; ++row) {
    for (uint32_t c = 0; c < cols; ++c) {
      const double value =
          x[row * stride + c] / (1.0 + std::exp(-static_cast<double>(gate[row * stride + c])));
      expected[row * sinks.stride + c] = value;
      tolerance[row * sinks.stride + c] = 1e-6 * std::fabs(value) + 1e-37;
    }
  }
  check_close("prepare, gated", sinks.f32.get(), expected, tolerance);
  check_forms("prepare, gated", sinks);
}

using Multiply = cudaError_t (*)(const MatmulArgs&, cudaStream_t);

/// One matrix with every option of the epilogue; `exact`: bit for bit the reference matmul.
void check_matmul(const char* op, Multiply multiply, DType dtype, Shape shape, uint32_t tokens,
                  double tolerance, bool exact, uint32_t col_begin = 0) {
  const uint32_t cols = fitting_cols(dtype, shape.cols);
  const TestMatrix w(dtype, shape.rows, cols, 1.0f, col_begin);
  const TestActivations x(random_floats(size_t{tokens} * cols, 1.0f, true), tokens, cols);
  const std::string name = shape_name(op, dtype, shape.rows, cols, tokens);
  Buffer<float> y(size_t{tokens} * shape.rows);
  MatmulArgs args{dtype, {{w.view(), nullptr, y.data(), shape.rows}}, 1, x.view(), tokens, 0.0f, 1.0f, false,
                  {}};
  if (!run_in_orders(
          name, [&] { return multiply(args, nullptr); }, y))
    return;
  std::vector<double> expected(y.size()), allowed(y.size());
  std::vector<float> reference(y.size());
  for (uint32_t t = 0; t < tokens; ++t) {
    for (uint32_t r = 0; r < shape.rows; ++r) {
      const Product p = reference_product(w, r, x, t);
      expected[size_t{t} * shape.rows + r] = p.sum;
      allowed[size_t{t} * shape.rows + r] = tolerance * p.magnitude + 1e-30;
    }
  }
  check_close(name, y.get(), expected, allowed);
  if (exact) {
    const nearmoe::ActView view{
        x.prepared.data(), nearmoe::activation_stride(nearmoe::ActFormat::Q8, x.stride), nullptr, tokens};
    nearmoe::reference::matmul(w.host(), view, reference.data(), shape.rows);
    check_same(name + ", bit for bit", y.get(), reference);
  }
}

/// Three matrices at once, with bias, clipping, multiplier and accumulation.
void check_epilogue(const char* op, Multiply multiply, DType dtype, uint32_t tokens, double tolerance) {
  const uint32_t cols = fitting_cols(dtype, 64), rows[3] = {33, 16, 5};
  const TestActivations x(random_floats(size_t{tokens} * cols), tokens, cols);
  const TestMatrix w0(dtype, rows[0], cols), w1(dtype, rows[1], cols), w2(dtype, rows[2], cols);
  const TestMatrix* w[3] = {&w0, &w1, &w2};
  const std::vector<float> bias = random_floats(33), start = random_floats(size_t{tokens} * 64);
  const Buffer<float> device_bias(bias);
  Buffer<float> y(start.size());
  MatmulArgs args{dtype, {}, 3, x.view(), tokens, 2.5f, 0.5f, true, {}};
  uint32_t offset = 0;
  for (int i = 0; i < 3; ++i) {
    args.segments[i] = {w[i]->view(), i == 1 ? nullptr : device_bias.data(), y.data() + offset, 64};
    offset += rows[i];
  }
  const std::string name = shape_name(op, dtype, 54, cols, tokens) + ", three segments";
  const auto collect = [&] {
    std::vector<std::byte> bytes;
    append_bytes(bytes, y);
    return bytes;
  };
  if (!run_in_orders(
          name, [&] { y.set(start); }, [&] { return multiply(args, nullptr); }, collect))
    return;
  std::vector<double> expected(start.begin(), start.end()), allowed(start.size(), 1e-6);
  for (uint32_t t = 0; t < tokens; ++t) {
    offset = 0;
    for (int i = 0; i < 3; ++i) {
      for (uint32_t r = 0; r < rows[i]; ++r) {
        const Product p = reference_product(*w[i], r, x, t);
        const double value = p.sum + (i == 1 ? 0.0f : bias[r]);
        const size_t at = size_t{t} * 64 + offset + r;
        expected[at] += 0.5 * std::fmin(std::fmax(value, -2.5), 2.5);
        allowed[at] += tolerance * (p.magnitude + 3.0);
      }
      offset += rows[i];
    }
  }
  check_close(name, y.get(), expected, allowed);
}

/// A matrix for each of several heads in one launch; the rows of a head's part of x are `stride` columns
/// apart.
void check_heads(const char* op, Multiply multiply, DType dtype, uint32_t tokens, double tolerance) {
  const uint32_t heads = 3, rows = 20, cols = fitting_cols(dtype, 40), stride = round_up(cols, 32);
  std::vector<std::unique_ptr<TestMatrix>> w;
  for (uint32_t h = 0; h < heads; ++h) w.push_back(std::make_unique<TestMatrix>(dtype, rows, cols));
  const size_t bytes = w[0]->packed.size();
  std::vector<uint8_t> packed;
  for (const auto& matrix : w) {
    const auto* data = reinterpret_cast<const uint8_t*>(matrix->packed.data());
    packed.insert(packed.end(), data, data + bytes);
  }
  const Buffer<uint8_t> device(packed);
  // Row t * heads + head, as latent_write and prepare leave them.
  const TestActivations x(random_floats(size_t{tokens} * heads * cols), tokens * heads, cols);
  Buffer<float> y(size_t{tokens} * heads * rows);
  WeightView view = w[0]->view();
  view.data = device.data();
  MatmulArgs args{dtype,
                  {{view, nullptr, y.data(), heads * rows}},
                  1,
                  x.view(),
                  tokens,
                  0.0f,
                  1.0f,
                  false,
                  {heads, stride, rows, bytes}};
  args.x.stride = heads * stride;
  const std::string name = shape_name(op, dtype, rows, cols, tokens) + ", three heads";
  if (!run_in_orders(
          name, [&] { return multiply(args, nullptr); }, y))
    return;
  std::vector<double> expected, allowed;
  for (uint32_t pair = 0; pair < tokens * heads; ++pair) {
    for (uint32_t r = 0; r < rows; ++r) {
      const Product p = reference_product(*w[pair % heads], r, x, pair);
      expected.push_back(p.sum);
      allowed.push_back(tolerance * p.magnitude + 1e-30);
    }
  }
  check_close(name, y.get(), expected, allowed);
}

GPU_TEST(gemv) {
  for (const DType dtype : kFormats) {
    check_matmul("gemv", gemv, dtype, {50, 33}, 1, kFloatSum, false);
    check_matmul("gemv", gemv, dtype, {16, 320}, 2, kFloatSum, false);
    check_matmul("gemv", gemv, dtype, {1, 1}, 3, kFloatSum, false);
    check_matmul("gemv", gemv, dtype, {18, 96}, 7, kFloatSum, false);
    if (full()) check_matmul("gemv", gemv, dtype, {257, 2048}, 1, kFloatSum, false);
    check_epilogue("gemv", gemv, dtype, 2, kFloatSum);
    check_heads("gemv", gemv, dtype, 2, kFloatSum);
    // Slices that begin or end inside a superblock.
    if (traits(dtype).block_cols == 256)
      check_matmul("gemv, slice", gemv, dtype, {20, 256}, 1, kFloatSum, false, 96);
  }
}

GPU_TEST(gemm) {
  for (const DType dtype : kFormats) {
    const bool exact = wants_q8(dtype);
    if (!exact && !has_bf16_matrices()) continue;
    const double tolerance = exact ? kFloatSum : kSplitSum;
    check_matmul("gemm", gemm, dtype, {50, 33}, 9, tolerance, exact);
    check_matmul("gemm", gemm, dtype, {130, 224}, 70, tolerance, exact);
    check_matmul("gemm", gemm, dtype, {1, 1}, 1, tolerance, exact);
    check_matmul("gemm", gemm, dtype, {17, 416}, 9, tolerance, exact);  // stages are loaded over
    if (full()) check_matmul("gemm", gemm, dtype, {65, 1024}, 33, tolerance, exact);
    check_epilogue("gemm", gemm, dtype, 12, tolerance);
    check_heads("gemm", gemm, dtype, 11, tolerance);
    if (traits(dtype).block_cols == 256)
      check_matmul("gemm, slice", gemm, dtype, {20, 256}, 9, tolerance, exact, 96);
  }
}

}  // namespace
}  // namespace gpu_test
