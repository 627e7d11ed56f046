#include "gpu_device.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "clock.h"

namespace nearmoe {
namespace {

/// Prefetches under way at a time: one that is copied and one behind it.
constexpr uint32_t kPrefetchesInFlight = 2;
/// Up to this many tokens the control thread prepares the experts' input itself: waking the units takes
/// longer.
constexpr uint32_t kPreparedByCaller = 4;
constexpr uint32_t kMeasuredExperts = 8;

Status bad(const std::string& what) { return Status::error(Code::InvalidArgument, what); }

}  // namespace

Status GpuDevice::begin_step(const int32_t* wire, size_t wire_size, const float* ropes, size_t ropes_size) {
  if (Status s = check_loaded(true); !s.ok()) return s;
  drain();
  if (Status s = decode_step(wire, wire_size, ropes, ropes_size); !s.ok()) return s;
  for (LayerTimes& times : times_) {
    times.gpu_us[0] = times.gpu_end[0] = times.shared_us[0] = 0;
    std::fill(times.unit_us.begin(), times.unit_us.end(), 0.0);
  }
  forward_->begin_step(&step_);
  aborted_ = logits_pending_ = false;
  routed_layer_ = partials_layer_ = -1;
  std::vector<NmGpuSequence> sequences;
  for (const StepSequence& s : step_.sequences) {
    sequences.push_back({s.count, s.first_position, s.num_blocks, step_.blocks.data() + s.first_block,
                         s.logit_rows, s.state_source, s.state_target});
  }
  std::vector<const float*> cos, sin;
  for (size_t r = 0; r < step_.cos.size(); ++r) {
    cos.push_back(step_.cos[r].data());
    sin.push_back(step_.sin[r].data());
  }
  const NmGpuStep step{static_cast<uint32_t>(sequences.size()),
                       sequences.data(),
                       step_.tokens,
                       step_.token_ids.data(),
                       cos.data(),
                       sin.data()};
  return done(backend_->begin_step(context_, &step));
}

bool GpuDevice::cancelled() const {
  return std::any_of(step_.sequences.begin(), step_.sequences.end(), [this](const StepSequence& sequence) {
    // Partner: the main thread's Atomics.store on the shared flag.
    return cancel_flags_[sequence.cancel_slot].load(std::memory_order_acquire) != 0;
  });
}

Status GpuDevice::submit_attention(uint32_t layer, uint32_t* ticket) {
  if (Status s = check_loaded(true); !s.ok()) return s;
  if (layer >= spec_.layers.size() || step_.tokens == 0) return bad("no such layer, or no step begun");
  if (Status s = finish_units(); !s.ok()) return s;
  *ticket = next_ticket_++;
  aborted_ = aborted_ || cancelled();
  if (aborted_) return {};
  if (Status s = done(backend_->run_attention(context_, layer)); !s.ok()) return s;
  if (spec_.layers[layer].ffn.is_moe) routed_layer_ = layer;
  return {};
}

Status GpuDevice::submit_logits(uint32_t /*candidates*/, uint32_t* ticket) {
  if (Status s = check_loaded(true); !s.ok()) return s;
  if (step_.tokens == 0) return bad("no step begun");
  if (Status s = finish_units(); !s.ok()) return s;
  *ticket = next_ticket_++;
  if (aborted_) return {};
  logits_pending_ = true;
  return done(backend_->run_logits(context_));
}

Status GpuDevice::wait(uint32_t ticket, bool* aborted) {
  *aborted = aborted_;
  if (ticket + 1 != next_ticket_ || aborted_) return {};
  if (routed_layer_ >= 0) return take_routing(static_cast<uint32_t>(std::exchange(routed_layer_, -1)));
  if (!std::exchange(logits_pending_, false)) return {};
  NmGpuLogits logits{};
  if (Status s = done(backend_->wait_logits(context_, &logits)); !s.ok()) return s;
  std::copy_n(logits.logits, size_t{logits.rows} * logits.vocab_size, buffers_.logits);
  return {};
}

Status GpuDevice::take_routing(uint32_t layer) {
  NmGpuRouting routing{};
  if (Status s = done(backend_->wait_routing(context_, layer, &routing)); !s.ok()) return s;
  const FfnSpec& ffn = spec_.layers[layer].ffn;
  const size_t pairs = size_t{routing.tokens} * routing.top_k;
  for (size_t i = 0; i < pairs; ++i) {
    // The only device result that is used as an index.
    if (routing.topk_ids[i] < 0 || static_cast<uint32_t>(routing.topk_ids[i]) >= ffn.num_experts)
      return Status::error(Code::Gpu, "the GPU's router chose expert " + std::to_string(routing.topk_ids[i]) +
                                          " of " + std::to_string(ffn.num_experts));
  }
  const size_t at = size_t{layer} * buffers_.max_tokens * std::max(spec_.max_top_k(), 1U);
  std::copy_n(routing.topk_ids, pairs, buffers_.topk_ids + at);
  std::copy_n(routing.topk_weights, pairs, buffers_.topk_weights + at);
  buffers_.groups.build(buffers_.topk_ids + at, buffers_.topk_weights + at, routing.tokens, routing.top_k,
                        ffn.num_experts);
  expert_input_ = routing.hidden;
  expert_input_stride_ = routing.hidden_stride;
  return {};
}

void GpuDevice::start_units(uint32_t layer, std::vector<ExpertTask> tasks) {
  const Topology& topology = options_.topology;
  const uint32_t threads = topology.threads_per_unit;
  const float* input = expert_input_;
  const size_t stride = expert_input_stride_;
  if (step_.tokens <= kPreparedByCaller) {
    prepare_job_ = nullptr;
    forward_->prepare_expert_input(layer, input, stride, {0, step_.tokens});
  } else {
    auto body = [this, layer, input, stride, threads](uint32_t lane, uint32_t rank) {
      const Range mine = split(step_.tokens, options_.topology.unit_ranks(), 1)[lane * threads + rank];
      forward_->prepare_expert_input(layer, input, stride, mine);
    };
    prepare_job_ = std::make_shared<FunctionJob>(topology.unit_ranks(), std::move(body));
    for (auto& lane : unit_lanes_) lane->submit(prepare_job_);
  }
  const auto shared_tasks = std::make_shared<const std::vector<ExpertTask>>(std::move(tasks));
  LayerTimes& times = times_[layer];
  const size_t partial_size = size_t{step_.tokens} * spec_.hidden_size;
  const size_t partial_stride = size_t{options_.max_step_tokens} * spec_.hidden_size;
  for (uint32_t unit = 0; unit < topology.units; ++unit) {
    const auto group = static_cast<uint32_t>(unit / topology.tp_degree);
    const bool busy = std::any_of(shared_tasks->begin(), shared_tasks->end(), [&](const ExpertTask& task) {
      return topology.group_of(task.expert) == group;
    });
    if (!busy) continue;
    float* sum = unit_partials_ + unit * partial_stride;
    const auto left = std::make_shared<std::atomic<uint32_t>>(threads);
    auto body = [this, layer, sum, left, &times, threads, partial_size, shared_tasks, before = prepare_job_](
                    uint32_t lane, uint32_t rank) {
      if (before != nullptr) before->wait(spins_);
      const double start = now_us();
      const uint32_t first = lane * threads;
      forward_->run_unit_partial(first + rank, layer, *shared_tasks,
                                 threads == 1 ? sum : rank_partials_[first + rank].data());
      // The last rank adds up, in order of ranks, so that the sum does not depend on who is last.
      if (left->fetch_sub(1, std::memory_order_acq_rel) == 1 && threads > 1) {
        std::copy_n(rank_partials_[first].data(), partial_size, sum);
        for (uint32_t r = 1; r < threads; ++r) ops_->add(rank_partials_[first + r].data(), sum, partial_size);
      }
      const double end = now_us();
      times.unit_us[first + rank] = end - start;
      times.unit_end[first + rank] = end;
      if (rank == 0) trace(lane, TraceEvent::Kind::Experts, static_cast<int32_t>(layer), start, end);
    };
    unit_jobs_[unit] = std::make_shared<FunctionJob>(threads, std::move(body));
    unit_lanes_[unit]->submit(unit_jobs_[unit]);
  }
}

Status GpuDevice::finish_units() {
  if (partials_layer_ < 0) return {};
  const auto layer = static_cast<uint32_t>(std::exchange(partials_layer_, -1));
  const size_t stride = size_t{options_.max_step_tokens} * spec_.hidden_size;
  Status status;
  for (uint32_t unit = 0; unit < unit_jobs_.size(); ++unit) {
    if (unit_jobs_[unit] == nullptr) continue;
    unit_jobs_[unit]->wait(spins_);
    unit_jobs_[unit] = nullptr;
    // Every job is waited for, whatever the library says: the next step writes the same buffers.
    if (status.ok()) status = done(backend_->add_partial(context_, layer, unit_partials_ + unit * stride));
  }
  return status;
}

Status GpuDevice::submit_experts(const int32_t* plan, size_t size, uint32_t* ticket) {
  if (Status s = check_loaded(true); !s.ok()) return s;
  if (slots_.empty()) return bad("expert slots are not allocated yet");
  std::vector<ExpertTask> units;
  std::vector<GpuTask> gpu;
  if (Status s = decode_plan(plan, size, units, gpu); !s.ok()) return s;
  const auto layer = static_cast<uint32_t>(plan[0]);
  *ticket = next_ticket_++;
  times_[layer].submitted_us = now_us();
  partials_layer_ = layer;
  if (!units.empty()) start_units(layer, std::move(units));
  for (GpuTask& task : gpu) {
    const auto waiting = std::find_if(prefetches_.begin(), prefetches_.end(),
                                      [&](const QueuedPrefetch& queued) { return queued.slot == task.slot; });
    const bool queued = waiting != prefetches_.end();
    if (queued) prefetches_.erase(waiting);
    task.needs_transfer = task.needs_transfer || queued;
    if (task.needs_transfer) {
      if (Status s = transfer(layer, task.expert, task.slot); !s.ok()) return s;
    }
    task.needs_transfer = in_flight_[task.slot];
  }
  order_for_gpu(gpu);
  std::vector<int32_t> experts, slots;
  uint32_t resident = 0;
  for (const GpuTask& task : gpu) {
    experts.push_back(static_cast<int32_t>(task.expert));
    slots.push_back(static_cast<int32_t>(task.slot));
    resident += task.needs_transfer ? 0 : 1;
  }
  const NmGpuExperts work{layer, static_cast<uint32_t>(gpu.size()), resident, experts.data(), slots.data()};
  return done(backend_->submit_experts(context_, &work));
}

Status GpuDevice::transfer(uint32_t layer, uint32_t expert, uint32_t slot) {
  if (Status s = check_transfer(layer, expert, slot); !s.ok()) return s;
  const GatedFfn& source = store_.weights().layers[layer].experts[expert];
  std::vector<NmGpuExpertSlice> slices;
  for (size_t i = 0; i < source.gate.slices.size(); ++i) {
    if (source.gate.slices[i].rows == 0) continue;
    slices.push_back({gpu_matrix(source.gate.slices[i]), gpu_matrix(source.up.slices[i]),
                      gpu_matrix(source.down.slices[i])});
  }
  const NmGpuExpert described{layer, expert, static_cast<uint32_t>(slices.size()), slices.data()};
  if (Status s = done(backend_->transfer(context_, slot, &described)); !s.ok()) return s;
  slots_[slot].layer = layer;
  slots_[slot].expert = expert;
  if (!in_flight_[slot]) ++num_in_flight_;
  in_flight_[slot] = true;
  return {};
}

Status GpuDevice::submit_prefetch(uint32_t layer, uint32_t expert, uint32_t slot) {
  if (Status s = check_loaded(true); !s.ok()) return s;
  if (Status s = check_transfer(layer, expert, slot); !s.ok()) return s;
  std::erase_if(prefetches_, [&](const QueuedPrefetch& queued) { return queued.slot == slot; });
  prefetches_.push_back({layer, expert, slot});
  slots_[slot].layer = layer;
  slots_[slot].expert = expert;
  return start_prefetches();
}

Status GpuDevice::start_prefetches() {
  collect_completed();
  while (!prefetches_.empty() && num_in_flight_ < kPrefetchesInFlight) {
    const QueuedPrefetch next = prefetches_.front();
    prefetches_.pop_front();
    if (Status s = transfer(next.layer, next.expert, next.slot); !s.ok()) return s;
  }
  return {};
}

void GpuDevice::collect_completed() {
  if (context_ == nullptr || slots_.empty()) return;
  std::vector<int32_t> slots(slots_.size());
  uint32_t count = 0;
  // A failure shows again, and is reported, at the next call of a step.
  if (backend_->completed_transfers(context_, slots.data(), static_cast<uint32_t>(slots.size()), &count) !=
      NM_GPU_OK)
    return;
  for (uint32_t i = 0; i < count; ++i) {
    const auto slot = static_cast<uint32_t>(slots[i]);
    if (in_flight_[slot]) --num_in_flight_;
    in_flight_[slot] = false;
    completed_slots_.push_back(slot);
  }
}

std::vector<uint32_t> GpuDevice::take_completed_slots() {
  (void)start_prefetches();  // a failure shows again at the next call of the step
  return std::exchange(completed_slots_, {});
}

void GpuDevice::collect_events() {
  if (context_ == nullptr) return;
  static constexpr TraceEvent::Kind kKinds[] = {TraceEvent::Kind::Attention, TraceEvent::Kind::Experts,
                                                TraceEvent::Kind::Transfer, TraceEvent::Kind::Logits,
                                                TraceEvent::Kind::Experts};
  NmGpuEvent events[64];
  uint32_t count = 0;
  do {
    if (backend_->take_events(context_, events, 64, &count) != NM_GPU_OK) return;
    for (uint32_t i = 0; i < count; ++i) {
      const NmGpuEvent& event = events[i];
      const double us = event.end_us - event.start_us;
      const uint32_t lane = options_.topology.units + (event.lane == NM_GPU_LANE_COPY ? 1 : 0);
      trace(lane, kKinds[event.kind], event.layer, event.start_us, event.end_us);
      if (event.layer < 0) continue;
      LayerTimes& times = times_[static_cast<size_t>(event.layer)];
      if (event.kind == NM_GPU_EVENT_ATTENTION) times.attention_us = us;
      if (event.kind == NM_GPU_EVENT_SHARED_EXPERT) times.shared_us[0] += us;
      if (event.kind == NM_GPU_EVENT_EXPERTS) times.gpu_us[0] += us;
      if (event.kind == NM_GPU_EVENT_EXPERTS || event.kind == NM_GPU_EVENT_SHARED_EXPERT)
        times.gpu_end[0] = std::max(times.gpu_end[0], event.end_us);
      if (event.kind == NM_GPU_EVENT_TRANSFER) {
        times.transfer_us += us;
        times.transfer_bytes += static_cast<double>(event.bytes);
      }
    }
  } while (count == 64);
}

Status GpuDevice::gpu_graphs(GpuGraphs* graphs) const {
  NmGpuGraphs found{};
  if (Status s = done(backend_->graphs(context_, &found)); !s.ok()) return s;
  *graphs = {found.replays, found.held, found.off};
  return {};
}

void GpuDevice::drain() {
  for (auto& job : unit_jobs_) {
    if (job != nullptr) job->wait(spins_);
    job = nullptr;
  }
  if (prepare_job_ != nullptr) prepare_job_->wait(spins_);
  prepare_job_ = nullptr;
  for (auto& [number, job] : tickets_) job->wait(spins_);  // measurements
  tickets_.clear();
  partials_layer_ = -1;
  collect_events();
  collect_observations();
}

std::vector<TraceEvent> GpuDevice::take_trace_events() {
  collect_events();
  const std::lock_guard lock(trace_mutex_);
  return std::exchange(trace_, {});
}

Status GpuDevice::measure_experts(bool on_gpu, uint32_t tokens, double* us) {
  if (!on_gpu) return ComputeDevice::measure_experts(false, tokens, us);
  const uint32_t layer = first_moe_layer();
  if (layer == spec_.layers.size()) return bad("no MoE layer to measure");
  if (Status s = check_loaded(true); !s.ok()) return s;
  if (slots_.empty() || tokens == 0 || tokens > options_.max_step_tokens)
    return bad("measureExperts: expert slots are missing, or the token count is out of range");
  drain();
  const FfnSpec& ffn = spec_.layers[layer].ffn;
  const auto experts =
      static_cast<uint32_t>(std::min<size_t>({kMeasuredExperts, ffn.top_k, ffn.num_experts, slots_.size()}));
  std::vector<int32_t> slots;
  for (uint32_t e = 0; e < experts; ++e) {
    if (Status s = transfer(layer, e, e); !s.ok()) return s;
    slots.push_back(static_cast<int32_t>(e));
  }
  if (Status s = done(backend_->drain_transfers(context_)); !s.ok()) return s;
  collect_completed();
  completed_slots_.clear();
  if (Status s = done(backend_->measure_experts(context_, layer, tokens, slots.data(), experts, us)); !s.ok())
    return s;
  for (uint32_t e = 0; e < experts; ++e) slots_[e] = {};
  collect_events();
  step_ = {};
  return {};
}

Status GpuDevice::measure_transfer(double* us) {
  const uint32_t layer = first_moe_layer();
  if (slots_.empty() || layer == spec_.layers.size()) return bad("nothing to measure: no VRAM slots");
  if (Status s = done(backend_->drain_transfers(context_)); !s.ok()) return s;
  const double start = now_us();
  if (Status s = transfer(layer, 0, 0); !s.ok()) return s;
  if (Status s = done(backend_->drain_transfers(context_)); !s.ok()) return s;
  *us = now_us() - start;
  collect_completed();
  completed_slots_.clear();
  slots_[0] = {};
  return {};
}

}  // namespace nearmoe
