// Waiting between the threads of the runtime: spin for a bounded time, then sleep in the kernel.
// Spinning is off where the machine has fewer cores than there are compute threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "clock.h"

namespace nearmoe {

inline void cpu_relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Turns of wait_while that take about `us` microseconds here: a pause lasts from 10 to 150 cycles, by
/// processor.
inline uint32_t spins_in(double us) {
  constexpr uint32_t kTurns = 1000, kSamples = 3;
  const std::atomic<uint32_t> value{0};
  double turn_us = us;
  for (uint32_t sample = 0; sample < kSamples; ++sample) {
    const double start = now_us();
    for (uint32_t i = 0; i < kTurns && value.load(std::memory_order_acquire) == 0; ++i) cpu_relax();
    // The shortest: others hold what an interruption took.
    turn_us = std::min(turn_us, (now_us() - start) / kTurns);
  }
  return static_cast<uint32_t>(us / turn_us) + 1;
}

/// Blocks until `value` differs from `old` (acquire; the writer's release store or RMW is its partner,
/// followed by a notify_all). Spins about `spins` times before it sleeps.
inline uint32_t wait_while(const std::atomic<uint32_t>& value, uint32_t old, uint32_t spins) {
  for (uint32_t i = 0; i < spins; ++i) {
    const uint32_t now = value.load(std::memory_order_acquire);
    if (now != old) return now;
    cpu_relax();
  }
  uint32_t now = value.load(std::memory_order_acquire);
  while (now == old) {
    value.wait(old, std::memory_order_acquire);
    now = value.load(std::memory_order_acquire);
  }
  return now;
}

/// A barrier for a fixed number of threads, reusable at once. What a thread wrote before arriving is seen by
/// all after.
class Barrier {
 public:
  void reset(uint32_t threads, uint32_t spins) {
    threads_ = threads;
    spins_ = spins;
  }

  void arrive_and_wait() { wait(arrive()); }

  /// The first half of meeting, for a thread that has something to do before it needs the others: what it
  /// wrote so far is theirs once they are behind wait. Each arrival wants one wait before the thread's next
  /// arrival.
  uint32_t arrive() {
    const uint32_t phase = phase_.load(std::memory_order_relaxed);
    if (threads_ <= 1) return phase - 1;
    // acq_rel: the last arrival acquires what all others released; phase_'s release hands it to the waiters.
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
      arrived_.store(0, std::memory_order_relaxed);
      phase_.store(phase + 1, std::memory_order_release);
      phase_.notify_all();
    }
    return phase;
  }

  /// Blocks until all threads have made the arrival that gave `phase`.
  void wait(uint32_t phase) { wait_while(phase_, phase, spins_); }

 private:
  alignas(64) std::atomic<uint32_t> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
  uint32_t threads_ = 1;
  uint32_t spins_ = 0;
};

}  // namespace nearmoe
