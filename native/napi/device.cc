#include "device.h"

#include <algorithm>
#include <string>
#include <utility>

#include "../runtime/clock.h"
#include "../runtime/gpu_device.h"
#include "args.h"
#include "spec.h"

namespace nearmoe {
namespace {

constexpr uint32_t kMaxThreads = 1024;
constexpr uint32_t kMaxTokens = 1U << 16;
constexpr uint32_t kLoadColumns = 19;

DeviceOptions read_options(const args::Fields& fields) {
  static constexpr const char* kGpu[] = {"off", "host", "cuda", "emulated"};
  static constexpr const char* kKv[] = {"f32", "f16", "bf16", "q8_0"};
  DeviceOptions options;
  Topology& topology = options.topology;
  topology.units = fields.integer("units", 1, kMaxThreads);
  topology.threads_per_unit = fields.integer("threadsPerUnit", 1, kMaxThreads);
  topology.tp_degree = fields.integer("tpDegree", 1, topology.units);
  const uint32_t gpu = fields.choice("gpu", kGpu);
  topology.gpu_lane = gpu != 0;
  topology.dense_ranks = gpu == 0   ? topology.unit_ranks()
                         : gpu == 1 ? fields.integer("gpuThreads", 1, kMaxThreads)
                                    : 1;
  if (gpu > 1) options.gpu_backend = kGpu[gpu];
  options.pin_threads = fields.boolean("pinThreads");
  options.lookahead = fields.boolean("lookahead");
  options.transfer_bandwidth_gbs = fields.number("transferBandwidthGBs", 0, 1e6);
  options.kv_dtype = static_cast<KvDType>(fields.choice("kvDtype", kKv));
  options.max_step_tokens = fields.integer("maxStepTokens", 1, kMaxTokens);
  options.max_logit_rows = fields.integer("maxLogitRows", 1, kMaxTokens);
  options.slice_cols = fields.integer("sliceCols", 1, 1024);
  options.arena_bytes = static_cast<size_t>(fields.number("arenaBytes", 1, 1e15));
  options.isa = fields.text("isa");
  return options;
}

std::vector<LoadRow> read_load_table(Napi::Env env, const Napi::Float64Array& table, size_t count) {
  std::vector<LoadRow> rows;
  if (count * kLoadColumns > table.ElementLength()) {
    args::fail(env, "the load table is shorter than its count");
    return rows;
  }
  auto in_range = [&](double value, double low, double high) {
    if (value >= low && value <= high) return value;
    args::fail(env, "a number of the load table is out of range");
    return low < 0 ? 0 : low;
  };
  for (size_t i = 0; i < count && !env.IsExceptionPending(); ++i) {
    const double* v = table.Data() + i * kLoadColumns;
    LoadRow row{};
    row.role = static_cast<Role>(in_range(v[0], 0, kNumRoles - 1));
    row.layer = static_cast<int32_t>(in_range(v[1], -1, 1e6));
    row.expert = static_cast<int32_t>(in_range(v[2], -1, 1e6));
    row.file = static_cast<uint32_t>(in_range(v[3], 0, 1e6));
    row.offset = static_cast<uint64_t>(in_range(v[4], 0, 9e15));
    row.dtype = static_cast<DType>(in_range(v[5], 0, kNumDTypes - 1));
    row.rows = static_cast<uint32_t>(in_range(v[6], 1, 4e9));
    row.cols = static_cast<uint32_t>(in_range(v[7], 1, 4e9));
    const double quantised = in_range(v[8], -1, kNumDTypes - 1);
    if (quantised >= 0) row.quantised = static_cast<DType>(quantised);
    row.row_stride = static_cast<uint32_t>(in_range(v[9], 1, 1e6));
    row.transposed = in_range(v[10], 0, 1) != 0;
    row.encoding = static_cast<Encoding>(in_range(v[11], 0, kNumEncodings - 1));
    row.first_row = static_cast<uint32_t>(in_range(v[12], 0, 4e9));
    row.tensor_rows = static_cast<uint32_t>(in_range(v[13], 0, 4e9));
    row.scales_file = static_cast<uint32_t>(in_range(v[14], 0, 1e6));
    row.scales_offset = static_cast<uint64_t>(in_range(v[15], 0, 9e15));
    row.source_width = static_cast<uint32_t>(in_range(v[16], 0, 4e9));
    row.row_block = static_cast<uint32_t>(in_range(v[17], 1, 1e6));
    row.transform = static_cast<Transform>(in_range(v[18], 0, kNumTransforms - 1));
    rows.push_back(row);
  }
  return rows;
}

}  // namespace

Napi::Function DeviceObject::define(Napi::Env env) {
  return DefineClass(env, "NativeDevice",
                     {InstanceMethod<&DeviceObject::open_file>("openFile"),
                      InstanceMethod<&DeviceObject::open_synthetic>("openSynthetic"),
                      InstanceMethod<&DeviceObject::load_weights>("loadWeights"),
                      InstanceMethod<&DeviceObject::finish_load>("finishLoad"),
                      InstanceMethod<&DeviceObject::arena_segments>("arenaSegments"),
                      InstanceMethod<&DeviceObject::write_arena>("writeArena"),
                      InstanceMethod<&DeviceObject::map_arenas>("mapArenas"),
                      InstanceMethod<&DeviceObject::allocate_kv>("allocateKv"),
                      InstanceMethod<&DeviceObject::allocate_states>("allocateStates"),
                      InstanceMethod<&DeviceObject::allocate_expert_slots>("allocateExpertSlots"),
                      InstanceMethod<&DeviceObject::begin_step>("beginStep"),
                      InstanceMethod<&DeviceObject::submit_layers>("submitLayers"),
                      InstanceMethod<&DeviceObject::submit_attention>("submitAttention"),
                      InstanceMethod<&DeviceObject::submit_experts>("submitExperts"),
                      InstanceMethod<&DeviceObject::submit_prefetch>("submitPrefetch"),
                      InstanceMethod<&DeviceObject::submit_logits>("submitLogits"),
                      InstanceMethod<&DeviceObject::wait>("wait"),
                      InstanceMethod<&DeviceObject::drain>("drain"),
                      InstanceMethod<&DeviceObject::completed_transfers>("completedTransfers"),
                      InstanceMethod<&DeviceObject::gpu_graphs>("gpuGraphs"),
                      InstanceMethod<&DeviceObject::take_trace_events>("takeTraceEvents"),
                      InstanceMethod<&DeviceObject::set_tracing>("setTracing"),
                      InstanceMethod<&DeviceObject::measure_experts>("measureExperts"),
                      InstanceMethod<&DeviceObject::measure_transfer>("measureTransfer"),
                      InstanceMethod<&DeviceObject::isa>("isa"),
                      InstanceMethod<&DeviceObject::dispose>("dispose")});
}

DeviceObject::DeviceObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<DeviceObject>(info) {
  const Napi::Env env = info.Env();
  if (info.Length() < 3 || !info[2].IsTypedArray() ||
      info[2].As<Napi::TypedArray>().TypedArrayType() != napi_int32_array) {
    args::fail(env, "expected (spec, options, cancelFlags: Int32Array)");
    return;
  }
  ModelSpec spec = read_spec(env, info[0]);
  DeviceOptions options = read_options({env, info[1], "options"});
  if (env.IsExceptionPending()) return;
  auto flags = info[2].As<Napi::Int32Array>();
  cancel_flags_ = Napi::Reference<Napi::Int32Array>::New(flags, 1);
  static_assert(sizeof(std::atomic<int32_t>) == sizeof(int32_t));
  const Status made = make_compute_device(std::move(spec), std::move(options),
                                          reinterpret_cast<const std::atomic<int32_t>*>(flags.Data()),
                                          static_cast<uint32_t>(flags.ElementLength()), &device_);
  if (args::throw_if_error(env, made)) return;
  if (args::throw_if_error(env, device_->start())) device_.reset();
}

DeviceObject::~DeviceObject() = default;

ComputeDevice* DeviceObject::device(const Napi::CallbackInfo& info) {
  if (device_ == nullptr) {
    Napi::Error error = Napi::Error::New(info.Env(), "the device was disposed");
    error.Set("code", Napi::String::New(info.Env(), "ERR_DISPOSED"));
    error.ThrowAsJavaScriptException();
  }
  return device_.get();
}

void DeviceObject::report_memory(Napi::Env env) {
  const auto bytes = device_ == nullptr ? 0 : static_cast<int64_t>(device_->held_bytes());
  Napi::MemoryManagement::AdjustExternalMemory(env, bytes - reported_bytes_);
  reported_bytes_ = bytes;
}

/// A typed array on native memory; detached by dispose, so that a late read sees nothing instead of freed
/// memory.
template <class T>
Napi::Value DeviceObject::view(Napi::Env env, T* data, size_t count, napi_typedarray_type type) {
  Napi::ArrayBuffer buffer = Napi::ArrayBuffer::New(env, data, count * sizeof(T));
  views_.push_back(Napi::Reference<Napi::ArrayBuffer>::New(buffer, 1));
  return Napi::TypedArrayOf<T>::New(env, count, buffer, 0, type);
}

Napi::Value DeviceObject::open_file(const Napi::CallbackInfo& info) {
  ComputeDevice* d = device(info);
  if (d == nullptr) return info.Env().Undefined();
  if (!info[0].IsString()) {
    args::fail(info.Env(), "`path` is not a string");
    return info.Env().Undefined();
  }
  uint32_t index = 0;
  args::throw_if_error(info.Env(), d->open_file(info[0].As<Napi::String>().Utf8Value(), &index));
  return Napi::Number::New(info.Env(), index);
}

Napi::Value DeviceObject::open_synthetic(const Napi::CallbackInfo& info) {
  ComputeDevice* d = device(info);
  if (d == nullptr) return info.Env().Undefined();
  const double bytes = args::number(info.Env(), info[0], "bytes", 1, 1e15);
  uint32_t index = 0;
  if (!info.Env().IsExceptionPending()) {
    args::throw_if_error(info.Env(), d->open_synthetic(static_cast<size_t>(bytes), &index));
  }
  return Napi::Number::New(info.Env(), index);
}

Napi::Value DeviceObject::load_weights(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  ComputeDevice* d = device(info);
  if (d == nullptr) return env.Undefined();
  if (!info[0].IsTypedArray() || info[0].As<Napi::TypedArray>().TypedArrayType() != napi_float64_array) {
    args::fail(env, "`table` is not a Float64Array");
    return env.Undefined();
  }
  const uint32_t count = args::integer(env, info[1], "count", 1, 1U << 24);
  const std::vector<LoadRow> rows = read_load_table(env, info[0].As<Napi::Float64Array>(), count);
  // Memory is reported once all is loaded: every report of much memory starts a garbage collection.
  if (!env.IsExceptionPending()) args::throw_if_error(env, d->load_weights(rows));
  return env.Undefined();
}

Napi::Value DeviceObject::finish_load(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  ComputeDevice* d = device(info);
  if (d == nullptr || args::throw_if_error(env, d->finish_load())) return env.Undefined();
  const Buffers& buffers = d->buffers();
  const ModelSpec& spec = d->spec();
  const size_t routed = spec.layers.size() * buffers.max_tokens * std::max(spec.max_top_k(), 1U);
  Napi::Object result = Napi::Object::New(env);
  result.Set("denseBytes", static_cast<double>(d->store().dense_bytes()));
  result.Set("expertBytes", static_cast<double>(d->store().expert_bytes()));
  result.Set("expertSlabBytes", static_cast<double>(d->store().slab_bytes()));
  result.Set("maxTopK", std::max(spec.max_top_k(), 1U));
  result.Set("topkIds", view(env, buffers.topk_ids, routed, napi_int32_array));
  result.Set("topkWeights", view(env, buffers.topk_weights, routed, napi_float32_array));
  result.Set("guessedTokens", buffers.guessed_tokens);
  if (buffers.guessed_tokens > 0) {
    const size_t guessed = size_t{buffers.guessed_tokens} * std::max(spec.max_top_k(), 1U);
    result.Set("guessIds", view(env, buffers.guess_ids, guessed, napi_int32_array));
    result.Set("guessWeights", view(env, buffers.guess_weights, guessed, napi_float32_array));
  }
  result.Set("logits", view(env, buffers.logits, d->max_logit_rows() * spec.vocab_size, napi_float32_array));
  const size_t candidates = size_t{d->max_logit_rows()} * kMaxCandidates;
  result.Set("candidateIds", view(env, buffers.candidates.ids, candidates, napi_int32_array));
  result.Set("candidateLogits", view(env, buffers.candidates.values, candidates, napi_float32_array));
  result.Set("observations",
             view(env, d->observations().data(), d->observations().size(), napi_float64_array));
  result.Set("opTimes", view(env, d->op_times().data(), d->op_times().size(), napi_float64_array));
  return result;
}

Napi::Value DeviceObject::allocate_kv(const Napi::CallbackInfo& info) {
  ComputeDevice* d = device(info);
  if (d == nullptr) return info.Env().Undefined();
  const uint32_t blocks = args::integer(info.Env(), info[0], "blocks", 1, 1U << 24);
  if (!info.Env().IsExceptionPending()) args::throw_if_error(info.Env(), d->allocate_kv(blocks));
  report_memory(info.Env());
  return Napi::Number::New(info.Env(), static_cast<double>(d->kv_bytes()));
}

Napi::Value DeviceObject::allocate_states(const Napi::CallbackInfo& info) {
  ComputeDevice* d = device(info);
  if (d == nullptr) return info.Env().Undefined();
  const uint32_t slots = args::integer(info.Env(), info[0], "slots", 1, 1U << 20);
  if (!info.Env().IsExceptionPending()) args::throw_if_error(info.Env(), d->allocate_states(slots));
  report_memory(info.Env());
  return Napi::Number::New(info.Env(), static_cast<double>(d->state_bytes()));
}

Napi::Value DeviceObject::allocate_expert_slots(const Napi::CallbackInfo& info) {
  ComputeDevice* d = device(info);
  if (d == nullptr) return info.Env().Undefined();
  const uint32_t count = args::integer(info.Env(), info[0], "count", 0, 1U << 24);
  uint32_t got = 0;
  if (!info.Env().IsExceptionPending())
    args::throw_if_error(info.Env(), d->allocate_expert_slots(count, &got));
  report_memory(info.Env());
  return Napi::Number::New(info.Env(), got);
}

Napi::Value DeviceObject::begin_step(const Napi::CallbackInfo& info) {
  ComputeDevice* d = device(info);
  if (d == nullptr) return info.Env().Undefined();
  const bool typed = info[0].IsTypedArray() && info[1].IsTypedArray() &&
                     info[0].As<Napi::TypedArray>().TypedArrayType() == napi_int32_array &&
                     info[1].As<Napi::TypedArray>().TypedArrayType() == napi_float32_array;
  if (!typed) {
    args::fail(info.Env(), "expected (step: Int32Array, ropes: Float32Array)");
    return info.Env().Undefined();
  }
  const auto step = info[0].As<Napi::Int32Array>();
  const auto ropes = info[1].As<Napi::Float32Array>();
  args::throw_if_error(info.Env(),
                       d->begin_step(step.Data(), step.ElementLength(), ropes.Data(), ropes.ElementLength()));
  return info.Env().Undefined();
}

Napi::Value DeviceObject::submit_layers(const Napi::CallbackInfo& info) {
  ComputeDevice* d = device(info);
  if (d == nullptr) return info.Env().Undefined();
  const uint32_t first = args::integer(info.Env(), info[0], "first", 0, 1U << 20);
  const uint32_t end = args::integer(info.Env(), info[1], "end", 0, 1U << 20);
  uint32_t ticket = 0;
  if (!info.Env().IsExceptionPending())
    args::throw_if_error(info.Env(), d->submit_layers(first, end, &ticket));
  return Napi::Number::New(info.Env(), ticket);
}

Napi::Value DeviceObject::submit_attention(const Napi::CallbackInfo& info) {
  ComputeDevice* d = device(info);
  if (d == nullptr) return info.Env().Undefined();
  const uint32_t layer = args::integer(info.Env(), info[0], "layer", 0, 1U << 20);
  uint32_t ticket = 0;
  if (!info.Env().IsExceptionPending()) args::throw_if_error(info.Env(), d->submit_attention(layer, &ticket));
  return Napi::Number::New(info.Env(), ticket);
}

Napi::Value DeviceObject::submit_experts(const Napi::CallbackInfo& info) {
  ComputeDevice* d = device(info);
  if (d == nullptr) return info.Env().Undefined();
  if (!info[0].IsTypedArray() || info[0].As<Napi::TypedArray>().TypedArrayType() != napi_int32_array) {
    args::fail(info.Env(), "`plan` is not an Int32Array");
    return info.Env().Undefined();
  }
  const auto plan = info[0].As<Napi::Int32Array>();
  uint32_t ticket = 0;
  args::throw_if_error(info.Env(), d->submit_experts(plan.Data(), plan.ElementLength(), &ticket));
  return Napi::Number::New(info.Env(), ticket);
}

Napi::Value DeviceObject::submit_prefetch(const Napi::CallbackInfo& info) {
  ComputeDevice* d = device(info);
  if (d == nullptr) return info.Env().Undefined();
  const uint32_t layer = args::integer(info.Env(), info[0], "layer", 0, 1U << 20);
  const uint32_t expert = args::integer(info.Env(), info[1], "expert", 0, 1U << 20);
  const uint32_t slot = args::integer(info.Env(), info[2], "slot", 0, 1U << 24);
  if (!info.Env().IsExceptionPending())
    args::throw_if_error(info.Env(), d->submit_prefetch(layer, expert, slot));
  return info.Env().Undefined();
}

Napi::Value DeviceObject::submit_logits(const Napi::CallbackInfo& info) {
  ComputeDevice* d = device(info);
  if (d == nullptr) return info.Env().Undefined();
  uint32_t ticket = 0;
  const uint32_t candidates = args::integer(info.Env(), info[0], "candidates", 0, kMaxCandidates);
  if (!info.Env().IsExceptionPending())
    args::throw_if_error(info.Env(), d->submit_logits(candidates, &ticket));
  return Napi::Number::New(info.Env(), ticket);
}

Napi::Value DeviceObject::wait(const Napi::CallbackInfo& info) {
  ComputeDevice* d = device(info);
  if (d == nullptr) return info.Env().Undefined();
  const uint32_t ticket = args::integer(info.Env(), info[0], "ticket", 0, UINT32_MAX);
  bool aborted = false;
  if (!info.Env().IsExceptionPending()) args::throw_if_error(info.Env(), d->wait(ticket, &aborted));
  return Napi::Number::New(info.Env(), aborted ? 1 : 0);
}

Napi::Value DeviceObject::drain(const Napi::CallbackInfo& info) {
  if (ComputeDevice* d = device(info); d != nullptr) d->drain();
  return info.Env().Undefined();
}

Napi::Value DeviceObject::completed_transfers(const Napi::CallbackInfo& info) {
  ComputeDevice* d = device(info);
  if (d == nullptr) return info.Env().Undefined();
  const std::vector<uint32_t> slots = d->take_completed_slots();
  Napi::Array result = Napi::Array::New(info.Env(), slots.size());
  for (uint32_t i = 0; i < slots.size(); ++i) result.Set(i, Napi::Number::New(info.Env(), slots[i]));
  return result;
}

Napi::Value DeviceObject::gpu_graphs(const Napi::CallbackInfo& info) {
  ComputeDevice* d = device(info);
  if (d == nullptr) return info.Env().Undefined();
  GpuGraphs graphs;
  args::throw_if_error(info.Env(), d->gpu_graphs(&graphs));
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("replays", Napi::Number::New(info.Env(), static_cast<double>(graphs.replays)));
  result.Set("held", Napi::Number::New(info.Env(), graphs.held));
  result.Set("off", Napi::String::New(info.Env(), graphs.off));
  return result;
}

Napi::Value DeviceObject::take_trace_events(const Napi::CallbackInfo& info) {
  ComputeDevice* d = device(info);
  if (d == nullptr) return info.Env().Undefined();
  const std::vector<TraceEvent> events = d->take_trace_events();
  Napi::Float64Array result = Napi::Float64Array::New(info.Env(), events.size() * 5);
  double* out = result.Data();
  for (const TraceEvent& event : events) {
    *out++ = event.lane;
    *out++ = static_cast<double>(event.kind);
    *out++ = event.layer;
    *out++ = event.start_us;
    *out++ = event.end_us;
  }
  return result;
}

Napi::Value DeviceObject::set_tracing(const Napi::CallbackInfo& info) {
  if (ComputeDevice* d = device(info); d != nullptr) d->set_tracing(info[0].ToBoolean().Value());
  return info.Env().Undefined();
}

Napi::Value DeviceObject::measure_experts(const Napi::CallbackInfo& info) {
  ComputeDevice* d = device(info);
  if (d == nullptr) return info.Env().Undefined();
  const uint32_t tokens = args::integer(info.Env(), info[1], "tokens", 1, kMaxTokens);
  double us = 0;
  if (!info.Env().IsExceptionPending()) {
    args::throw_if_error(info.Env(), d->measure_experts(info[0].ToBoolean().Value(), tokens, &us));
  }
  return Napi::Number::New(info.Env(), us);
}

Napi::Value DeviceObject::measure_transfer(const Napi::CallbackInfo& info) {
  ComputeDevice* d = device(info);
  if (d == nullptr) return info.Env().Undefined();
  double us = 0;
  args::throw_if_error(info.Env(), d->measure_transfer(&us));
  return Napi::Number::New(info.Env(), us);
}

Napi::Value DeviceObject::isa(const Napi::CallbackInfo& info) {
  ComputeDevice* d = device(info);
  return d == nullptr ? info.Env().Undefined() : Napi::String::New(info.Env(), d->isa());
}

Napi::Value DeviceObject::dispose(const Napi::CallbackInfo& info) {
  for (auto& buffer : views_) {
    if (!buffer.IsEmpty() && !buffer.Value().IsDetached()) buffer.Value().Detach();
    buffer.Reset();
  }
  views_.clear();
  device_.reset();
  cancel_flags_.Reset();
  report_memory(info.Env());
  return info.Env().Undefined();
}

}  // namespace nearmoe
