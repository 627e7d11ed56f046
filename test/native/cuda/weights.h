// Packed weight matrices and prepared activations for the kernel tests, with their values as the references
// see them.
#pragma once

#include "harness.h"
#include "kernels/cuda/kernels.h"
#include "kernels/ops.h"

namespace gpu_test {

using nearmoe::DType;

/// All weight formats that the GPU reads.
inline constexpr DType kFormats[] = {DType::F32,  DType::F16,  DType::BF16, DType::Q8_0,
                                     DType::Q4_0, DType::Q4_K, DType::Q6_K, DType::MXFP4};

/// A random matrix in the packed layout, on the host and the device.
struct TestMatrix {
  TestMatrix(DType dtype, uint32_t rows, uint32_t cols, float scale = 1.0f, uint32_t col_begin = 0);

  nearmoe::PackedMatrix host() const;
  nearmoe::cuda::WeightView view() const;

  DType dtype;
  uint32_t rows, cols, col_begin;
  std::vector<std::byte> packed;
  std::vector<float> values;  ///< [rows][cols]
  Buffer<uint8_t> device;
};

/// Layout of a packed matrix without data.
nearmoe::cuda::WeightView weight_layout(DType dtype, uint32_t rows, uint32_t cols, uint32_t col_begin = 0);

/// Rows in every form, made on the host by the reference quantiser.
struct TestActivations {
  TestActivations(const std::vector<float>& x, uint32_t rows, uint32_t cols);
  nearmoe::cuda::Activations view() const;

  uint32_t rows, cols, stride;
  std::vector<float> padded;        ///< [rows][stride]
  std::vector<std::byte> prepared;  ///< by kernels/reference, ActFormat::Q8
  Buffer<float> f32;
  Buffer<uint16_t> high, low;
  Buffer<int8_t> q8;
  Buffer<float2> q8_meta;
};

/// Device memory for rows in every form.
struct TestSinks {
  TestSinks(uint32_t rows, uint32_t cols);
  nearmoe::cuda::ActivationSinks view();
  nearmoe::cuda::Activations as_input() const;

  uint32_t rows, stride;
  Buffer<float> f32;
  Buffer<uint16_t> high, low;
  Buffer<int8_t> q8;
  Buffer<float2> q8_meta;
};

/// y = W x in double for one row and token, and the sum of the magnitudes of its terms. For quantised formats
/// x is what the reference quantiser leaves of it.
struct Product {
  double sum, magnitude;
};
Product reference_product(const TestMatrix& w, uint32_t row, const TestActivations& x, uint32_t token);

inline uint32_t round_up(uint32_t n, uint32_t to) { return (n + to - 1) / to * to; }

}  // namespace gpu_test
