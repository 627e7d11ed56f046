// How the bandwidth program times a kernel, and what it prints of it. On a device sizes are those of models
// and caches are kept cold; under the emulation both are small and times mean nothing: it shows that every
// line can be made.
#pragma once

#include <functional>
#include <string>

#include "test/native/cuda/weights.h"

namespace gpu_test {

#ifdef NEARMOE_CUDA_HOST
inline constexpr bool kDevice = true;
#else
inline constexpr bool kDevice = false;
#endif
/// A size for a device, and one for the emulation.
constexpr uint32_t size_of(uint32_t device, uint32_t emulated) { return kDevice ? device : emulated; }
/// What launches rotate over, so that no L2 holds it.
inline constexpr size_t kColdBytes = kDevice ? size_t{512} << 20 : size_t{1} << 16;

/// Ends the program where `error` is one.
void demand(cudaError_t error, const char* what);

/// The least that one launch moves and computes.
struct Work {
  size_t bytes;
  double flops;  ///< 0: not worth telling
};
/// Times launch(0) ... launch(copies - 1) and prints a line of the table: time, GB/s, share of a copy's on
/// the same device in the same minute, TFLOP/s.
void measure(const std::string& name, Work work, size_t copies,
             const std::function<cudaError_t(size_t)>& launch);

/// Copies of `bytes` bytes that fill kColdBytes, one behind the other; at least one.
class ColdCopies {
 public:
  explicit ColdCopies(const std::vector<std::byte>& packed);
  explicit ColdCopies(size_t bytes);
  uint8_t* at(size_t i) { return buffer_.data() + i * stride_; }
  size_t count() const { return count_; }

 private:
  size_t stride_, count_;
  Buffer<uint8_t> buffer_;
};

}  // namespace gpu_test
