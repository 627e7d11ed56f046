#include "measure.h"

#include <algorithm>
#include <cstdlib>

namespace gpu_test {
namespace {

constexpr int kRounds = kDevice ? 15 : 1, kWarmUp = kDevice ? 2 : 0;

/// Median seconds of a pass over all copies.
double pass_seconds(const char* what, size_t copies, const std::function<cudaError_t(size_t)>& launch) {
  cudaEvent_t begin, end;
  demand(cudaEventCreateWithFlags(&begin, cudaEventDefault), "cudaEventCreate");
  demand(cudaEventCreateWithFlags(&end, cudaEventDefault), "cudaEventCreate");
  std::vector<double> seconds;
  for (int round = 0; round < kRounds + kWarmUp; ++round) {
    demand(cudaEventRecord(begin, nullptr), what);
    for (size_t i = 0; i < copies; ++i) demand(launch(i), what);
    demand(cudaEventRecord(end, nullptr), what);
    demand(cudaEventSynchronize(end), what);
    float ms = 0;
    demand(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
    if (round >= kWarmUp) seconds.push_back(std::max(static_cast<double>(ms) * 1e-3, 1e-9));
  }
  demand(cudaEventDestroy(begin), "cudaEventDestroy");
  demand(cudaEventDestroy(end), "cudaEventDestroy");
  const auto middle = seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2);
  std::nth_element(seconds.begin(), middle, seconds.end());
  return *middle;
}

double copy_gbs() {
  const Buffer<uint8_t> from(kColdBytes);
  Buffer<uint8_t> to(kColdBytes);
  const double seconds = pass_seconds("copy", 1, [&](size_t) {
    return cudaMemcpyAsync(to.data(), from.data(), kColdBytes, cudaMemcpyDeviceToDevice, nullptr);
  });
  return 2 * static_cast<double>(kColdBytes) / seconds / 1e9;
}

}  // namespace

void demand(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "gpu_bandwidth: %s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

void measure(const std::string& name, Work work, size_t copies,
             const std::function<cudaError_t(size_t)>& launch) {
  static bool headed = false;
  if (!headed)
    std::printf("| kernel | us | GB/s | copy GB/s | share | TFLOP/s |\n|---|---|---|---|---|---|\n");
  headed = true;
  const double seconds = pass_seconds(name.c_str(), copies, launch) / static_cast<double>(copies);
  const double gbs = static_cast<double>(work.bytes) / seconds / 1e9, ceiling = copy_gbs();
  std::printf("| %s | %.2f | %.1f | %.1f | %.1f%% | ", name.c_str(), seconds * 1e6, gbs, ceiling,
              100 * gbs / ceiling);
  if (work.flops > 0) {
    std::printf("%.2f |\n", work.flops / seconds / 1e12);
  } else {
    std::printf("- |\n");
  }
  check(seconds > 0, name);
}

ColdCopies::ColdCopies(size_t bytes)
    : stride_((bytes + 255) / 256 * 256),
      count_(std::max<size_t>(kColdBytes / stride_, 1)),
      buffer_(stride_ * count_) {
  demand(cudaMemset(buffer_.data(), 0, buffer_.size()), "cudaMemset");
}

ColdCopies::ColdCopies(const std::vector<std::byte>& packed) : ColdCopies(packed.size()) {
  for (size_t i = 0; i < count_; ++i)
    demand(cudaMemcpy(at(i), packed.data(), packed.size(), cudaMemcpyHostToDevice), "upload");
}

}  // namespace gpu_test
