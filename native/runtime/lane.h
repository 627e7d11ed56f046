// A lane: the pinned threads and the queue of one NDP unit or of the host GPU. Jobs run in order, each on all
// ranks of the lane at once (SPMD). With `caller_is_rank0` the thread that waits does rank 0's work, so no
// core is idle or oversubscribed. Submission and waiting happen on one control thread.
#pragma once

#include <pthread.h>
#include <sched.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace nearmoe {

/// Work for all ranks of one or more lanes.
class Job {
 public:
  explicit Job(uint32_t participants) : pending_(participants) {}
  virtual ~Job() = default;
  /// `lane` and `rank` (in the lane) of the calling thread.
  virtual void run(uint32_t lane, uint32_t rank) = 0;

  bool done() const { return pending_.load(std::memory_order_acquire) == 0; }
  /// Blocks until all ranks have finished.
  void wait(uint32_t spins) const;

 private:
  friend class Lane;
  void finish_one();
  std::atomic<uint32_t> pending_;  // partner: done() and wait() acquire what finish_one released
};

/// A job whose work is a function of lane and rank.
class FunctionJob final : public Job {
 public:
  using Body = std::function<void(uint32_t lane, uint32_t rank)>;
  FunctionJob(uint32_t participants, Body body) : Job(participants), body_(std::move(body)) {}
  void run(uint32_t lane, uint32_t rank) override { body_(lane, rank); }

 private:
  Body body_;
};

struct LaneOptions {
  uint32_t index = 0;
  uint32_t ranks = 1;
  bool caller_is_rank0 = false;
  std::vector<int> cpus;  ///< rank i is pinned to cpus[i], a caller from its first work on; empty: not pinned
  uint32_t spins = 0;
};

/// Keeps the thread that makes one on a CPU until it destroys it.
class CallerPin {
 public:
  explicit CallerPin(int cpu);
  ~CallerPin();
  CallerPin(const CallerPin&) = delete;
  CallerPin& operator=(const CallerPin&) = delete;

 private:
  pthread_t thread_;
  cpu_set_t before_;
};

class Lane {
 public:
  explicit Lane(LaneOptions options);
  ~Lane();
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  void submit(std::shared_ptr<Job> job);
  /// Rank 0's share of the queue up to and including `job` (caller_is_rank0 only).
  void work_until(const Job& job);
  uint32_t ranks() const { return options_.ranks; }

 private:
  static constexpr uint32_t kCapacity = 64;
  void thread_loop(uint32_t rank);
  void run_next(uint32_t rank);

  LaneOptions options_;
  std::array<std::shared_ptr<Job>, kCapacity> ring_;
  alignas(64) std::atomic<uint32_t> published_{
      0};  // jobs submitted; release, partner: wait_while in thread_loop
  std::unique_ptr<std::atomic<uint32_t>[]> taken_;  // per rank: jobs finished
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
  std::optional<CallerPin> caller_pin_;
};

/// Pins the calling thread; false where the OS refuses (then it just is not pinned).
bool pin_this_thread(int cpu);

}  // namespace nearmoe
