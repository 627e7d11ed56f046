#include "ceilings.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <system_error>
#include <thread>
#include <vector>

#include "arena.h"
#include "ceiling_loops.h"
#include "clock.h"
#include "cpu_topology.h"
#include "kernels/ops.h"
#include "lane.h"

namespace nearmoe {
namespace {

/// What is read between two looks at the clock, and between two touches when memory is committed.
constexpr size_t kChunk = size_t{4} << 20, kPage = 4096;
/// Which of them is fastest depends on the processor: the best counts.
constexpr ReadPattern kPatterns[] = {
    {1, Nearness::L2}, {4, Nearness::L2}, {8, Nearness::L2}, {4, Nearness::L1}};
/// A fraction of a millisecond of the densest loop.
constexpr uint64_t kRounds = 20000;

/// Amount of work per second, summed over threads that ran `work(thread)` at the same time.
using Work = std::function<double(uint32_t thread)>;

Status rate_of(const CeilingOptions& options, const Work& prepare, const Work& work, double* rate) {
  const std::vector<int> cpus = read_cpu_topology().allowed_cpus;
  std::atomic<uint32_t> ready{0};
  std::atomic<bool> abandoned{false};
  std::vector<double> rates(options.threads, 0.0);
  std::vector<std::thread> threads;
  auto run = [&](uint32_t thread) {
    if (options.pin_threads && !cpus.empty()) pin_this_thread(cpus[thread % cpus.size()]);
    if (prepare) prepare(thread);
    ready.fetch_add(1, std::memory_order_acq_rel);
    while (ready.load(std::memory_order_acquire) < options.threads) {
      if (abandoned.load(std::memory_order_relaxed)) return;
      std::this_thread::yield();
    }
    const double start = now_us();
    double done = 0;
    double elapsed = 0;
    while (elapsed < options.time_ms * 1e3) {
      done += work(thread);
      elapsed = now_us() - start;
    }
    rates[thread] = done / elapsed * 1e6;
  };
  Status status;
  try {
    for (uint32_t thread = 0; thread < options.threads; ++thread) threads.emplace_back(run, thread);
  } catch (const std::system_error& error) {
    abandoned.store(true, std::memory_order_relaxed);
    status = Status::error(Code::Internal, std::string("no thread for the measurement: ") + error.what());
  }
  for (std::thread& thread : threads) thread.join();
  *rate = 0;
  for (const double each : rates) *rate += each;
  return status;
}

Status measure_read(const CeilingOptions& options, double* rate) {
  const size_t share = options.buffer_bytes / options.threads / kChunk * kChunk;
  if (share == 0)
    return Status::error(Code::InvalidArgument, "the buffer is smaller than 4 MiB for each thread");
  Arena arena;
  std::byte* buffer =
      arena.reserve(share * options.threads, -1) ? arena.allocate(share * options.threads) : nullptr;
  if (buffer == nullptr) return Status::error(Code::OutOfMemory, "no address space for the buffer");
  // Each thread writes its own share first, so that pages lie on its node.
  Work prepare = [&](uint32_t thread) {
    for (size_t at = 0; at < share; at += kPage) buffer[thread * share + at] = std::byte{1};
    return 0.0;
  };
  double best = 0;
  for (const ReadPattern pattern : kPatterns) {
    std::vector<size_t> position(options.threads * 8, 0);  // a cache line for each thread's own
    const Work read = [&](uint32_t thread) {
      size_t& at = position[thread * 8];
      read_lines(buffer + thread * share + at, kChunk, pattern);
      at = (at + kChunk) % share;
      return static_cast<double>(kChunk);
    };
    double bytes_per_second = 0;
    if (Status s = rate_of(options, prepare, read, &bytes_per_second); !s.ok()) return s;
    prepare = nullptr;
    best = std::max(best, bytes_per_second);
  }
  *rate = best / 1e9;
  return {};
}

Status measure_multiply(bool int8, const CeilingOptions& options, double* rate) {
  const OpTable* tables[8];
  const size_t count = runnable_ops(tables, 8);
  const bool runs =
      std::any_of(tables, tables + count, [&](const OpTable* t) { return options.isa == t->isa; });
  const MultiplyLoop loop = runs ? multiply_loop(options.isa.c_str(), int8) : nullptr;
  if (loop == nullptr) {
    return Status::error(Code::InvalidArgument,
                         "no multiply loop for instruction set '" + options.isa + "' here");
  }
  const Work multiply = [loop](uint32_t) { return static_cast<double>(loop(kRounds)); };
  if (Status s = rate_of(options, nullptr, multiply, rate); !s.ok()) return s;
  *rate /= 1e9;
  return {};
}

}  // namespace

Status measure_ceiling(Ceiling ceiling, const CeilingOptions& options, double* rate) {
  if (options.threads == 0) return Status::error(Code::InvalidArgument, "a ceiling needs a thread");
  if (ceiling == Ceiling::Read) return measure_read(options, rate);
  return measure_multiply(ceiling == Ceiling::Int8, options, rate);
}

}  // namespace nearmoe
