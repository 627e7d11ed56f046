// The JavaScript object around a ComputeDevice (binding.ts: NativeDevice).
#pragma once

#include <napi.h>

#include <memory>
#include <vector>

#include "../runtime/compute_device.h"

namespace nearmoe {

class DeviceObject : public Napi::ObjectWrap<DeviceObject> {
 public:
  static Napi::Function define(Napi::Env env);
  /// (spec, options, cancelFlags)
  explicit DeviceObject(const Napi::CallbackInfo& info);
  ~DeviceObject() override;

 private:
  /// The device, or null with a pending ERR_DISPOSED.
  ComputeDevice* device(const Napi::CallbackInfo& info);
  template <class T>
  Napi::Value view(Napi::Env env, T* data, size_t count, napi_typedarray_type type);

  Napi::Value open_file(const Napi::CallbackInfo& info);
  Napi::Value open_synthetic(const Napi::CallbackInfo& info);
  Napi::Value load_weights(const Napi::CallbackInfo& info);
  Napi::Value finish_load(const Napi::CallbackInfo& info);
  Napi::Value allocate_kv(const Napi::CallbackInfo& info);
  Napi::Value allocate_states(const Napi::CallbackInfo& info);
  Napi::Value allocate_expert_slots(const Napi::CallbackInfo& info);
  Napi::Value begin_step(const Napi::CallbackInfo& info);
  Napi::Value submit_layers(const Napi::CallbackInfo& info);
  Napi::Value submit_attention(const Napi::CallbackInfo& info);
  Napi::Value submit_experts(const Napi::CallbackInfo& info);
  Napi::Value submit_prefetch(const Napi::CallbackInfo& info);
  Napi::Value submit_logits(const Napi::CallbackInfo& info);
  Napi::Value wait(const Napi::CallbackInfo& info);
  Napi::Value drain(const Napi::CallbackInfo& info);
  Napi::Value completed_transfers(const Napi::CallbackInfo& info);
  Napi::Value gpu_graphs(const Napi::CallbackInfo& info);
  Napi::Value take_trace_events(const Napi::CallbackInfo& info);
  Napi::Value set_tracing(const Napi::CallbackInfo& info);
  Napi::Value measure_experts(const Napi::CallbackInfo& info);
  Napi::Value measure_transfer(const Napi::CallbackInfo& info);
  Napi::Value arena_segments(const Napi::CallbackInfo& info);
  Napi::Value write_arena(const Napi::CallbackInfo& info);
  Napi::Value map_arenas(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);
  Napi::Value isa(const Napi::CallbackInfo& info);
  void report_memory(Napi::Env env);

  Napi::Reference<Napi::Int32Array> cancel_flags_;  // keeps the shared flags alive while lanes read them
  std::unique_ptr<ComputeDevice> device_;
  std::vector<Napi::Reference<Napi::ArrayBuffer>> views_;  // detached on dispose
  int64_t reported_bytes_ = 0;
};

/// () -> fingerprint of the packed layout (binding.ts: packedLayout).
Napi::Value packed_layout_value(const Napi::CallbackInfo& info);

}  // namespace nearmoe
