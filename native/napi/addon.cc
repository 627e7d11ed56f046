// The addon's entry: what `binding.ts` sees of native code. Called by Node once per environment (main thread,
// worker). Everything that computes lives below native/runtime and kernels and never includes napi.h.

#include <napi.h>

#include <fstream>
#include <string>
#include <vector>

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

#include "../runtime/clock.h"
#include "../runtime/cpu_topology.h"
#include "../runtime/gpu_library.h"
#include "args.h"
#include "ceilings.h"
#include "convert_rows.h"
#include "device.h"
#include "kernels/ops.h"

namespace nearmoe {
namespace {

/// State of one environment: a worker that ends takes its own constructor with it and nobody else's.
struct AddonState {
  Napi::FunctionReference device;
};

// The version the addon was built for; binding.ts refuses an addon of another version.
Napi::Value version(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), NEARMOE_VERSION); }

Napi::Value roles(const Napi::CallbackInfo& info) {
  Napi::Array names = Napi::Array::New(info.Env(), kNumRoles);
  for (uint32_t i = 0; i < kNumRoles; ++i)
    names.Set(i, Napi::String::New(info.Env(), role_name(static_cast<Role>(i))));
  return names;
}

Napi::Value timed_ops(const Napi::CallbackInfo& info) {
  Napi::Array names = Napi::Array::New(info.Env(), kTimedOps);
  for (uint32_t i = 0; i < kTimedOps; ++i) names.Set(i, Napi::String::New(info.Env(), kTimedOpNames[i]));
  return names;
}

Napi::Value dtypes(const Napi::CallbackInfo& info) {
  Napi::Array names = Napi::Array::New(info.Env(), kNumDTypes);
  for (uint32_t i = 0; i < kNumDTypes; ++i) {
    const FormatTraits& format = traits(static_cast<DType>(i));
    Napi::Object entry = Napi::Object::New(info.Env());
    entry.Set("name", format.name);
    entry.Set("blockCols", format.block_cols);
    entry.Set("blockBytes", format.block_bytes);
    entry.Set("sliceCols", format.slice_cols);
    names.Set(i, entry);
  }
  return names;
}

/// What the CPU says it can do, as far as kernels care; whether the OS allows it shows in runnableIsas.
Napi::Array cpu_features(Napi::Env env) {
  std::vector<const char*> found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2")) found.push_back("avx2");
  if (__builtin_cpu_supports("fma")) found.push_back("fma");
  if (__builtin_cpu_supports("avx512f")) found.push_back("avx512f");
  if (__builtin_cpu_supports("avx512bw")) found.push_back("avx512bw");
  if (__builtin_cpu_supports("avx512vl")) found.push_back("avx512vl");
  if (__builtin_cpu_supports("avx512vnni")) found.push_back("avx512vnni");
  if (__builtin_cpu_supports("avx512bf16")) found.push_back("avx512bf16");
#elif defined(__aarch64__) && defined(__linux__)
  // Bits of the kernel's AT_HWCAP and AT_HWCAP2, by the names of /proc/cpuinfo.
  struct Feature {
    unsigned long word;
    int bit;
    const char* name;
  };
  for (const Feature& feature :
       {Feature{AT_HWCAP, 1, "asimd"}, Feature{AT_HWCAP, 10, "asimdhp"}, Feature{AT_HWCAP, 20, "asimddp"},
        Feature{AT_HWCAP, 22, "sve"}, Feature{AT_HWCAP2, 1, "sve2"}, Feature{AT_HWCAP2, 13, "i8mm"},
        Feature{AT_HWCAP2, 14, "bf16"}}) {
    if ((getauxval(feature.word) >> feature.bit) & 1) found.push_back(feature.name);
  }
#endif
  Napi::Array result = Napi::Array::New(env, found.size());
  for (uint32_t i = 0; i < found.size(); ++i) result.Set(i, Napi::String::New(env, found[i]));
  return result;
}

/// The selected value of the kernel's transparent huge page setting ("always", "madvise", "never").
std::string huge_pages() {
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string text;
  std::getline(file, text);
  const size_t open = text.find('[');
  const size_t close = text.find(']');
  if (open == std::string::npos || close == std::string::npos) return "unknown";
  return text.substr(open + 1, close - open - 1);
}

