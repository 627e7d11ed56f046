#include "lane.h"

#include <pthread.h>
#include <sched.h>

#include <utility>

#include "sync.h"

namespace nearmoe {

void Job::finish_one() {
  if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1) pending_.notify_all();
}

void Job::wait(uint32_t spins) const {
  uint32_t now = pending_.load(std::memory_order_acquire);
  while (now != 0) now = wait_while(pending_, now, spins);
}

bool pin_this_thread(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(cpu), &set);
  return pthread_setaffinity_np(pthread_self(), sizeof set, &set) == 0;
}

CallerPin::CallerPin(int cpu) : thread_(pthread_self()) {
  CPU_ZERO(&before_);
  pthread_getaffinity_np(thread_, sizeof before_, &before_);
  pin_this_thread(cpu);
}

CallerPin::~CallerPin() {
  // From another thread this one may be gone.
  if (pthread_equal(thread_, pthread_self())) pthread_setaffinity_np(thread_, sizeof before_, &before_);
}

Lane::Lane(LaneOptions options)
    : options_(std::move(options)), taken_(std::make_unique<std::atomic<uint32_t>[]>(options_.ranks)) {
  for (uint32_t rank = options_.caller_is_rank0 ? 1 : 0; rank < options_.ranks; ++rank) {
    threads_.emplace_back([this, rank] { thread_loop(rank); });
  }
}

Lane::~Lane() {
  stop_.store(true, std::memory_order_release);
  published_.fetch_add(1, std::memory_order_release);
  published_.notify_all();
  for (auto& thread : threads_) thread.join();
}

void Lane::submit(std::shared_ptr<Job> job) {
  const uint32_t index = published_.load(std::memory_order_relaxed);
  for (uint32_t rank = 0; rank < options_.ranks; ++rank) {
    // The ring is far longer than what a step keeps in flight; a full one waits for its oldest job.
    uint32_t taken = taken_[rank].load(std::memory_order_acquire);
    while (index - taken >= kCapacity) {
      if (rank == 0 && options_.caller_is_rank0) {
        run_next(0);
        taken = taken_[0].load(std::memory_order_acquire);
      } else {
        taken = wait_while(taken_[rank], taken, 0);
      }
    }
  }
  ring_[index % kCapacity] = std::move(job);
  published_.store(index + 1, std::memory_order_release);
  published_.notify_all();
}

void Lane::run_next(uint32_t rank) {
  const uint32_t index = taken_[rank].load(std::memory_order_relaxed);
  // A copy: the ring's entry may be overwritten as soon as all ranks have taken the job.
  const std::shared_ptr<Job> job = ring_[index % kCapacity];
  job->run(options_.index, rank);
  taken_[rank].store(index + 1, std::memory_order_release);
  taken_[rank].notify_all();
  job->finish_one();
}

void Lane::thread_loop(uint32_t rank) {
  if (rank < options_.cpus.size()) pin_this_thread(options_.cpus[rank]);
  for (;;) {
    const uint32_t mine = taken_[rank].load(std::memory_order_relaxed);
    wait_while(published_, mine, options_.spins);
    if (stop_.load(std::memory_order_acquire)) {
      // The destructor's extra count carries no job.
      if (published_.load(std::memory_order_acquire) - mine <= 1) return;
    }
    run_next(rank);
  }
}

void Lane::work_until(const Job& job) {
  // Ranks that wait for each other in turns look to the system like the load of one thread: it may well leave
  // them on one CPU, at a third of the speed.
  if (!caller_pin_ && !options_.cpus.empty()) caller_pin_.emplace(options_.cpus[0]);
  while (!job.done() &&
         taken_[0].load(std::memory_order_relaxed) != published_.load(std::memory_order_relaxed)) {
    run_next(0);
  }
}

}  // namespace nearmoe
