// Life of a device: lanes, loading, memory. What a step does is in compute_device_step.cc.
#include "compute_device.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "clock.h"
#include "cpu_topology.h"
#include "synthetic_weights.h"

namespace nearmoe {
ComputeDevice::ComputeDevice(ModelSpec spec, DeviceOptions options, const std::atomic<int32_t>* cancel_flags,
                             uint32_t cancel_slots)
    : spec_(std::move(spec)),
      options_(std::move(options)),
      cancel_flags_(cancel_flags),
      cancel_slots_(cancel_slots),
      store_(spec_, options_.topology, options_.slice_cols),
      kv_(spec_, options_.kv_dtype),
      states_(spec_) {}

ComputeDevice::~ComputeDevice() {
  if (gpu_lane_ != nullptr || !unit_lanes_.empty()) drain();
  transfers_.reset();
  gpu_lane_.reset();
  unit_lanes_.clear();
}

Status ComputeDevice::start() {
  const Topology& topology = options_.topology;
  ops_ = select_ops(options_.isa.empty() ? nullptr : options_.isa.c_str());
  if (ops_ == nullptr) {
    return Status::error(Code::InvalidArgument,
                         "instruction set '" + options_.isa + "' cannot run on this machine");
  }
  const CpuTopology cpu = read_cpu_topology();
  const bool host_lane = topology.gpu_lane && options_.gpu_backend.empty();
  const uint32_t threads = topology.unit_ranks() + (host_lane ? topology.dense_ranks + 1 : 0);
  const bool enough_cores = threads <= cpu.allowed_cpus.size();
  // Longer than the skew of a decode barrier and than what the engine does between two steps: waking a
  // sleeping thread can take as long, on a virtual machine longer. Far shorter than a time slice, so that on
  // busy cores a spinning thread makes room for the one it waits for.
  constexpr double kSpinUs = 500;
  spins_ = enough_cores ? spins_in(kSpinUs) : 0;
  const bool pin = options_.pin_threads && enough_cores;
  std::vector<int> nodes;
  for (uint32_t unit = 0; unit < topology.units; ++unit) {
    const size_t first = size_t{unit} * topology.threads_per_unit;
    nodes.push_back(enough_cores && cpu.numa_nodes > 1 ? cpu.node_of[first] : -1);
    LaneOptions lane{unit, topology.threads_per_unit, !topology.gpu_lane && unit == 0, {}, spins_};
    for (uint32_t i = 0; pin && i < topology.threads_per_unit; ++i)
      lane.cpus.push_back(cpu.allowed_cpus[first + i]);
    unit_lanes_.push_back(std::make_unique<Lane>(std::move(lane)));
  }
  if (host_lane) {
    LaneOptions lane{topology.units, topology.dense_ranks, true, {}, spins_};
    for (uint32_t i = 0; pin && i < topology.dense_ranks; ++i) {
      lane.cpus.push_back(cpu.allowed_cpus[topology.unit_ranks() + i]);
    }
    gpu_lane_ = std::make_unique<Lane>(std::move(lane));
  }
  if (Status s = store_.reserve(nodes, options_.arena_bytes, options_.arena_bytes); !s.ok()) return s;
  times_.resize(spec_.layers.size());
  for (LayerTimes& times : times_) {
    times.unit_us.resize(topology.unit_ranks());
    times.unit_end.resize(topology.unit_ranks());
    times.gpu_us.resize(topology.dense_ranks);
    times.gpu_end.resize(topology.dense_ranks);
    times.shared_us.resize(topology.dense_ranks);
  }
  observations_.resize(spec_.layers.size() * observation_columns());
  return {};
}

Status ComputeDevice::open_file(const std::string& path, uint32_t* index) {
  MappedFile file;
  if (Status s = file.open(path); !s.ok()) return s;
  *index = static_cast<uint32_t>(files_.size());
  files_.push_back(std::move(file));
  return {};
}

Status ComputeDevice::open_synthetic(size_t bytes, uint32_t* index) {
  MappedFile file;
  if (Status s = file.open_anonymous(bytes); !s.ok()) return s;
  *index = static_cast<uint32_t>(files_.size());
  files_.push_back(std::move(file));
  return {};
}

Status ComputeDevice::load_weights(const std::vector<LoadRow>& rows) {
  std::vector<std::vector<PackTask>> tasks(options_.topology.unit_ranks());
  for (size_t i = 0; i < rows.size(); ++i) {
    const LoadRow& row = rows[i];
    if (row.file >= files_.size())
      return Status::error(Code::InvalidArgument, "no such file", static_cast<int64_t>(i));
    const MappedFile& file = files_[row.file];
    const size_t bytes = row.stored_bytes();
    const bool is_vector = row.rows == 1 || row.role == Role::ConvKernel;
    const bool is_read = !store_.filled() || is_vector;
    if (is_read && file.writable() != nullptr && row.offset <= file.size() &&
        bytes <= file.size() - row.offset) {
      fill_synthetic(row.dtype, row.rows == 1, row.offset, file.writable() + row.offset, bytes);
    }
    if (is_read) file.will_need(row.offset, bytes);
    const MappedFile* scales = row.scales_file < files_.size() ? &files_[row.scales_file] : nullptr;
    if (Status s = store_.add(row, file, scales, static_cast<int64_t>(i), tasks); !s.ok()) return s;
  }
  std::atomic<int64_t> bad_row{-1};
  const uint32_t threads = options_.topology.threads_per_unit;
  auto body = [&, threads](uint32_t lane, uint32_t rank) {
    for (const PackTask& task : tasks[lane * threads + rank]) {
      if (bad_row.load(std::memory_order_relaxed) >= 0) return;
      if (!run_pack_task(task)) {
        bad_row.store(task.table_row, std::memory_order_relaxed);
      }
    }
  };
  const auto job = std::make_shared<FunctionJob>(options_.topology.unit_ranks(), body);
  for (auto& lane : unit_lanes_) lane->submit(job);
  if (!options_.topology.gpu_lane) unit_lanes_[0]->work_until(*job);
  job->wait(0);
  for (const LoadRow& row : rows) {
    files_[row.file].release(row.offset, row.stored_bytes());
  }
  if (bad_row.load() >= 0) {
    const LoadRow& row = rows[static_cast<size_t>(bad_row.load())];
    return Status::error(Code::WeightValue, std::string(role_name(row.role)) + " holds NaN or infinity",
                         bad_row.load());
  }
  return {};
}

Status ComputeDevice::finish_load() {
  if (Status s = store_.complete(); !s.ok()) return s;
  files_.clear();
  if (Status s =
          buffers_.allocate(spec_, options_.topology, options_.max_step_tokens, options_.max_logit_rows,
                            options_.lookahead && options_.gpu_backend.empty());
      !s.ok()) {
    return s;
  }
  forward_ = std::make_unique<Forward>(spec_, store_, *ops_, kv_, states_, buffers_, cancel_flags_, spins_);
  slot_bytes_ = store_.slab_bytes();
  op_times_.resize((buffers_.unit_scratch.size() + buffers_.dense_scratch.size()) * kTimedOps);
  return {};
}

Status ComputeDevice::allocate_kv(uint32_t blocks) {
  if (blocks == 0) return Status::error(Code::InvalidArgument, "KV cache of 0 blocks");
  if (kv_blocks_ != 0) return Status::error(Code::InvalidArgument, "the KV cache was allocated before");
  if (!kv_.allocate(blocks)) return Status::error(Code::OutOfMemory, "cannot reserve the KV cache");
  kv_blocks_ = blocks;
  return {};
}

Status ComputeDevice::allocate_states(uint32_t slots) {
  if (slots == 0 || state_slots_ > 0 || !spec_.has_states())
    return Status::error(Code::InvalidArgument,
                         "states need slots, a model that has them, and to be asked for once");
  if (!states_.allocate(slots))
    return Status::error(Code::OutOfMemory, "cannot reserve the states of sequences");
  state_slots_ = slots;
  return {};
}

Status ComputeDevice::allocate_expert_slots(uint32_t count, uint32_t* got) {
  if (!options_.topology.gpu_lane || forward_ == nullptr || transfers_ != nullptr) {
    return Status::error(Code::InvalidArgument,
                         "expert slots need a GPU lane, loaded weights, and to be asked for once");
  }
  slot_arena_ = std::make_unique<Arena>();
  if (!slot_arena_->reserve(std::max<size_t>(count * slot_bytes_, 1), -1)) {
    return Status::error(Code::OutOfMemory, "cannot reserve expert slots");
  }
  slot_base_ = slot_arena_->allocate(count * slot_bytes_);
  if (count > 0 && slot_base_ == nullptr)
    return Status::error(Code::OutOfMemory, "cannot allocate expert slots");
  slots_.resize(count);
  transfers_ = std::make_unique<TransferLane>(options_.transfer_bandwidth_gbs, std::max(count, 1U));
  *got = count;
  return {};
}

size_t ComputeDevice::held_bytes() const {
  return store_.dense_bytes() + store_.expert_bytes() + slots_.size() * slot_bytes_ + kv_.bytes() +
         states_.bytes();
}

}  // namespace nearmoe
