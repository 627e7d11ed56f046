#include "transfer_lane.h"

#include <chrono>
#include <cstring>
#include <utility>

#include "clock.h"
#include "sync.h"

namespace nearmoe {

TransferLane::TransferLane(double bandwidth_gbs, uint32_t slots)
    : bandwidth_gbs_(bandwidth_gbs), arrived_(std::make_unique<std::atomic<uint32_t>[]>(slots)) {
  thread_ = std::thread([this] { loop(); });
}

TransferLane::~TransferLane() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

uint32_t TransferLane::submit(TransferRequest request, bool on_demand) {
  request.id = next_id_++;
  const uint32_t id = request.id;
  {
    const std::lock_guard lock(mutex_);
    // A prefetch still queued for this slot would only be overwritten; run behind an on-demand copy it would
    // even replace the newer slab by the older one.
    std::erase_if(prefetch_, [&](const TransferRequest& queued) { return queued.slot == request.slot; });
    (on_demand ? on_demand_ : prefetch_).push_back(std::move(request));
  }
  wake_.notify_one();
  return id;
}

void TransferLane::wait_for(uint32_t slot, uint32_t id) const {
  uint32_t now = arrived_[slot].load(std::memory_order_acquire);
  while (now < id) now = wait_while(arrived_[slot], now, 0);
}

void TransferLane::take_completed(std::vector<TransferRecord>& out) {
  const std::lock_guard lock(mutex_);
  out.insert(out.end(), completed_.begin(), completed_.end());
  completed_.clear();
}

void TransferLane::drain() {
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [this] { return on_demand_.empty() && prefetch_.empty() && !busy_; });
}

void TransferLane::copy(const TransferRequest& request) {
  if (request.last_reader != nullptr) request.last_reader->wait(0);
  const double start = now_us();
  const auto begin = std::chrono::steady_clock::now();
  std::byte* target = request.target;
  const GatedFfn& expert = *request.source;
  for (size_t slice = 0; slice < expert.gate.slices.size(); ++slice) {
    for (const SlicedMatrix* matrix : {&expert.gate, &expert.up, &expert.down}) {
      const PackedMatrix& source = matrix->slices[slice];
      if (source.rows == 0) continue;
      const size_t bytes = slice_bytes(source);
      std::memcpy(target, source.data, bytes);
      target += bytes;
    }
  }
  const auto bytes = static_cast<size_t>(target - request.target);
  if (bandwidth_gbs_ > 0) {
    const double seconds = static_cast<double>(bytes) / (bandwidth_gbs_ * 1e9);
    std::this_thread::sleep_until(begin + std::chrono::duration<double>(seconds));
  }
  const std::lock_guard lock(mutex_);
  completed_.push_back({request.layer, request.expert, request.slot, bytes, start, now_us()});
}

void TransferLane::loop() {
  for (;;) {
    TransferRequest request;
    {
      std::unique_lock lock(mutex_);
      busy_ = false;
      if (on_demand_.empty() && prefetch_.empty()) idle_.notify_all();
      wake_.wait(lock, [this] { return stop_ || !on_demand_.empty() || !prefetch_.empty(); });
      std::deque<TransferRequest>& queue = on_demand_.empty() ? prefetch_ : on_demand_;
      if (queue.empty()) return;
      request = std::move(queue.front());
      queue.pop_front();
      busy_ = true;
    }
    copy(request);
    // Release: whoever sees the id sees the slab. A slot's transfers run in order, so ids only grow.
    arrived_[request.slot].store(request.id, std::memory_order_release);
    arrived_[request.slot].notify_all();
  }
}

}  // namespace nearmoe
