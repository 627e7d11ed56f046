// What a device does in a step: jobs for the lanes, tickets, transfers, observations.
#include <algorithm>
#include <functional>
#include <string>
#include <utility>

#include "clock.h"
#include "compute_device.h"

namespace nearmoe {
namespace {

Status bad(const std::string& what) { return Status::error(Code::InvalidArgument, what); }

}  // namespace

void ComputeDevice::trace(uint32_t lane, TraceEvent::Kind kind, int32_t layer, double start, double end) {
  if (!tracing_.load(std::memory_order_relaxed)) return;
  const std::lock_guard lock(trace_mutex_);
  trace_.push_back({lane, kind, layer, start, end});
}

uint32_t ComputeDevice::remember(std::shared_ptr<Job> job) {
  while (!tickets_.empty() && tickets_.front().second->done()) tickets_.pop_front();
  tickets_.emplace_back(next_ticket_, std::move(job));
  return next_ticket_++;
}

Status ComputeDevice::check_loaded(bool gpu_lane) const {
  if (forward_ == nullptr || kv_blocks_ == 0) return bad("weights or KV cache are not there yet");
  if (spec_.has_states() && state_slots_ == 0) return bad("states are not there yet");
  if (gpu_lane != options_.topology.gpu_lane) return bad("this call does not fit the device's gpu option");
  return {};
}

uint32_t ComputeDevice::submit_dense(TraceEvent::Kind kind, int32_t layer, RankFunction function) {
  const Topology& topology = options_.topology;
  auto body = [this, kind, layer, function = std::move(function), before = std::exchange(expert_jobs_, {})](
                  uint32_t lane, uint32_t rank) {
    for (const auto& job : before) job->wait(spins_);
    const double start = now_us();
    function(options_.topology.gpu_lane ? rank : lane * options_.topology.threads_per_unit + rank);
    const double end = now_us();
    if (rank == 0) trace(lane, kind, layer, start, end);
    if (rank == 0 && kind == TraceEvent::Kind::Attention)
      times_[static_cast<size_t>(layer)].attention_us = end - start;
  };
  const auto job = std::make_shared<FunctionJob>(topology.dense_ranks, std::move(body));
  if (topology.gpu_lane) {
    gpu_lane_->submit(job);
  } else {
    for (auto& lane : unit_lanes_) lane->submit(job);
  }
  return remember(job);
}

uint32_t ComputeDevice::submit_units(TraceEvent::Kind kind, int32_t layer, RankFunction function) {
  auto body = [this, kind, layer, function = std::move(function)](uint32_t lane, uint32_t rank) {
    const double start = now_us();
    function(lane * options_.topology.threads_per_unit + rank);
    if (rank == 0) trace(lane, kind, layer, start, now_us());
  };
  const auto job = std::make_shared<FunctionJob>(options_.topology.unit_ranks(), std::move(body));
  for (auto& lane : unit_lanes_) lane->submit(job);
  return remember(job);
}

Status ComputeDevice::begin_step(const int32_t* wire, size_t wire_size, const float* ropes,
                                 size_t ropes_size) {
  if (Status s = check_loaded(options_.topology.gpu_lane); !s.ok()) return s;
  drain();
  if (Status s = decode_step(wire, wire_size, ropes, ropes_size); !s.ok()) return s;
  forward_->begin_step(&step_);
  return {};
}

Status ComputeDevice::decode_step(const int32_t* wire, size_t wire_size, const float* ropes,
                                  size_t ropes_size) {
  // A half-read step must never run: decode into a fresh one first.
  Step next;
  if (Status s = next.decode(spec_, wire, wire_size, ropes, ropes_size, options_.max_step_tokens,
                             options_.max_logit_rows, kv_blocks_, cancel_slots_, state_slots_);
      !s.ok()) {
    return s;
  }
  step_ = std::move(next);
  for (LayerTimes& times : times_) times.transfer_us = times.transfer_bytes = times.submitted_us = 0;
  return {};
}

Status ComputeDevice::submit_layers(uint32_t first, uint32_t end, uint32_t* ticket) {
  if (Status s = check_loaded(false); !s.ok()) return s;
  if (first >= end || end > spec_.layers.size() || step_.tokens == 0)
    return bad("no such layers, or no step begun");
  *ticket = submit_dense(TraceEvent::Kind::Layers, -1,
                         [this, first, end](uint32_t rank) { forward_->run_layers(rank, first, end); });
  return {};
}

Status ComputeDevice::submit_attention(uint32_t layer, uint32_t* ticket) {
  if (Status s = check_loaded(true); !s.ok()) return s;
  if (layer >= spec_.layers.size() || step_.tokens == 0) return bad("no such layer, or no step begun");
  *ticket = submit_dense(TraceEvent::Kind::Attention, static_cast<int32_t>(layer),
                         [this, layer](uint32_t rank) { forward_->run_attention_and_router(rank, layer); });
  return {};
}

Status ComputeDevice::submit_logits(uint32_t candidates, uint32_t* ticket) {
  if (Status s = check_loaded(options_.topology.gpu_lane); !s.ok()) return s;
  if (step_.tokens == 0) return bad("no step begun");
  if (candidates > kMaxCandidates) return bad("more candidates than a row has room for");
  *ticket = submit_dense(TraceEvent::Kind::Logits, -1,
                         [this, candidates](uint32_t rank) { forward_->run_logits(rank, candidates); });
  return {};
}

Status ComputeDevice::check_transfer(uint32_t layer, uint32_t expert, uint32_t slot) const {
  if (slot >= slots_.size()) return bad("no VRAM slot " + std::to_string(slot));
  if (layer >= spec_.layers.size() || expert >= spec_.layers[layer].ffn.num_experts)
    return bad("no such expert");
  return {};
}

Status ComputeDevice::queue_transfer(uint32_t layer, uint32_t expert, uint32_t slot, bool on_demand) {
  if (Status s = check_transfer(layer, expert, slot); !s.ok()) return s;
  TransferRequest request;
  request.layer = layer;
  request.expert = expert;
  request.slot = slot;
  request.source = &store_.weights().layers[layer].experts[expert];
  request.target = slot_base_ + slot * slot_bytes_;
  request.last_reader = slots_[slot].last_reader;
  slots_[slot].layer = layer;
  slots_[slot].expert = expert;
  slots_[slot].transfer_id = transfers_->submit(std::move(request), on_demand);
  return {};
}

Status ComputeDevice::submit_prefetch(uint32_t layer, uint32_t expert, uint32_t slot) {
  if (Status s = check_loaded(true); !s.ok()) return s;
  return queue_transfer(layer, expert, slot, false);
}

Status ComputeDevice::decode_plan(const int32_t* plan, size_t size, std::vector<ExpertTask>& units,
                                  std::vector<GpuTask>& gpu) {
  if (size < 2 || plan[0] < 0 || static_cast<size_t>(plan[0]) >= spec_.layers.size())
    return bad("plan: no such layer");
  const auto layer = static_cast<uint32_t>(plan[0]);
  const FfnSpec& ffn = spec_.layers[layer].ffn;
  const auto count = static_cast<size_t>(std::max(plan[1], 0));
  if (!ffn.is_moe || size < 2 + count * kPlanColumns) return bad("plan: too short, or not a MoE layer");
  const std::vector<uint32_t>& offsets = buffers_.groups.offsets;
  size_t active = 0;
  for (uint32_t e = 0; e < ffn.num_experts; ++e) active += offsets[e + 1] > offsets[e] ? 1 : 0;
  if (active != count)
    return bad("plan: " + std::to_string(count) + " experts, but the router chose " + std::to_string(active));
  int32_t previous = -1;
  const int32_t* row = plan + 2;
  for (size_t i = 0; i < count; ++i, row += kPlanColumns) {
    const int32_t expert = row[0];
    if (expert <= previous || static_cast<uint32_t>(expert) >= ffn.num_experts)
      return bad("plan: experts must ascend");
    previous = expert;
    const auto e = static_cast<uint32_t>(expert);
    if (offsets[e + 1] == offsets[e])
      return bad("plan: expert " + std::to_string(e) + " was not chosen by the router");
    if (row[1] >= 0) {
      if (static_cast<uint32_t>(row[1]) != options_.topology.group_of(e)) return bad("plan: wrong NDP group");
      units.push_back({e, nullptr});
      continue;
    }
    if (row[2] < 0 || static_cast<size_t>(row[2]) >= slots_.size())
      return bad("plan: GPU expert without a VRAM slot");
    const auto slot = static_cast<uint32_t>(row[2]);
    if (row[3] == 0 && (slots_[slot].layer != layer || slots_[slot].expert != expert)) {
      return bad("plan: slot " + std::to_string(slot) + " does not hold expert " + std::to_string(e));
    }
    gpu.push_back({e, slot, offsets[e + 1] - offsets[e], row[3] != 0, 0});
  }
  return {};
}

void ComputeDevice::order_for_gpu(std::vector<GpuTask>& gpu) {
  std::stable_sort(gpu.begin(), gpu.end(), [](const GpuTask& a, const GpuTask& b) {
    return a.needs_transfer != b.needs_transfer ? !a.needs_transfer : a.needs_transfer && a.tokens > b.tokens;
  });
}

Status ComputeDevice::submit_experts(const int32_t* plan, size_t size, uint32_t* ticket) {
  if (Status s = check_loaded(true); !s.ok()) return s;
  if (transfers_ == nullptr) return bad("expert slots are not allocated yet");
  std::vector<ExpertTask> units;
  std::vector<GpuTask> gpu;
  if (Status s = decode_plan(plan, size, units, gpu); !s.ok()) return s;
  const auto layer = static_cast<uint32_t>(plan[0]);
  order_for_gpu(gpu);
  for (const GpuTask& task : gpu) {
    if (!task.needs_transfer) continue;
    if (Status s = queue_transfer(layer, task.expert, task.slot, true); !s.ok()) return s;
  }
  for (GpuTask& task : gpu) task.transfer_id = slots_[task.slot].transfer_id;
  LayerTimes& times = times_[layer];
  times.submitted_us = now_us();
  const Topology& topology = options_.topology;

  auto unit_body = [this, layer, &times, units = std::move(units), threads = topology.threads_per_unit](
                       uint32_t lane, uint32_t rank) {
    const double start = now_us();
    forward_->run_unit_experts(lane * threads + rank, layer, units);
    const double end = now_us();
    times.unit_us[lane * threads + rank] = end - start;
    times.unit_end[lane * threads + rank] = end;
    if (rank == 0) trace(lane, TraceEvent::Kind::Experts, static_cast<int32_t>(layer), start, end);
  };
  auto gpu_body = [this, layer, &times, gpu](uint32_t lane, uint32_t rank) {
    double start = now_us();
    forward_->run_shared_expert(rank, layer);
    times.shared_us[rank] = now_us() - start;
    double busy = 0;
    for (const GpuTask& task : gpu) {
      transfers_->wait_for(task.slot, task.transfer_id);
      start = now_us();
      forward_->run_gpu_experts(rank, layer, {{task.expert, slot_base_ + task.slot * slot_bytes_}});
      busy += now_us() - start;
      if (rank == 0) trace(lane, TraceEvent::Kind::Experts, static_cast<int32_t>(layer), start, now_us());
    }
    times.gpu_us[rank] = busy;
    times.gpu_end[rank] = now_us();
  };
  const auto unit_job = std::make_shared<FunctionJob>(topology.unit_ranks(), std::move(unit_body));
  const auto gpu_job = std::make_shared<FunctionJob>(topology.dense_ranks, std::move(gpu_body));
  for (auto& lane : unit_lanes_) lane->submit(unit_job);
  gpu_lane_->submit(gpu_job);
  for (const GpuTask& task : gpu) slots_[task.slot].last_reader = gpu_job;
  expert_jobs_ = {unit_job, gpu_job};
  remember(unit_job);
  *ticket = remember(gpu_job);
  return {};
}

Status ComputeDevice::wait(uint32_t ticket, bool* aborted) {
  for (auto& [number, job] : tickets_) {
    if (number != ticket) continue;
    const std::shared_ptr<Job> keep = job;
    (gpu_lane_ != nullptr ? *gpu_lane_ : *unit_lanes_[0]).work_until(*keep);
    keep->wait(spins_);
    break;
  }
  *aborted = forward_ != nullptr && forward_->aborted();
  return {};
}

void ComputeDevice::drain() {
  for (auto& [number, job] : tickets_) {
    (gpu_lane_ != nullptr ? *gpu_lane_ : *unit_lanes_[0]).work_until(*job);
    job->wait(spins_);
  }
  tickets_.clear();
  expert_jobs_.clear();
  collect_observations();
}

void ComputeDevice::collect_transfers() {
  if (transfers_ == nullptr) return;
  std::vector<TransferRecord> records;
  transfers_->take_completed(records);
  for (const TransferRecord& record : records) {
    times_[record.layer].transfer_us += record.end_us - record.start_us;
    times_[record.layer].transfer_bytes += static_cast<double>(record.bytes);
    completed_slots_.push_back(record.slot);
    trace(options_.topology.units + 1, TraceEvent::Kind::Transfer, static_cast<int32_t>(record.layer),
          record.start_us, record.end_us);
  }
}

std::vector<uint32_t> ComputeDevice::take_completed_slots() {
  collect_transfers();
  return std::exchange(completed_slots_, {});
}

std::vector<TraceEvent> ComputeDevice::take_trace_events() {
  collect_transfers();
  const std::lock_guard lock(trace_mutex_);
  return std::exchange(trace_, {});
}

void ComputeDevice::collect_op_times() {
  auto out = op_times_.begin();
  for (const auto* ranks : {&buffers_.unit_scratch, &buffers_.dense_scratch}) {
    for (const RankScratch& scratch : *ranks) {
      out = std::copy(scratch.clock.us().begin(), scratch.clock.us().end(), out);
    }
  }
}

void ComputeDevice::collect_observations() {
  collect_transfers();
  collect_op_times();
  const Topology& topology = options_.topology;
  for (size_t layer = 0; layer < times_.size(); ++layer) {
    const LayerTimes& times = times_[layer];
    double* out = observations_.data() + layer * observation_columns();
    double end = times.submitted_us;
    for (const double unit_end : times.unit_end) end = std::max(end, unit_end);
    for (const double gpu_end : times.gpu_end) end = std::max(end, gpu_end);
    out[0] = times.attention_us;
    out[1] = *std::max_element(times.gpu_us.begin(), times.gpu_us.end());
    out[2] = times.transfer_us;
    out[3] = times.transfer_bytes;
    out[4] = times.submitted_us > 0 ? end - times.submitted_us : 0;
    out[5] = *std::max_element(times.shared_us.begin(), times.shared_us.end());
    for (uint32_t unit = 0; unit < topology.units; ++unit) {
      double busy = 0;
      for (uint32_t i = 0; i < topology.threads_per_unit; ++i) {
        const size_t rank = size_t{unit} * topology.threads_per_unit + i;
        busy = std::max(busy, topology.gpu_lane     ? times.unit_us[rank]
                              : forward_ != nullptr ? forward_->ffn_us()[layer * topology.unit_ranks() + rank]
                                                    : 0);
      }
      out[kObservationHead + unit] = busy;
    }
  }
}

}  // namespace nearmoe
