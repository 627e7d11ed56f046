#include "slots.h"

#include <atomic>
#include <cstring>

namespace nearmoe::gpu {

/// One piece that the driver's thread copies into pinned memory when its turn comes.
struct Slots::StageJob {
  uint8_t* to;
  const void* from;
  size_t bytes;
  std::atomic<bool> done{false};

  static void run(void* argument) {
    auto* job = static_cast<StageJob*>(argument);
    std::memcpy(job->to, job->from, job->bytes);
    job->done.store(true, std::memory_order_release);  // partner: copy_staged, which frees finished jobs
  }
};

namespace {

constexpr size_t kChunks = 4;
constexpr uint64_t kDefaultStagingBytes = 16 << 20;

}  // namespace

Slots::Slots(Failure& failure, Memory& memory, const Model& model, Timeline& timeline)
    : failure_(failure), memory_(memory), model_(model), timeline_(timeline), used_(model.num_layers()) {}

Slots::~Slots() {
  if (copy_stream_) (void)cudaStreamSynchronize(copy_stream_);
  for (const auto& [start, range] : registered_) (void)cudaHostUnregister(const_cast<uint8_t*>(start));
  for (Slot& slot : slots_) {
    if (slot.ready) (void)cudaEventDestroy(slot.ready);
  }
  for (cudaEvent_t event : used_) {
    if (event) (void)cudaEventDestroy(event);
  }
  for (Chunk& chunk : ring_) {
    if (chunk.staged) (void)cudaEventDestroy(chunk.staged);
    if (chunk.free) (void)cudaEventDestroy(chunk.free);
  }
  if (staging_stream_) (void)cudaStreamDestroy(staging_stream_);
  if (copy_stream_) (void)cudaStreamDestroy(copy_stream_);
}

NmGpuCode Slots::new_event(cudaEvent_t* event) {
  return failure_.check(cudaEventCreateWithFlags(event, cudaEventDisableTiming), "cudaEventCreate");
}

NmGpuCode Slots::start(bool unified_memory, uint64_t staging_bytes) {
  unified_ = unified_memory;
  int least = 0, greatest = 0;
  GPU_TRY(failure_.check(cudaDeviceGetStreamPriorityRange(&least, &greatest),
                         "cudaDeviceGetStreamPriorityRange"));
  GPU_TRY(failure_.check(cudaStreamCreateWithPriority(&copy_stream_, cudaStreamNonBlocking, least),
                         "cudaStreamCreate"));
  GPU_TRY(failure_.check(cudaStreamCreateWithPriority(&staging_stream_, cudaStreamNonBlocking, least),
                         "cudaStreamCreate"));
  for (cudaEvent_t& event : used_) GPU_TRY(new_event(&event));
  chunk_bytes_ = (staging_bytes ? staging_bytes : kDefaultStagingBytes) / kChunks;
  if (chunk_bytes_ == 0)
    return failure_.fail(NM_GPU_INVALID_ARGUMENT, "create", "expected staging_bytes of at least 4");
  ring_.resize(kChunks);
  for (Chunk& chunk : ring_) {
    GPU_TRY(memory_.allocate_pinned(chunk_bytes_, "staging ring", &chunk.data));
    GPU_TRY(new_event(&chunk.staged));
    GPU_TRY(new_event(&chunk.free));
  }
  return NM_GPU_OK;
}

NmGpuCode Slots::allocate(uint32_t wanted, uint64_t slot_bytes, uint32_t* got) {
  *got = 0;
  if (!slots_.empty())
    return failure_.fail(NM_GPU_WRONG_ORDER, "allocate_slots", "the slots were allocated already");
  slot_bytes_ = (slot_bytes + 255) / 256 * 256;
  // A handed-over expert needs no memory of its own, only its view.
  const uint64_t each = unified_ ? 16 : slot_bytes_;
  uint32_t count = wanted;
  for (; count > 0; count = count * 7 / 8) {
    const NmGpuCode code = memory_.allocate(Purpose::Slots, count * each, "expert slots", &base_);
    if (code == NM_GPU_OK) break;
    if (code != NM_GPU_OUT_OF_MEMORY) return code;
  }
  if (count == 0) return NM_GPU_OK;
  GPU_TRY(memory_.allocate(Purpose::Slots, count, "views of the expert slots", &views_));
  GPU_TRY(memory_.allocate_pinned(count, "views of the expert slots", &host_views_));
  slots_.resize(count);
  for (Slot& slot : slots_) GPU_TRY(new_event(&slot.ready));
  *got = count;
  return NM_GPU_OK;
}

NmGpuCode Slots::register_host(const void* data, uint64_t bytes) {
  auto* start = static_cast<uint8_t*>(const_cast<void*>(data));
  const cudaError_t error = cudaHostRegister(start, bytes, cudaHostRegisterMapped);
  if (error == cudaErrorMemoryAllocation || error == cudaErrorInvalidValue ||
      error == cudaErrorNotSupported || error == cudaErrorHostMemoryAlreadyRegistered) {
    (void)cudaGetLastError();
    return failure_.fail(NM_GPU_UNSUPPORTED, "register_host",
                         std::to_string(bytes) + " bytes cannot be page-locked (" +
                             cudaGetErrorString(error) +
                             "); transfers from there go through the staging ring");
  }
  GPU_TRY(failure_.check(error, "cudaHostRegister"));
  uint8_t* device = nullptr;
  GPU_TRY(failure_.check(cudaHostGetDevicePointer(&device, start, 0), "cudaHostGetDevicePointer"));
  registered_[start] = {bytes, device};
  return NM_GPU_OK;
}

bool Slots::is_registered(const void* data, size_t bytes, const uint8_t** device) const {
  const auto* start = static_cast<const uint8_t*>(data);
  auto it = registered_.upper_bound(start);
  if (it == registered_.begin()) return false;
  --it;
  if (start + bytes > it->first + it->second.first) return false;
  *device = it->second.second + (start - it->first);
  return true;
}

NmGpuCode Slots::copy_staged(uint8_t* to, const void* from, size_t bytes) {
  while (!jobs_.empty() && jobs_.front()->done.load(std::memory_order_acquire)) jobs_.pop_front();
  for (size_t at = 0; at < bytes; at += chunk_bytes_) {
    Chunk& chunk = ring_[next_chunk_++ % ring_.size()];
    const size_t n = bytes - at < chunk_bytes_ ? bytes - at : chunk_bytes_;
    jobs_.push_back(std::make_unique<StageJob>());
    StageJob& job = *jobs_.back();
    job.to = chunk.data;
    job.from = static_cast<const uint8_t*>(from) + at;
    job.bytes = n;
    GPU_TRY(failure_.check(cudaStreamWaitEvent(staging_stream_, chunk.free, 0), "cudaStreamWaitEvent"));
    GPU_TRY(failure_.check(cudaLaunchHostFunc(staging_stream_, StageJob::run, &job), "cudaLaunchHostFunc"));
    GPU_TRY(failure_.check(cudaEventRecord(chunk.staged, staging_stream_), "cudaEventRecord"));
    GPU_TRY(failure_.check(cudaStreamWaitEvent(copy_stream_, chunk.staged, 0), "cudaStreamWaitEvent"));
    GPU_TRY(failure_.check(cudaMemcpyAsync(to + at, chunk.data, n, cudaMemcpyHostToDevice, copy_stream_),
                           "cudaMemcpyAsync"));
    GPU_TRY(failure_.check(cudaEventRecord(chunk.free, copy_stream_), "cudaEventRecord"));
  }
  return NM_GPU_OK;
}

NmGpuCode Slots::copy(uint8_t* to, const void* from, size_t bytes) {
  const uint8_t* device = nullptr;
  if (!is_registered(from, bytes, &device)) return copy_staged(to, from, bytes);
  return failure_.check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, copy_stream_),
                        "cudaMemcpyAsync");
}

