// The table that nm_gpu_open returns (native/runtime/gpu_abi.h). Everything here only guards the boundary: no
// exception leaves the library, null contexts are refused, the device is current in whatever thread calls.
#include <new>

#include "context.h"
#include "device_list.h"

struct NmGpuContext : nearmoe::gpu::Context {
  using Context::Context;
};

namespace nearmoe::gpu {
namespace {

/// Runs `body(context)`; out of host memory is reported like any other failure.
template <class Body>
NmGpuCode guarded(NmGpuContext* context, const char* call, Body body) {
  if (context == nullptr) return NM_GPU_INVALID_ARGUMENT;
  try {
    if (context->failure().sticky()) return NM_GPU_DEVICE_ERROR;
    GPU_TRY(context->failure().check(cudaSetDevice(context->device()), "cudaSetDevice"));
    return body(*context);
  } catch (const std::exception&) {
    return context->failure().fail(NM_GPU_OUT_OF_MEMORY, call, "out of host memory");
  }
}

NmGpuCode probe_devices(NmGpuDevice* devices, uint32_t capacity, uint32_t* count, NmGpuError* error) {
  try {
    return probe(devices, capacity, count, error);
  } catch (const std::exception&) {
    return fill_error(error, NM_GPU_OUT_OF_MEMORY, "probe", "out of host memory");
  }
}

void destroy(NmGpuContext* context) { delete context; }

NmGpuCode create(const NmGpuOptions* options, const NmGpuModel* model, NmGpuContext** out,
                 NmGpuError* error) {
  *out = nullptr;
  NmGpuContext* context = nullptr;
  try {
    context = new NmGpuContext(*options, *model);
    const NmGpuCode code = context->start();
    if (code == NM_GPU_OK) {
      *out = context;
      return code;
    }
    if (error) *error = context->failure().record();
    destroy(context);
    return code;
  } catch (const std::exception&) {
    destroy(context);
    return fill_error(error, NM_GPU_OUT_OF_MEMORY, "create", "out of host memory");
  }
}

const NmGpuError* last_error(const NmGpuContext* context) {
  static const NmGpuError none{NM_GPU_INVALID_ARGUMENT, 0, "", "", "there is no context"};
  return context ? &const_cast<NmGpuContext*>(context)->failure().record() : &none;
}

NmGpuCode upload_matrix(NmGpuContext* c, uint32_t role, int32_t layer, const NmGpuMatrix* matrix) {
  return guarded(c, "upload_matrix",
                 [&](Context& g) { return g.model().upload_matrix(role, layer, *matrix); });
}
NmGpuCode upload_heads(NmGpuContext* c, uint32_t role, int32_t layer, const NmGpuMatrix* heads,
                       uint32_t count) {
  return guarded(c, "upload_heads",
                 [&](Context& g) { return g.model().upload_heads(role, layer, heads, count); });
}
NmGpuCode upload_vector(NmGpuContext* c, uint32_t role, int32_t layer, const float* values, uint32_t count) {
  return guarded(c, "upload_vector",
                 [&](Context& g) { return g.model().upload_vector(role, layer, values, count); });
}
NmGpuCode finish_upload(NmGpuContext* c) {
  return guarded(c, "finish_upload", [](Context& g) { return g.model().finish(); });
}
NmGpuCode allocate_kv(NmGpuContext* c, uint32_t blocks) {
  return guarded(c, "allocate_kv", [=](Context& g) { return g.allocate_kv(blocks); });
}
NmGpuCode allocate_states(NmGpuContext* c, uint32_t slots) {
  return guarded(c, "allocate_states", [=](Context& g) { return g.allocate_states(slots); });
}
NmGpuCode allocate_slots(NmGpuContext* c, uint32_t wanted, uint64_t slot_bytes, uint32_t* got) {
  return guarded(c, "allocate_slots",
                 [=](Context& g) { return g.slots().allocate(wanted, slot_bytes, got); });
}
NmGpuCode register_host(NmGpuContext* c, const void* data, uint64_t size_bytes) {
  return guarded(c, "register_host", [=](Context& g) { return g.slots().register_host(data, size_bytes); });
}
NmGpuCode allocate_host(NmGpuContext* c, uint64_t size_bytes, void** data) {
  return guarded(c, "allocate_host", [=](Context& g) { return g.allocate_host(size_bytes, data); });
}
NmGpuCode begin_step(NmGpuContext* c, const NmGpuStep* step) {
  return guarded(c, "begin_step", [=](Context& g) { return g.begin_step(*step); });
}
NmGpuCode run_attention(NmGpuContext* c, uint32_t layer) {
  return guarded(c, "run_attention", [=](Context& g) { return g.run_attention(layer); });
}
NmGpuCode wait_routing(NmGpuContext* c, uint32_t layer, NmGpuRouting* routing) {
  return guarded(c, "wait_routing", [=](Context& g) { return g.wait_routing(layer, routing); });
}
NmGpuCode submit_experts(NmGpuContext* c, const NmGpuExperts* experts) {
  return guarded(c, "submit_experts", [=](Context& g) { return g.submit_experts(*experts); });
}
NmGpuCode add_partial(NmGpuContext* c, uint32_t layer, const float* partial) {
  return guarded(c, "add_partial", [=](Context& g) { return g.add_partial(layer, partial); });
}
NmGpuCode run_logits(NmGpuContext* c) {
  return guarded(c, "run_logits", [](Context& g) { return g.run_logits(); });
}
NmGpuCode wait_logits(NmGpuContext* c, NmGpuLogits* logits) {
  return guarded(c, "wait_logits", [=](Context& g) { return g.wait_logits(logits); });
}
NmGpuCode transfer(NmGpuContext* c, uint32_t slot, const NmGpuExpert* expert) {
  return guarded(c, "transfer", [=](Context& g) { return g.slots().transfer(slot, *expert); });
}
NmGpuCode completed_transfers(NmGpuContext* c, int32_t* slots, uint32_t capacity, uint32_t* count) {
  return guarded(c, "completed_transfers",
                 [=](Context& g) { return g.slots().completed(slots, capacity, count); });
}
NmGpuCode memory(NmGpuContext* c, NmGpuMemory* memory) {
  return guarded(c, "memory", [=](Context& g) { return g.memory(memory); });
}
NmGpuCode graphs(NmGpuContext* c, NmGpuGraphs* graphs) {
  return guarded(c, "graphs", [=](Context& g) {
    g.graphs().report(graphs);
    return NM_GPU_OK;
  });
}
NmGpuCode measure_experts(NmGpuContext* c, uint32_t layer, uint32_t tokens, const int32_t* slots,
                          uint32_t count, double* us) {
  return guarded(c, "measure_experts",
                 [=](Context& g) { return g.measure_experts(layer, tokens, slots, count, us); });
}
NmGpuCode drain_transfers(NmGpuContext* c) {
  return guarded(c, "drain_transfers", [](Context& g) { return g.slots().drain(); });
}
NmGpuCode take_events(NmGpuContext* c, NmGpuEvent* events, uint32_t capacity, uint32_t* count) {
  return guarded(c, "take_events", [=](Context& g) { return g.timeline().take(events, capacity, count); });
}

#if defined(NEARMOE_CUDA_HOST)
constexpr const char* kName = "cuda";
constexpr auto kInjectFault = nullptr, kFaultStruck = nullptr;
#else
constexpr const char* kName = "emulated";
/// NM_GPU_FAULT_NONE also makes a failed device whole again; no context may be alive then.
void inject_fault(int32_t kind, uint64_t n) {
  if (kind == NM_GPU_FAULT_NONE) (void)cudaDeviceReset();
  gpu_host::inject_fault(static_cast<gpu_host::Fault>(kind), n);
}
int32_t fault_struck() { return gpu_host::fault_struck(); }
constexpr auto kInjectFault = &inject_fault;
constexpr auto kFaultStruck = &fault_struck;
#endif

constexpr NmGpuBackend kBackend = {
    NM_GPU_ABI,    kName,        NEARMOE_GPU_BUILD, probe_devices,   create,
    destroy,       last_error,   upload_matrix,     upload_heads,    upload_vector,
    finish_upload, allocate_kv,  allocate_states,   allocate_slots,  register_host,
    allocate_host, begin_step,   run_attention,     wait_routing,    submit_experts,
    add_partial,   run_logits,   wait_logits,       transfer,        completed_transfers,
    memory,        graphs,       measure_experts,   drain_transfers, take_events,
    kInjectFault,  kFaultStruck,
};

}  // namespace
}  // namespace nearmoe::gpu

extern "C" __attribute__((visibility("default"))) const NmGpuBackend* nm_gpu_open(uint32_t abi) {
  return abi == NM_GPU_ABI ? &nearmoe::gpu::kBackend : nullptr;
}