Napi::Value cpu_info(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const CpuTopology cpu = read_cpu_topology();
  const OpTable* tables[8];
  const size_t count = runnable_ops(tables, 8);
  Napi::Array isas = Napi::Array::New(env, count);
  for (uint32_t i = 0; i < count; ++i) isas.Set(i, Napi::String::New(env, tables[i]->isa));
  const OpTable* best = select_ops(nullptr);
  Napi::Object result = Napi::Object::New(env);
  result.Set("isa", best != nullptr ? best->isa : "none");
  result.Set("runnableIsas", isas);
  result.Set("logicalCores", static_cast<double>(cpu.allowed_cpus.size()));
  result.Set("physicalCores", cpu.physical_cores);
  result.Set("numaNodes", cpu.numa_nodes);
  result.Set("features", cpu_features(env));
  const char* saved[4];
  const size_t saved_count = saved_register_names(saved, 4);
  Napi::Array registers = Napi::Array::New(env, saved_count);
  for (uint32_t i = 0; i < saved_count; ++i) registers.Set(i, Napi::String::New(env, saved[i]));
  result.Set("savedRegisters", registers);
  result.Set("hugePages", huge_pages());
  return result;
}

Napi::Value create_device(const Napi::CallbackInfo& info) {
  const auto* state = info.Env().GetInstanceData<AddonState>();
  return state->device.New({info[0], info[1], info[2]});
}

Napi::Value probe_gpu_value(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const NmGpuBackend* backend = nullptr;
  std::vector<NmGpuDevice> devices;
  const std::string name = info[0].IsString() ? info[0].As<Napi::String>().Utf8Value() : "";
  if (name != "cuda" && name != "emulated") {
    args::fail(env, "`backend` is neither \"cuda\" nor \"emulated\"");
    return env.Undefined();
  }
  Status status = open_gpu_library(name, &backend);
  if (status.ok()) status = probe_gpu(backend, &devices);
  if (args::throw_if_error(env, status)) return env.Undefined();
  Napi::Array list = Napi::Array::New(env, devices.size());
  for (uint32_t i = 0; i < devices.size(); ++i) {
    const NmGpuDevice& device = devices[i];
    Napi::Object entry = Napi::Object::New(env);
    entry.Set("name", Napi::String::New(env, device.name));
    entry.Set("computeCapability", device.compute_capability);
    entry.Set("multiprocessors", device.multiprocessors);
    entry.Set("unifiedMemory", Napi::Boolean::New(env, device.unified_memory != 0));
    entry.Set("driverVersion", device.driver_version);
    entry.Set("totalBytes", static_cast<double>(device.total_bytes));
    entry.Set("freeBytes", static_cast<double>(device.free_bytes));
    entry.Set("bandwidthGBs", device.bandwidth_gbs);
    list.Set(i, entry);
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("devices", list);
  result.Set("build", Napi::String::New(env, backend->build));
  return result;
}

Napi::Value now(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), now_us()); }

Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto* state = new AddonState();
  state->device = Napi::Persistent(DeviceObject::define(env));
  env.SetInstanceData(state);
  exports.Set("version", Napi::Function::New(env, version, "version"));
  exports.Set("roles", Napi::Function::New(env, roles, "roles"));
  exports.Set("timedOps", Napi::Function::New(env, timed_ops, "timedOps"));
  exports.Set("dtypes", Napi::Function::New(env, dtypes, "dtypes"));
  exports.Set("cpuInfo", Napi::Function::New(env, cpu_info, "cpuInfo"));
  exports.Set("probeGpu", Napi::Function::New(env, probe_gpu_value, "probeGpu"));
  exports.Set("createDevice", Napi::Function::New(env, create_device, "createDevice"));
  exports.Set("measureCeiling", Napi::Function::New(env, measure_ceiling_value, "measureCeiling"));
  exports.Set("packedLayout", Napi::Function::New(env, packed_layout_value, "packedLayout"));
  exports.Set("convertRows", Napi::Function::New(env, convert_rows_value, "convertRows"));
  exports.Set("nowUs", Napi::Function::New(env, now, "nowUs"));
  return exports;
}

}  // namespace
}  // namespace nearmoe

static Napi::Object init_addon(Napi::Env env, Napi::Object exports) { return nearmoe::init(env, exports); }

NODE_API_MODULE(nearmoe, init_addon)
