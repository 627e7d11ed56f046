// A ComputeDevice whose GPU lane is a GPU: dense work and the experts of the plan go to a backend library
// (gpu_abi.h), the rest runs on the NDP units as ever. The control thread makes all calls of the library; it
// waits for the device once a layer, for the routing, and hands it the units' partial sums as they arrive.
// Loading is in gpu_device_load.cc.
#pragma once

#include "compute_device.h"
#include "gpu_library.h"

namespace nearmoe {

/// The device that `options` ask for, not yet started.
Status make_compute_device(ModelSpec spec, DeviceOptions options, const std::atomic<int32_t>* cancel_flags,
                           uint32_t cancel_slots, std::unique_ptr<ComputeDevice>* device);

/// A packed matrix as the library takes it.
NmGpuMatrix gpu_matrix(const PackedMatrix& matrix);

class GpuDevice final : public ComputeDevice {
 public:
  GpuDevice(ModelSpec spec, DeviceOptions options, const std::atomic<int32_t>* cancel_flags,
            uint32_t cancel_slots, const NmGpuBackend* backend)
      : ComputeDevice(std::move(spec), std::move(options), cancel_flags, cancel_slots), backend_(backend) {}
  ~GpuDevice() override;

  Status finish_load() override;
  Status allocate_kv(uint32_t blocks) override;
  Status allocate_states(uint32_t slots) override;
  Status allocate_expert_slots(uint32_t count, uint32_t* got) override;

  Status begin_step(const int32_t* wire, size_t wire_size, const float* ropes, size_t ropes_size) override;
  Status submit_attention(uint32_t layer, uint32_t* ticket) override;
  Status submit_experts(const int32_t* plan, size_t size, uint32_t* ticket) override;
  Status submit_prefetch(uint32_t layer, uint32_t expert, uint32_t slot) override;
  Status submit_logits(uint32_t candidates, uint32_t* ticket) override;
  Status wait(uint32_t ticket, bool* aborted) override;
  void drain() override;

  Status measure_experts(bool on_gpu, uint32_t tokens, double* us) override;
  Status measure_transfer(double* us) override;
  std::vector<uint32_t> take_completed_slots() override;
  std::vector<TraceEvent> take_trace_events() override;

  Status gpu_graphs(GpuGraphs* graphs) const override;
  size_t kv_bytes() const override;
  size_t state_bytes() const override;
  size_t held_bytes() const override { return store_.expert_bytes() + pinned_bytes_; }

 private:
  struct QueuedPrefetch {
    uint32_t layer, expert, slot;
  };

  /// Ok, or the library's message.
  Status done(NmGpuCode code) const {
    return code == NM_GPU_OK ? Status{} : gpu_status(*backend_->last_error(context_));
  }
  /// All 0 where the library does not say.
  NmGpuMemory memory() const;
  Status create_context();
  Status upload_weights();
  Status upload(Role role, int32_t layer, const PackedMatrix& matrix);
  Status upload(Role role, int32_t layer, const SlicedMatrix& matrix);
  Status upload(Role role, int32_t layer, const std::vector<float>& values);
  Status upload_layer(uint32_t layer);
  Status upload_heads(Role role, int32_t layer, const std::vector<PackedMatrix>& heads);
  Status upload_expert_biases(uint32_t layer);

  /// Takes over a layer's routing and groups its tokens by expert.
  Status take_routing(uint32_t layer);
  /// Starts the units' experts, each unit with a job of its own.
  void start_units(uint32_t layer, std::vector<ExpertTask> tasks);
  /// Hands over the units' partial sums, in order of units.
  Status finish_units();
  bool cancelled() const;
  Status transfer(uint32_t layer, uint32_t expert, uint32_t slot);
  /// Starts queued prefetches, as many as keep the copy stream busy and no more: an on-demand transfer waits
  /// for what was started before it.
  Status start_prefetches();
  void collect_completed();
  void collect_events();

  const NmGpuBackend* backend_;
  NmGpuContext* context_ = nullptr;
  size_t pinned_bytes_ = 0;
  float* unit_partials_ = nullptr;                 // pinned [units][T][H]
  std::vector<std::vector<float>> rank_partials_;  // [unit ranks][T * H] where a unit has several ranks
  std::vector<std::shared_ptr<Job>> unit_jobs_;    // per unit, null where it has nothing to do
  std::shared_ptr<Job> prepare_job_;
  const float* expert_input_ = nullptr;  // pinned [T][stride], of the layer under way
  size_t expert_input_stride_ = 0;
  int64_t routed_layer_ = -1;    // whose routing the next wait takes
  int64_t partials_layer_ = -1;  // whose partial sums are under way
  bool logits_pending_ = false;
  bool aborted_ = false;
  std::deque<QueuedPrefetch> prefetches_;
  std::vector<bool> in_flight_;  // per slot: being filled
  uint32_t num_in_flight_ = 0;
};

}  // namespace nearmoe
