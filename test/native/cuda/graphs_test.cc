// The backend's graph cache alone, on the emulated runtime: what is captured and replayed, what is forgotten,
// and what follows where the driver refuses. Whole models with and without graphs: gpu_device_test.cc.
#include <cstdlib>

#include "harness.h"
#include "kernels/cuda/backend/graphs.h"

namespace gpu_test {
namespace {

using nearmoe::gpu::Failure;
using nearmoe::gpu::GraphKey;
using nearmoe::gpu::Graphs;

/// A stream, memory for one byte on either side, and a part of a step that copies the one to the other.
class Bench {
 public:
  Bench() {
    check(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, 0) == cudaSuccess, "cudaStreamCreate");
    check(cudaHostAlloc(&host, 1, cudaHostAllocMapped) == cudaSuccess, "cudaHostAlloc");
    graphs.start(2);
  }
  ~Bench() {
    (void)cudaStreamSynchronize(stream);
    graphs.clear();
    (void)cudaStreamDestroy(stream);
    (void)cudaFreeHost(host);
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  /// Runs the part of layer `layer` with `value` in the host's memory; checks that the value arrives.
  void run(uint32_t layer, uint8_t value, const std::string& what) {
    *host = value;
    check(graphs.run(key(layer), stream, [&] { return body(); }) == NM_GPU_OK, what + ": code");
    check(cudaStreamSynchronize(stream) == cudaSuccess, what + ": cudaStreamSynchronize");
    check(device.get()[0] == value, what + ": the copy");
  }

  NmGpuGraphs report() const {
    NmGpuGraphs found{};
    graphs.report(&found);
    return found;
  }

  static GraphKey key(uint32_t layer) { return {GraphKey::Part::Attention, layer, 1, 1}; }
  NmGpuCode body() {
    ++bodies;
    return failure.check(cudaMemcpyAsync(device.data(), host, 1, cudaMemcpyHostToDevice, stream), "copy");
  }

  Failure failure;
  Graphs graphs{failure};
  Buffer<uint8_t> device{1};
  cudaStream_t stream = nullptr;
  uint8_t* host = nullptr;
  int bodies = 0;
};

GPU_TEST(graphs_replay) {
  Bench bench;
  for (uint8_t i = 0; i < 5; ++i) bench.run(0, i, text("step %u", i));
  const NmGpuGraphs found = bench.report();
  check(bench.bodies == 2, text("submitted once and captured once, not %d times", bench.bodies));
  check(found.replays == 4 && found.held == 1 && !*found.off, "four launches of one graph");
}

GPU_TEST(graphs_room) {
  Bench bench;
  for (uint32_t layer = 0; layer < 100; ++layer) {
    bench.graphs.make_room();
    bench.run(layer, 1, "first time");
    bench.run(layer, 2, "second time");
    check(bench.report().held <= 16, "no more than eight shapes of two parts");
  }
  const int before = bench.bodies;
  bench.run(99, 3, "the newest");
  check(bench.bodies == before, "the newest graph is kept");
  bench.run(0, 4, "the oldest");
  check(bench.bodies == before + 1, "the oldest graph is gone");
  bench.graphs.clear();
  check(bench.report().held == 0, "none is left after clear");
}

/// The n-th call about graphs fails; each is made once in the second and third step.
GPU_TEST(graphs_refused) {
  const char* const calls[] = {"cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate",
                               "cudaGraphLaunch", "cudaGraphLaunch"};
  for (uint64_t n = 1; n <= 5; ++n) {
    Bench bench;
    gpu_host::inject_fault(gpu_host::Fault::Graph, n);
    for (uint8_t i = 0; i < 4; ++i) bench.run(0, i, text("fault %d, step %u", static_cast<int>(n), i));
    const std::string off = bench.report().off;
    check(off.rfind(calls[n - 1], 0) == 0,
          text("expected %s to be named, got: %s", calls[n - 1], off.c_str()));
    check(!bench.failure.sticky(), "a refused graph is no failure");
    gpu_host::inject_fault(gpu_host::Fault::None, 0);
  }
}

GPU_TEST(graphs_off) {
  setenv("NEARMOE_GPU_GRAPHS", "off", 1);
  Bench bench;
  unsetenv("NEARMOE_GPU_GRAPHS");
  for (uint8_t i = 0; i < 4; ++i) bench.run(0, i, "off");
  check(bench.bodies == 4 && bench.report().replays == 0, "nothing is captured");
  check(std::string(bench.report().off) == "NEARMOE_GPU_GRAPHS=off", "the reason");
}

/// Work that fails while it is captured is told as ever, and no graph comes of it.
GPU_TEST(graphs_failing_body) {
  Bench bench;
  bench.run(0, 1, "first time");
  const auto refuse = [&] { return bench.failure.fail(NM_GPU_UNSUPPORTED, "body", "no"); };
  check(bench.graphs.run(Bench::key(0), bench.stream, refuse) == NM_GPU_UNSUPPORTED, "the body's code");
  check(bench.report().held == 0 && !*bench.report().off, "no graph, and none is ruled out");
  bench.run(0, 2, "third time");
  check(bench.report().held == 1, "captured in the end");
}

/// The emulation itself: a call that a capture forbids ends it, as on a device.
GPU_TEST(graphs_forbidden_calls) {
  Bench bench;
  const std::pair<const char*, std::function<cudaError_t()>> forbidden[] = {
      {"cudaStreamSynchronize", [&] { return cudaStreamSynchronize(bench.stream); }},
      {"cudaDeviceSynchronize", [] { return cudaDeviceSynchronize(); }},
      {"cudaMalloc",
       [] {
         void* p = nullptr;
         return cudaMalloc(&p, 16);
       }},
      {"pageable copy",
       [&] {
         const char byte = 0;
         return cudaMemcpyAsync(bench.device.data(), &byte, 1, cudaMemcpyHostToDevice, bench.stream);
       }},
  };
  for (const auto& [name, call] : forbidden) {
    cudaGraph_t graph = nullptr;
    check(cudaStreamBeginCapture(bench.stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess, "begin");
    check(call() == cudaErrorStreamCaptureUnsupported, std::string(name) + " while a stream is captured");
    check(cudaStreamEndCapture(bench.stream, &graph) == cudaErrorStreamCaptureInvalidated && !graph,
          std::string(name) + " ends the capture");
  }
}

}  // namespace
}  // namespace gpu_test
