// Pinned threads that start a job together, and the clock. Used by main.cc.
#pragma once

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>
#include <vector>

namespace nearmoe::bench {

inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Thread i is pinned to CPU i; the calling thread is thread 0.
class Workers {
 public:
  explicit Workers(unsigned threads) {
    pin(0);
    for (unsigned i = 1; i < threads; ++i) {
      threads_.emplace_back([this, i] {
        pin(i);
        for (unsigned seen = 0;;) {
          while (turn_.load(std::memory_order_acquire) == seen) std::this_thread::yield();
          ++seen;
          if (stop_) return;
          if (i < active_) job_(i);
          done_.fetch_add(1, std::memory_order_release);
        }
      });
    }
  }
  ~Workers() {
    stop_ = true;
    turn_.fetch_add(1, std::memory_order_release);
    for (std::thread& t : threads_) t.join();
  }

  /// Seconds until all of the first `active` threads have run job(thread).
  double run(unsigned active, const std::function<void(unsigned)>& job) {
    job_ = job;
    active_ = active;
    done_.store(0, std::memory_order_relaxed);
    const double start = now();
    turn_.fetch_add(1, std::memory_order_release);
    job(0);
    while (done_.load(std::memory_order_acquire) < threads_.size()) std::this_thread::yield();
    return now() - start;
  }

 private:
  static void pin(unsigned cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
  }

  std::vector<std::thread> threads_;
  std::function<void(unsigned)> job_;
  std::atomic<unsigned> turn_{0}, done_{0};
  unsigned active_ = 0;
  bool stop_ = false;
};

}  // namespace nearmoe::bench