/// Brings a matrix to `target`, or finds it where it is.
NmGpuCode Slots::place(const NmGpuMatrix& matrix, uint8_t* target, const uint8_t** where) {
  if (!unified_) {
    *where = target;
    return copy(target, matrix.data, matrix.size_bytes);
  }
  if (is_registered(matrix.data, matrix.size_bytes, where)) return NM_GPU_OK;
  return failure_.fail(NM_GPU_UNSUPPORTED, "transfer",
                       "with unified memory the experts' memory must be registered");
}

NmGpuCode Slots::transfer(uint32_t index, const NmGpuExpert& expert) {
  if (index >= slots_.size()) {
    return failure_.fail(
        NM_GPU_INVALID_ARGUMENT, "transfer",
        "expected a slot below " + std::to_string(slots_.size()) + ", got " + std::to_string(index));
  }
  uint64_t bytes = 0;
  GPU_TRY(check(expert, &bytes));
  Slot& slot = slots_[index];
  // The pinned view of an earlier transfer into this slot may still be on its way.
  GPU_TRY(failure_.check(cudaEventSynchronize(slot.ready), "cudaEventSynchronize"));
  slot.layer = slot.expert = -1;
  if (slot.last_use)
    GPU_TRY(failure_.check(cudaStreamWaitEvent(copy_stream_, slot.last_use, 0), "cudaStreamWaitEvent"));
  GPU_TRY(timeline_.begin(NM_GPU_LANE_COPY, NM_GPU_EVENT_TRANSFER, static_cast<int32_t>(expert.layer),
                          copy_stream_));
  cuda::ExpertView& view = host_views_[index];
  view.num_slices = expert.num_slices;
  view.hidden_cols = 0;
  model_.set_biases(expert.layer, expert.expert, view);
  uint32_t first_row = 0;
  uint8_t* target = unified_ ? nullptr : base_ + index * slot_bytes_;
  for (uint32_t s = 0; s < expert.num_slices; ++s) {
    const NmGpuExpertSlice& slice = expert.slices[s];
    const NmGpuMatrix* matrices[3] = {&slice.gate, &slice.up, &slice.down};
    const uint8_t* where[3] = {};
    for (int m = 0; m < 3; ++m) {
      GPU_TRY(place(*matrices[m], target, &where[m]));
      if (target) target += matrices[m]->size_bytes;
    }
    size_t size = 0;
    const cuda::WeightView down = make_view(static_cast<DType>(slice.down.dtype), slice.down.rows,
                                            slice.down.cols, slice.down.col_begin, &size);
    view.slices[s] =
        make_slice(where[0], where[1], where[2], down, slice.gate.rows, view.hidden_cols, first_row);
    view.hidden_cols += round_up_32(slice.gate.rows);
    first_row += slice.gate.rows;
  }
  const size_t view_bytes =
      offsetof(cuda::ExpertView, slices) + expert.num_slices * sizeof(cuda::ExpertSlice);
  GPU_TRY(
      failure_.check(cudaMemcpyAsync(views_ + index, &view, view_bytes, cudaMemcpyHostToDevice, copy_stream_),
                     "cudaMemcpyAsync"));
  GPU_TRY(timeline_.end(copy_stream_, unified_ ? 0 : bytes));
  GPU_TRY(failure_.check(cudaEventRecord(slot.ready, copy_stream_), "cudaEventRecord"));
  slot.layer = expert.layer;
  slot.expert = expert.expert;
  slot.reported = false;
  return NM_GPU_OK;
}

