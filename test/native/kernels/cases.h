// What the kernel test cases share: the registry, random data with the awkward values in it, weights of any
// format. A case is named "<isa> <op> ...", returns an empty string or what went wrong, and runs once for
// each ISA this machine can run. Tolerances are in kernels/tolerance.h, nowhere else.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernels/activations.h"
#include "kernels/ops.h"
#include "kernels/quant_format.h"
#include "kernels/tables.h"
#include "kernels/tolerance.h"

namespace nearmoe::testing {

struct Case {
  std::string name;
  std::function<std::string()> run;
};
using Cases = std::vector<Case>;

void add_matmul_cases(Cases& cases);
void add_packing_cases(Cases& cases);
void add_vector_cases(Cases& cases);
void add_attention_cases(Cases& cases);
void add_latent_attention_cases(Cases& cases);
void add_recurrent_cases(Cases& cases);
void add_format_cases(Cases& cases, const std::string& fixtures);
void add_dispatch_cases(Cases& cases);

inline std::vector<const OpTable*> tables() {
  const OpTable* found[8];
  return {found, found + runnable_ops(found, 8)};
}

/// printf into a string.
template <class... Args>
std::string format(const char* pattern, Args... args) {
  char text[512];
  std::snprintf(text, sizeof text, pattern, args...);
  return text;
}

/// Memory at a 64-byte boundary plus `offset`, filled with a pattern that shows bytes nobody wrote.
class Buffer {
 public:
  explicit Buffer(size_t bytes, size_t offset = 0) : storage_(bytes + 128 + offset, std::byte{0xa5}) {
    const auto address = reinterpret_cast<uintptr_t>(storage_.data());
    data_ = storage_.data() + ((64 - address % 64) % 64) + offset;
  }
  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  float* floats() { return reinterpret_cast<float*>(data_); }
  const float* floats() const { return reinterpret_cast<const float*>(data_); }

 private:
  std::vector<std::byte> storage_;
  std::byte* data_;
};

using Random = std::mt19937;

/// Normal values with outliers, zeros, whole zero runs, denormals and negative zeros.
inline void fill_floats(Random& random, float* x, size_t n) {
  std::normal_distribution<float> normal;
  for (size_t i = 0; i < n; ++i) {
    const uint32_t kind = random() % 64;
    const float v = normal(random);
    x[i] = kind == 0 ? v * 300.0f : kind == 1 ? 0.0f : kind == 2 ? -0.0f : kind == 3 ? v * 1e-40f : v;
  }
  if (n >= 96 && random() % 2 == 0) std::fill(x + 32, x + 64, 0.0f);
  if (n >= 128 && random() % 4 == 0) {
    for (size_t i = 64; i < 96; ++i) x[i] *= 1e-38f;
  }
}

inline std::vector<float> random_floats(Random& random, size_t n) {
  std::vector<float> x(n);
  fill_floats(random, x.data(), n);
  return x;
}

/// Rows of a format in file layout: random bits, with scales and float values replaced by finite ones.
inline std::vector<std::byte> random_weights(Random& random, DType dtype, size_t rows, size_t cols) {
  std::vector<std::byte> out(source_bytes(dtype, rows, cols));
  const QuantFormat* quantised = quant_format(dtype);
  if (!quantised) {
    const std::vector<float> values = random_floats(random, rows * cols);
    quantize(dtype, values.data(), rows, cols, out.data());
    return out;
  }
  for (std::byte& b : out) b = static_cast<std::byte>(random() & 0xff);
  const size_t block = traits(dtype).block_bytes;
  for (size_t at = 0; at < out.size(); at += block) {
    auto* bytes = reinterpret_cast<uint8_t*>(out.data()) + at;
    if (dtype == DType::MXFP4) {
      bytes[0] = static_cast<uint8_t>(random() % 16 == 0 ? random() % 3 : 110 + random() % 20);
      continue;
    }
    for (size_t p = 0; p < (quantised->has_min ? 2u : 1u); ++p) {
      // Any binary16 below 16, denormals and zeros of both signs among them.
      const auto half = static_cast<uint16_t>((random() & 0x8000) | (random() % 0x4c00));
      std::memcpy(bytes + quantised->pieces[p].offset, &half, 2);
    }
  }
  return out;
}

inline bool same_bits(const float* a, const float* b, size_t n) {
  return std::memcmp(a, b, n * sizeof(float)) == 0;
}

/// The first difference of two arrays that should be equal, bit for bit but for the sign of zero and NaN
/// payloads.
inline std::string compare_exact(const float* expected, const float* got, size_t n, const char* what) {
  for (size_t i = 0; i < n; ++i) {
    if (expected[i] == got[i] || (std::isnan(expected[i]) && std::isnan(got[i]))) continue;
    return format("%s: element %zu is %.9g, expected %.9g", what, i, static_cast<double>(got[i]),
                  static_cast<double>(expected[i]));
  }
  return {};
}

/// Largest difference within `tolerance` times the largest magnitude expected.
inline std::string compare_close(const float* expected, const float* got, size_t n, float tolerance,
                                 const char* what) {
  float largest = 0.0f;
  for (size_t i = 0; i < n; ++i) largest = std::fmax(largest, std::fabs(expected[i]));
  for (size_t i = 0; i < n; ++i) {
    if (std::fabs(expected[i] - got[i]) <= tolerance * largest) continue;
    return format("%s: element %zu is %.9g, expected %.9g (largest %.9g, tolerance %.2g of it)", what, i,
                  static_cast<double>(got[i]), static_cast<double>(expected[i]), static_cast<double>(largest),
                  static_cast<double>(tolerance));
  }
  return {};
}

}  // namespace nearmoe::testing
