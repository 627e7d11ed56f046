#include "harness.h"

#include <chrono>
#include <cmath>
#include <cstdarg>
#include <cstdlib>

namespace gpu_test {
namespace {

struct Test {
  const char* name;
  void (*body)();
};

std::vector<Test>& tests() {
  static std::vector<Test> list;
  return list;
}

int passed, failed, failures_shown;
bool run_all = true;

}  // namespace

Registration::Registration(const char* name, void (*body)()) { tests().push_back({name, body}); }

void check(bool ok, const std::string& what) {
  ++(ok ? passed : failed);
  if (!ok && failures_shown++ < 40) std::printf("FAILED: %s\n", what.c_str());
}

bool full() { return run_all; }

bool has_bf16_matrices() {
  int major = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) == cudaSuccess,
        "cudaDeviceGetAttribute");
  return major >= 8;
}

std::string text(const char* format, ...) {
  char buffer[400];
  va_list list;
  va_start(list, format);
  vsnprintf(buffer, sizeof buffer, format, list);
  va_end(list);
  return buffer;
}

uint32_t random_below(uint32_t n) { return static_cast<uint32_t>(generator()() % n); }

std::vector<float> random_floats(size_t n, float scale, bool extreme) {
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(n);
  for (float& value : values) {
    value = normal(generator());
    if (!extreme) continue;
    switch (random_below(16)) {
      case 0:
        value *= 1e4f;
        break;
      case 1:
        value *= 1e-4f;
        break;
      case 2:
        value = 0.0f;
        break;
      case 3:
        value = -0.0f;
        break;
      case 4:
        value = 1e-41f;
        break;
      default:
        break;
    }
  }
  return values;
}

bool run_in_orders(const std::string& name, const std::function<void()>& prepare,
                   const std::function<cudaError_t()>& launch,
                   const std::function<std::vector<std::byte>()>& collect) {
#ifdef NEARMOE_CUDA_HOST
  const int runs = 2;  // a GPU chooses its own order; twice must still agree
#else
  using gpu_host::Order;
  const std::pair<Order, uint64_t> orders[] = {
      {Order::Forward, 0}, {Order::Reverse, 0}, {Order::Random, 1}, {Order::Random, 2}};
  const int runs = 4;
#endif
  std::vector<std::byte> first;
  for (int run = 0; run < runs; ++run) {
#ifndef NEARMOE_CUDA_HOST
    gpu_host::options.order = orders[run].first;
    gpu_host::options.seed = orders[run].second;
#endif
    prepare();
    cudaError_t error = launch();
    if (error == cudaSuccess) error = cudaDeviceSynchronize();
    if (error != cudaSuccess) {
      check(false, name + ": " + cudaGetErrorString(error));
#ifndef NEARMOE_CUDA_HOST
      (void)cudaDeviceReset();
#endif
      return false;
    }
    const std::vector<std::byte> bytes = collect();
    if (run == 0) {
      first = bytes;
    } else {
      check(bytes == first, name + ": the result depends on the order of threads");
    }
  }
  return true;
}

void check_close(const std::string& name, const std::vector<float>& got, const std::vector<double>& expected,
                 const std::vector<double>& tolerance) {
  size_t bad = 0, worst = 0;
  double worst_share = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double error = std::fabs(static_cast<double>(got[i]) - expected[i]);
    const bool same =
        std::isnan(expected[i]) ? std::isnan(got[i]) : static_cast<double>(got[i]) == expected[i];
    const double share = same ? 0.0 : error / tolerance[i];
    if (!(share <= 1.0)) ++bad;
    if (!(share <= worst_share)) {
      worst_share = share;
      worst = i;
    }
  }
  check(
      bad == 0,
      name +
          text(
              ": %zu of %zu values are off, the worst at %zu: got %.9g, expected %.9g, %.2f of the tolerance",
              bad, expected.size(), worst, static_cast<double>(got[worst]), expected[worst], worst_share));
}

}  // namespace gpu_test

/// Arguments: --quick leaves out large shapes, --sm75 lets the emulated device be one without bf16 matrices
/// and asynchronous copies; others are parts of test names, of which one must match.
int main(int argc, char** argv) {
  using namespace gpu_test;
  std::vector<std::string> wanted;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--quick") == 0) {
      run_all = false;
#ifndef NEARMOE_CUDA_HOST
    } else if (std::strcmp(argv[i], "--sm75") == 0) {
      gpu_host::device_model.compute_capability = 75;
#endif
    } else {
      wanted.push_back(argv[i]);
    }
  }
  for (const Test& test : tests()) {
    bool chosen = wanted.empty();
    for (const std::string& part : wanted) chosen = chosen || std::strstr(test.name, part.c_str()) != nullptr;
    if (!chosen) continue;
    const auto start = std::chrono::steady_clock::now();
    const int before = failed;
    generator().seed(1);
    test.body();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    std::printf("%s %s (%.2f s)\n", failed == before ? "ok  " : "FAIL", test.name, seconds);
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed > 0 || passed == 0;
}
