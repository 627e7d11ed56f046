// Copies expert slabs from the units' memory into VRAM slots of the host GPU, one at a time, at a settable
// bandwidth: the stand-in for a DMA engine behind PCIe. On-demand copies go before prefetches.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "lane.h"
#include "weights.h"

namespace nearmoe {

struct TransferRequest {
  uint32_t id = 0;
  uint32_t layer = 0;
  uint32_t expert = 0;
  uint32_t slot = 0;
  const GatedFfn* source = nullptr;
  std::byte* target = nullptr;
  std::shared_ptr<Job> last_reader;  ///< still computes with the slot's old content
};

struct TransferRecord {
  uint32_t layer, expert, slot;
  size_t bytes;
  double start_us, end_us;
};

class TransferLane {
 public:
  /// bandwidth_gbs <= 0: as fast as memory copies.
  TransferLane(double bandwidth_gbs, uint32_t slots);
  ~TransferLane();
  TransferLane(const TransferLane&) = delete;
  TransferLane& operator=(const TransferLane&) = delete;

  /// Queues a copy; returns its id for wait_for. A prefetch that waits for the same slot is dropped. Control
  /// thread only.
  uint32_t submit(TransferRequest request, bool on_demand);
  /// Blocks until the transfer `id` into `slot` (or a later one) has completed.
  void wait_for(uint32_t slot, uint32_t id) const;
  /// Moves the records of transfers completed since the last call to the end of `out`.
  void take_completed(std::vector<TransferRecord>& out);
  /// Blocks until the queue is empty and the lane idle.
  void drain();

 private:
  void loop();
  void copy(const TransferRequest& request);

  const double bandwidth_gbs_;
  std::unique_ptr<std::atomic<uint32_t>[]> arrived_;  // per slot: id of the last completed transfer
  uint32_t next_id_ = 1;
  std::mutex mutex_;  // guards on_demand_, prefetch_, completed_, busy_, stop_
  std::condition_variable wake_;
  std::condition_variable idle_;
  std::deque<TransferRequest> on_demand_;
  std::deque<TransferRequest> prefetch_;
  std::vector<TransferRecord> completed_;
  bool busy_ = false;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace nearmoe
