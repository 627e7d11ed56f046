// One loaded model on this machine: its lanes, weights, KV cache and buffers, behind the calls that
// device/native.ts makes. All methods run on one control thread (the engine's worker); jobs run on the lanes.
// Errors come back as Status. Here the GPU lane is played by threads; gpu_device.h puts a GPU in its place.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "buffers.h"
#include "forward.h"
#include "lane.h"
#include "repack_cache.h"
#include "transfer_lane.h"

namespace nearmoe {

struct DeviceOptions {
  Topology topology;
  bool pin_threads = true;
  bool lookahead = false;             ///< guess the next MoE layer's experts at each layer (host GPU lane)
  double transfer_bandwidth_gbs = 0;  ///< <= 0: unthrottled
  KvDType kv_dtype = KvDType::F16;
  uint32_t max_step_tokens = 512;
  uint32_t max_logit_rows = 16;
  uint32_t slice_cols = 1;
  size_t arena_bytes = 0;  ///< address space to reserve for each arena
  std::string isa;
  std::string gpu_backend;  ///< with a GPU lane: "cuda", "emulated", or "" for threads of the host
};

/// One timed stretch of a lane. lane: unit index, units = GPU lane, units + 1 = transfer lane.
struct TraceEvent {
  enum class Kind : uint8_t { Layers, Attention, Experts, Transfer, Logits };
  uint32_t lane;
  Kind kind;
  int32_t layer;
  double start_us, end_us;
};

/// How decode reaches a GPU: as CUDA graphs, or call by call where `off` says why.
struct GpuGraphs {
  uint64_t replays = 0;  ///< graphs launched so far
  uint32_t held = 0;     ///< ready to be launched again
  std::string off;
};

class ComputeDevice {
 public:
  /// Columns of one layer's observations before the units' busy times.
  static constexpr uint32_t kObservationHead = 6;
  static constexpr uint32_t kPlanColumns = 4;

  ComputeDevice(ModelSpec spec, DeviceOptions options, const std::atomic<int32_t>* cancel_flags,
                uint32_t cancel_slots);
  virtual ~ComputeDevice();
  ComputeDevice(const ComputeDevice&) = delete;
  ComputeDevice& operator=(const ComputeDevice&) = delete;

  Status start();
  Status open_file(const std::string& path, uint32_t* index);
  /// A checkpoint of `bytes` made-up values instead of a file.
  Status open_synthetic(size_t bytes, uint32_t* index);
  Status load_weights(const std::vector<LoadRow>& rows);
  /// Takes packed weights from a file; before load_weights, which then only learns places (repack_cache.h).
  Status map_arenas(const std::string& path, const std::vector<ArenaSegment>& segments) {
    return nearmoe::map_arenas(store_, path, segments, options_.topology.unit_ranks());
  }
  virtual Status finish_load();
  virtual Status allocate_kv(uint32_t blocks);
  /// Slots for the states of sequences; once, where the model has states.
  virtual Status allocate_states(uint32_t slots);
  /// *got: the slots there are, fewer than asked where GPU memory ends.
  virtual Status allocate_expert_slots(uint32_t count, uint32_t* got);

  virtual Status begin_step(const int32_t* wire, size_t wire_size, const float* ropes, size_t ropes_size);
  Status submit_layers(uint32_t first, uint32_t end, uint32_t* ticket);
  virtual Status submit_attention(uint32_t layer, uint32_t* ticket);
  /// plan: [layer, count] then per expert, ascending: expert, place (-1 GPU), slot, transfer.
  virtual Status submit_experts(const int32_t* plan, size_t size, uint32_t* ticket);
  virtual Status submit_prefetch(uint32_t layer, uint32_t expert, uint32_t slot);
  /// `candidates`: how many of each row's largest logits are wanted in buffers().candidates, up to
  /// kMaxCandidates; a GPU gives none.
  virtual Status submit_logits(uint32_t candidates, uint32_t* ticket);
  /// Works along until the ticket's job is done. *aborted: a cancel flag ended the step.
  virtual Status wait(uint32_t ticket, bool* aborted);
  /// Waits for everything submitted and brings observations up to date.
  virtual void drain();

  /// Microseconds one expert takes with `tokens` tokens each, averaged over several experts of the first MoE
  /// layer.
  virtual Status measure_experts(bool on_gpu, uint32_t tokens, double* us);
  virtual Status measure_transfer(double* us);

  virtual std::vector<uint32_t> take_completed_slots();
  virtual std::vector<TraceEvent> take_trace_events();
  void set_tracing(bool on) { tracing_ = on; }

