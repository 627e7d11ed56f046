// Bandwidth of the GPU kernels that decode waits for, as a share of what a device-to-device copy reaches on
// the same device in the same minute. Built with nvcc's kernels (target gpu_bandwidth), run by
// scripts/cuda/check-gpu.mjs; the main program is that of the kernel tests. Weights and caches rotate over
// 512 MiB, so that no L2 holds them.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <vector>

#include "kernels/cuda/attention_kernels.h"
#include "test/native/cuda/weights.h"

namespace gpu_test {
namespace {

using namespace nearmoe::cuda;

constexpr size_t kColdBytes = size_t{512} << 20;
constexpr int kRounds = 15;

void demand(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "gpu_bandwidth: %s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

/// Median GB/s of kRounds passes; a pass launches `launch` for each of `copies` and moves `bytes` each time.
double measure(const char* what, size_t copies, size_t bytes,
               const std::function<cudaError_t(size_t)>& launch) {
  cudaEvent_t begin, end;
  demand(cudaEventCreate(&begin), "cudaEventCreate");
  demand(cudaEventCreate(&end), "cudaEventCreate");
  std::vector<double> rates;
  for (int round = 0; round < kRounds + 2; ++round) {
    demand(cudaEventRecord(begin, nullptr), what);
    for (size_t i = 0; i < copies; ++i) demand(launch(i), what);
    demand(cudaEventRecord(end, nullptr), what);
    demand(cudaEventSynchronize(end), what);
    float ms = 0;
    demand(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
    if (round >= 2) rates.push_back(static_cast<double>(copies * bytes) / (static_cast<double>(ms) * 1e6));
  }
  demand(cudaEventDestroy(begin), "cudaEventDestroy");
  demand(cudaEventDestroy(end), "cudaEventDestroy");
  std::nth_element(rates.begin(), rates.begin() + kRounds / 2, rates.end());
  return rates[kRounds / 2];
}

double copy_rate() {
  const Buffer<uint8_t> from(kColdBytes);
  Buffer<uint8_t> to(kColdBytes);
  return measure("copy", 1, 2 * kColdBytes, [&](size_t) {
    return cudaMemcpyAsync(to.data(), from.data(), kColdBytes, cudaMemcpyDeviceToDevice, nullptr);
  });
}

void report(const char* what, double rate) {
  const double ceiling = copy_rate();
  std::printf("| %s | %.1f | %.1f | %.1f%% |\n", what, rate, ceiling, 100 * rate / ceiling);
}

void gemv_rate(DType dtype, uint32_t rows, uint32_t cols) {
  const TestMatrix w(dtype, rows, cols);
  const TestActivations x(random_floats(cols), 1, cols);
  Buffer<float> y(rows);
  const size_t copies = std::max<size_t>(kColdBytes / w.packed.size(), 1);
  std::vector<std::unique_ptr<Buffer<uint8_t>>> cold;
  for (size_t i = 0; i < copies; ++i) {
    cold.push_back(std::make_unique<Buffer<uint8_t>>(w.packed.size()));
    demand(cudaMemcpy(cold.back()->data(), w.packed.data(), w.packed.size(), cudaMemcpyHostToDevice),
           "upload");
  }
  MatmulArgs args{};
  args.dtype = dtype;
  args.segments[0] = {w.view(), nullptr, y.data(), rows};
  args.num_segments = 1;
  args.x = x.view();
  args.tokens = 1;
  args.multiplier = 1.0f;
  const std::string name = text("gemv %s %u x %u", nearmoe::traits(dtype).name, rows, cols);
  report(name.c_str(), measure(name.c_str(), copies, w.packed.size(), [&](size_t i) {
           args.segments[0].weight.data = cold[i]->data();
           return gemv(args, nullptr);
         }));
}

void attention_rate(uint32_t heads, uint32_t kv_heads, uint32_t splits) {
  const uint32_t positions = 2048, head_dim = 128, blocks = positions / kKvTokens, q_size = heads * head_dim;
  const uint32_t kv_dtype = 1;  // f16
  std::vector<uint32_t> table(blocks);
  for (uint32_t b = 0; b < blocks; ++b) table[b] = b;
  const Buffer<uint32_t> block_table(table), offsets(std::vector<uint32_t>{0}),
      position(std::vector<uint32_t>{positions - 1});
  const size_t bytes = kv_pool_block_bytes(kv_dtype, head_dim) * blocks * kv_heads,
               copies = kColdBytes / bytes;
  Buffer<uint8_t> pool(bytes * copies);
  demand(cudaMemset(pool.data(), 0, bytes * copies), "cudaMemset");
  const Buffer<float> q(random_floats(q_size));
  Buffer<float> out(q_size), parts(attention_decode_workspace(1, heads, head_dim, splits));
  AttentionArgs args{
      q.data(),    q_size,  out.data(), q_size, heads,   kv_heads,        head_dim,       head_dim,
      0.1f,        0.0f,    0,          0,      nullptr, position.data(), offsets.data(), block_table.data(),
      pool.data(), kv_dtype};
  const std::string name =
      text("attention_decode f16, %u heads on %u, %u positions", heads, kv_heads, positions);
  report(name.c_str(), measure(name.c_str(), copies, bytes, [&](size_t i) {
           args.kv = pool.data() + i * bytes;
           return attention_decode({args, nullptr, 1, splits, parts.data()}, nullptr);
         }));
}

GPU_TEST(decode_bandwidth) {
  std::printf("| kernel | GB/s | copy GB/s | share |\n| --- | --- | --- | --- |\n");
  for (const DType dtype : kFormats) gemv_rate(dtype, 4096, 2048);
  attention_rate(16, 16, 11);
  attention_rate(32, 4, 11);
}

}  // namespace
}  // namespace gpu_test