NmGpuCode Slots::completed(int32_t* out, uint32_t capacity, uint32_t* count) {
  *count = 0;
  for (size_t i = 0; i < slots_.size() && *count < capacity; ++i) {
    if (slots_[i].reported) continue;
    const cudaError_t state = cudaEventQuery(slots_[i].ready);
    if (state == cudaErrorNotReady) continue;
    GPU_TRY(failure_.check(state, "cudaEventQuery"));
    slots_[i].reported = true;
    out[(*count)++] = static_cast<int32_t>(i);
  }
  return NM_GPU_OK;
}

NmGpuCode Slots::wait_for(uint32_t index, uint32_t layer, uint32_t expert, cudaStream_t stream) {
  if (index >= slots_.size() || slots_[index].layer != layer || slots_[index].expert != expert) {
    return failure_.fail(NM_GPU_INVALID_ARGUMENT, "submit_experts",
                         "slot " + std::to_string(index) + " does not hold expert " + std::to_string(expert) +
                             " of layer " + std::to_string(layer));
  }
  return failure_.check(cudaStreamWaitEvent(stream, slots_[index].ready, 0), "cudaStreamWaitEvent");
}

NmGpuCode Slots::used(uint32_t layer, const std::vector<uint32_t>& slots, cudaStream_t stream) {
  GPU_TRY(failure_.check(cudaEventRecord(used_[layer], stream), "cudaEventRecord"));
  for (const uint32_t slot : slots) slots_[slot].last_use = used_[layer];
  return NM_GPU_OK;
}

uint32_t Slots::expert_of(int32_t slot) const {
  const bool there = slot >= 0 && static_cast<size_t>(slot) < slots_.size();
  return there && slots_[static_cast<size_t>(slot)].expert > 0
             ? static_cast<uint32_t>(slots_[static_cast<size_t>(slot)].expert)
             : 0;
}

NmGpuCode Slots::drain() {
  if (!copy_stream_) return NM_GPU_OK;
  return failure_.check(cudaStreamSynchronize(copy_stream_), "cudaStreamSynchronize");
}

}  // namespace nearmoe::gpu