  const ModelSpec& spec() const { return spec_; }
  uint32_t max_logit_rows() const { return options_.max_logit_rows; }
  const Buffers& buffers() const { return buffers_; }
  const WeightStore& store() const { return store_; }
  std::vector<double>& observations() { return observations_; }
  /// Microseconds of the last step by rank and op: the units' ranks, then those of the GPU lane.
  std::vector<double>& op_times() { return op_times_; }
  uint32_t observation_columns() const { return kObservationHead + options_.topology.units; }
  const char* isa() const { return ops_->isa; }
  /// `off` names what is missing where no GPU is there to be fed.
  virtual Status gpu_graphs(GpuGraphs* graphs) const {
    *graphs = {0, 0, "there is no GPU"};
    return {};
  }
  virtual size_t kv_bytes() const { return kv_.bytes(); }
  virtual size_t state_bytes() const { return states_.bytes(); }
  /// Of host memory.
  virtual size_t held_bytes() const;

 protected:
  /// Raw times of one layer; each field has one writer (named) and is read after that writer's job is done.
  struct LayerTimes {
    double attention_us = 0;                         // dense rank 0
    double submitted_us = 0;                         // control thread
    std::vector<double> unit_us, unit_end;           // per unit rank: that rank
    std::vector<double> gpu_us, gpu_end, shared_us;  // per dense rank: that rank
    double transfer_us = 0, transfer_bytes = 0;      // control thread
  };
  struct Slot {
    int64_t layer = -1, expert = -1;  // content once queued transfers are done
    uint32_t transfer_id = 0;
    std::shared_ptr<Job> last_reader;
  };
  /// One expert of a plan that runs on the GPU lane.
  struct GpuTask {
    uint32_t expert;
    uint32_t slot;
    uint32_t tokens;
    bool needs_transfer;
    uint32_t transfer_id;  ///< what must have arrived in the slot
  };
  using RankFunction = std::function<void(uint32_t)>;

  /// Runs `function(dense rank)` on all dense ranks, behind the experts submitted last. Returns the ticket.
  uint32_t submit_dense(TraceEvent::Kind kind, int32_t layer, RankFunction function);
  /// Runs `function(unit rank)` on all units.
  uint32_t submit_units(TraceEvent::Kind kind, int32_t layer, RankFunction function);
  /// Unpacks a step and starts its books. The step before must be done.
  Status decode_step(const int32_t* wire, size_t wire_size, const float* ropes, size_t ropes_size);
  uint32_t remember(std::shared_ptr<Job> job);
  void trace(uint32_t lane, TraceEvent::Kind kind, int32_t layer, double start, double end);
  void collect_observations();
  void collect_op_times();
  void collect_transfers();
  Status check_transfer(uint32_t layer, uint32_t expert, uint32_t slot) const;
  Status queue_transfer(uint32_t layer, uint32_t expert, uint32_t slot, bool on_demand);
  Status decode_plan(const int32_t* plan, size_t size, std::vector<ExpertTask>& units,
                     std::vector<GpuTask>& gpu);
  /// Residents first, while the others are copied, those with most tokens first: what the plan's costs reckon
  /// with.
  static void order_for_gpu(std::vector<GpuTask>& gpu);
  Status check_loaded(bool gpu_lane) const;
  uint32_t first_moe_layer() const;
  void fake_routing(uint32_t layer, uint32_t tokens, uint32_t experts);

  ModelSpec spec_;
  DeviceOptions options_;
  const std::atomic<int32_t>* cancel_flags_;
  uint32_t cancel_slots_;
  const OpTable* ops_ = nullptr;
  WeightStore store_;
  KvCache kv_;
  uint32_t kv_blocks_ = 0;
  StateCache states_;
  uint32_t state_slots_ = 0;
  Buffers buffers_;
  std::unique_ptr<Forward> forward_;
  std::vector<MappedFile> files_;
  Step step_;
  uint32_t spins_ = 0;
  std::vector<std::unique_ptr<Lane>> unit_lanes_;
  std::unique_ptr<Lane> gpu_lane_;
  std::unique_ptr<TransferLane> transfers_;
  std::unique_ptr<Arena> slot_arena_;
  std::byte* slot_base_ = nullptr;
  size_t slot_bytes_ = 0;
  std::vector<Slot> slots_;
  std::vector<uint32_t> completed_slots_;
  std::vector<std::shared_ptr<Job>>
      expert_jobs_;  // of the last submit_experts; the next dense job waits for them
  std::deque<std::pair<uint32_t, std::shared_ptr<Job>>> tickets_;
  uint32_t next_ticket_ = 1;
  std::vector<LayerTimes> times_;
  std::vector<double> observations_;
  std::vector<double> op_times_;  // [ranks][kTimedOps]
  std::atomic<bool> tracing_{false};
  std::mutex trace_mutex_;  // guards trace_
  std::vector<TraceEvent> trace_;
};

}  // namespace nearmoe
