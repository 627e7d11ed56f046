// What the GPU kernel tests share: registration, checks, device buffers, and running a launch under several
// thread orders. The same tests run on the CPU emulation and, compiled against the real runtime, on a GPU.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/rt/gpu_rt.h"

namespace gpu_test {

/// Registers a test: GPU_TEST(name) { ... }
struct Registration {
  Registration(const char* name, void (*body)());
};
#define GPU_TEST(name)                                                         \
  static void test_##name();                                                   \
  static const gpu_test::Registration registration_##name(#name, test_##name); \
  static void test_##name()

/// Counts a check; prints `what` where it failed.
void check(bool ok, const std::string& what);
/// False in the small set that every CI run makes: tests then leave out their larger shapes.
bool full();
/// False on devices (sm_75) without bf16 matrix instructions, where no caller chooses kernels that need them.
bool has_bf16_matrices();
std::string text(const char* format, ...) __attribute__((format(printf, 1, 2)));

inline std::mt19937& generator() {
  static std::mt19937 instance(1);
  return instance;
}
/// Normal values with, where `extreme`, outliers, zeros, denormals and signed zeros among them.
std::vector<float> random_floats(size_t n, float scale = 1.0f, bool extreme = false);
uint32_t random_below(uint32_t n);

/// Device memory holding n values of T; new memory is poisoned in the emulation.
template <class T>
class Buffer {
 public:
  explicit Buffer(size_t n) : n_(n) {
    check(cudaMalloc(&data_, n * sizeof(T)) == cudaSuccess, text("cudaMalloc of %zu bytes", n * sizeof(T)));
  }
  explicit Buffer(const std::vector<T>& values) : Buffer(values.size()) { set(values); }
  ~Buffer() { (void)cudaFree(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  void set(const std::vector<T>& values) {
    check(cudaMemcpy(data_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice) == cudaSuccess,
          "upload");
  }
  std::vector<T> get() const {
    std::vector<T> values(n_);
    check(cudaMemcpy(values.data(), data_, n_ * sizeof(T), cudaMemcpyDeviceToHost) == cudaSuccess,
          "download");
    return values;
  }
  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return n_; }

 private:
  T* data_ = nullptr;
  size_t n_;
};

/// Runs `launch` in four thread orders (once on a GPU), each time after `prepare`, and checks that the bytes
/// that `collect` gives are the same every time. Leaves the state of the last run. False where a launch
/// failed.
bool run_in_orders(const std::string& name, const std::function<void()>& prepare,
                   const std::function<cudaError_t()>& launch,
                   const std::function<std::vector<std::byte>()>& collect);

template <class T>
void append_bytes(std::vector<std::byte>& bytes, const Buffer<T>& buffer) {
  const std::vector<T> values = buffer.get();
  const size_t at = bytes.size();
  bytes.resize(at + values.size() * sizeof(T));
  std::memcpy(bytes.data() + at, values.data(), values.size() * sizeof(T));
}

/// The common case: outputs start poisoned and are collected in order.
template <class... T>
bool run_in_orders(const std::string& name, const std::function<cudaError_t()>& launch,
                   Buffer<T>&... outputs) {
  const auto poison = [&] {
    (check(cudaMemset(outputs.data(), 0xff, outputs.size() * sizeof(T)) == cudaSuccess, "poison"), ...);
  };
  const auto collect = [&] {
    std::vector<std::byte> bytes;
    (append_bytes(bytes, outputs), ...);
    return bytes;
  };
  return run_in_orders(name, poison, launch, collect);
}

/// Checks |got - expected| <= tolerance[i] for all i; NaN and infinity must agree.
void check_close(const std::string& name, const std::vector<float>& got, const std::vector<double>& expected,
                 const std::vector<double>& tolerance);
template <class T>
void check_same(const std::string& name, const std::vector<T>& got, const std::vector<T>& expected) {
  size_t bad = 0, first = 0;
  for (size_t i = 0; i < expected.size() && i < got.size(); ++i) {
    if (std::memcmp(&got[i], &expected[i], sizeof(T)) != 0 && bad++ == 0) first = i;
  }
  check(got.size() == expected.size(), name + ": size");
  check(bad == 0,
        name + text(": %zu of %zu values differ, the first at %zu: got %g, expected %g", bad, expected.size(),
                    first, static_cast<double>(got[first]), static_cast<double>(expected[first])));
}

}  // namespace gpu_test
