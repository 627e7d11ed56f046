// The GPU device over the emulated backend library: the same tokens' logits as without a GPU, and what
// happens when the n-th allocation, copy, launch or kernel fails: right logits or an error that says so, then
// a device that can be made anew. Run with NEARMOE_GPU_LIBRARY_PATH naming the library's folder.
#include <algorithm>
#include <cstring>

#include "gpu_run.h"

using namespace nearmoe;
using namespace nearmoe::testing;

namespace {

/// The same tolerance as the goldens'.
constexpr double kTolerance = 1e-3;

/// A model, and the logits that its prompt has without a GPU.
struct Model {
  Model(const char* name_, const ModelSpec& spec_) : name(name_), spec(spec_), file(spec) {
    GpuRun reference(spec, file, options_of(2, 1, 2, false), 0);
    expected = reference.logits(prompt);
    check(!expected.empty(), name + ": logits of the units: " + reference.status().message);
  }
  const std::string name;
  const ModelSpec spec;
  const WeightFile file;
  const std::vector<int32_t> prompt = prompt_of(21);
  std::vector<float> expected;
};

void test_layouts(const Model& model) {
  for (const auto& [units, threads, tp] : {std::array{1U, 1U, 1U}, {2U, 1U, 2U}, {3U, 2U, 2U}}) {
    GpuRun run(model.spec, model.file, options_of(units, threads, tp, true), kTestSlots);
    const std::vector<float> got = run.logits(model.prompt);
    const std::string name = model.name + ", " + std::to_string(units) + " units of " +
                             std::to_string(threads) + ", TP " + std::to_string(tp);
    check(run.status().ok(), name + ": " + run.status().message);
    check(got.size() == model.expected.size() && error_of(got, model.expected) <= kTolerance,
          name + ": logits");
    double us = 0;
    check(run.device().measure_experts(true, 5, &us).ok() && us > 0, name + ": time of experts on the GPU");
    check(run.device().measure_experts(false, 5, &us).ok() && us > 0,
          name + ": time of experts on the units");
    check(run.device().measure_transfer(&us).ok() && us > 0, name + ": time of a transfer");
  }
}

/// Long enough that a sequence is cut in two parts for attention, then two sequences and each alone again, so
/// that graphs of several shapes are captured and replayed; all logits.
std::vector<float> mixed_decode(GpuRun& run) {
  std::vector<float> all;
  const auto add = [&](const std::vector<GpuRun::Part>& parts) {
    const std::vector<float> logits = run.step(parts);
    all.insert(all.end(), logits.begin(), logits.end());
  };
  const std::vector<int32_t> chunk = prompt_of(63);
  for (uint32_t at = 0; at < 189; at += 63) add({{chunk, at, 6}});
  add({{prompt_of(10), 0, 11}});
  uint32_t a = 189, b = 10;
  const auto part_a = [&] { return GpuRun::Part{{static_cast<int32_t>(a % 75)}, a++, 6}; };
  const auto part_b = [&] { return GpuRun::Part{{static_cast<int32_t>(b % 75)}, b++, 11}; };
  for (int i = 0; i < 9; ++i) add({part_a()});
  for (int i = 0; i < 4; ++i) add({part_a(), part_b()});
  for (int i = 0; i < 2; ++i) add({part_a()});
  for (int i = 0; i < 3; ++i) add({part_b()});
  return all;
}

/// Graphs change no bit of any logit, whether experts arrive in each layer or stay in their slots.
void test_graphs(const Model& model) {
  const ModelSpec& spec = model.spec;
  const auto shared =
      static_cast<uint64_t>(std::count_if(spec.layers.begin(), spec.layers.end(), [](const LayerSpec& l) {
        return l.ffn.is_moe && l.ffn.shared_intermediate_size > 0;
      }));
  for (const bool kept : {false, true}) {
    const std::string name =
        model.name + (kept ? ": graphs, resident experts" : ": graphs, arriving experts");
    std::vector<float> logits[2];
    GpuGraphs found[2];
    for (const int graphs : {0, 1}) {
      if (graphs == 0) setenv("NEARMOE_GPU_GRAPHS", "off", 1);
      GpuRun run(spec, model.file, options_of(2, 1, 2, true), kTestSlots);
      unsetenv("NEARMOE_GPU_GRAPHS");
      if (kept) run.keep_experts();
      logits[graphs] = mixed_decode(run);
      check(run.status().ok(), name + ": " + run.status().message);
      check(run.device().gpu_graphs(&found[graphs]).ok(), name + ": report");
    }
    check(logits[0].size() == size_t{26} * spec.vocab_size && logits[0] == logits[1], name + ": logits");
    check(found[0].replays == 0 && found[0].off == "NEARMOE_GPU_GRAPHS=off", name + ": switched off");
    // A part that comes n times in a shape is replayed n - 1 times. One token in one part 5 times, in two
    // parts 9 times, two tokens 4 times: attention of 3 layers; layers with states know no parts. Shared
    // experts and the logits: 14 and 4 times.
    const uint64_t states = static_cast<uint64_t>(std::count_if(
        spec.layers.begin(), spec.layers.end(), [](const LayerSpec& l) { return l.recurrent.present(); }));
    const uint64_t fixed = (3 - states) * (4 + 8 + 3) + states * (13 + 3) + (shared + 1) * (13 + 3);
    // Experts are a graph where they are one group, which those that stay in their slots always are.
    check(found[1].off.empty() && found[1].replays >= fixed + (kept ? 10 : 0),
          name + ": " + std::to_string(found[1].replays) + " replays " + found[1].off);
  }
}

/// Where the memory for all slots is not to be had, there are fewer, and the logits stay right.
void test_few_slots(const NmGpuBackend* backend, const Model& model) {
  uint32_t shrunk = 0;
  for (uint64_t n = 1; n < 400; ++n) {
    backend->inject_fault(NM_GPU_FAULT_NONE, 0);
    backend->inject_fault(NM_GPU_FAULT_ALLOCATION, n);
    GpuRun run(model.spec, model.file, options_of(1, 1, 1, true), kTestSlots);
    if (!run.status().ok()) continue;
    if (run.slots() == kTestSlots) break;  // no allocation of the load is left to fail
    ++shrunk;
    check(error_of(run.logits(model.prompt), model.expected) <= kTolerance, "logits with fewer slots");
  }
  check(shrunk == 1, "one allocation is that of the slots, got " + std::to_string(shrunk));
  backend->inject_fault(NM_GPU_FAULT_NONE, 0);
}

struct FaultKind {
  int32_t kind;
  const char* name;
  /// Strides of the small set: of the first model, and of those with other kinds of layers (0: not at all).
  uint64_t stride, other_stride;
};
constexpr FaultKind kFaultKinds[] = {
    {NM_GPU_FAULT_ALLOCATION, "allocation", 3, 7},
    {NM_GPU_FAULT_PINNED_ALLOCATION, "pinned", 1, 0},
    {NM_GPU_FAULT_COPY, "copy", 7, 0},
    {NM_GPU_FAULT_LAUNCH, "launch", 11, 0},
    {NM_GPU_FAULT_KERNEL, "kernel", 11, 23},
    {NM_GPU_FAULT_DEVICE_LOST, "lost", 53, 0},
    {NM_GPU_FAULT_GRAPH, "graph", 1, 0},
};

/// Fails the n-th operation of a kind for n = 1, 1 + stride, ... until a run ends before its fault.
void test_faults(const NmGpuBackend* backend, const Model& model, const FaultKind& fault, uint64_t stride,
                 bool kept) {
  const std::string name = model.name + ": " + fault.name + (kept ? ", resident experts" : "");
  uint32_t failed = 0, survived = 0;
  for (uint64_t n = 1, struck = 1; struck != 0; n += stride) {
    backend->inject_fault(NM_GPU_FAULT_NONE, 0);
    backend->inject_fault(fault.kind, n);
    GpuRun run(model.spec, model.file, options_of(2, 1, 2, true), kTestSlots);
    if (kept) run.keep_experts();
    const std::vector<float> got = run.logits(model.prompt);
    const std::string what = name + " " + std::to_string(n);
    struck = static_cast<uint64_t>(backend->fault_struck());
    if (run.status().ok()) {
      check(error_of(got, model.expected) <= kTolerance, what + ": wrong logits");
    } else {
      check(run.status().code == Code::Gpu && !run.status().message.empty(),
            what + ": expected ERR_GPU, got " + code_name(run.status().code) + " " + run.status().message);
    }
    check(struck != 0 || run.status().ok(), what + ": a failure without a fault");
    if (struck != 0) ++(run.status().ok() ? survived : failed);
  }
  std::printf("%-32s %u failed with an error, %u went on\n", name.c_str(), failed, survived);
  // Without graphs everything goes on.
  check((fault.kind == NM_GPU_FAULT_GRAPH ? survived : failed) > 3, name + ": hardly any fault struck");
  backend->inject_fault(NM_GPU_FAULT_NONE, 0);
}

/// What the arguments ask for. --every: faults at every operation, for `npm run test:gpu-faults`. --tiny: the
/// first model alone, which every device can run.
struct Wanted {
  std::vector<std::string> names;
  bool every = false, tiny = false;
  bool operator()(const std::string& name) const {
    return names.empty() || std::find(names.begin(), names.end(), name) != names.end();
  }
};

}  // namespace

/// Arguments: layouts, graphs, slots, or a kind of fault choose tests.
int main(int argc, char** argv) {
  Wanted wanted;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--every") == 0)
      wanted.every = true;
    else if (std::strcmp(argv[i], "--tiny") == 0)
      wanted.tiny = true;
    else
      wanted.names.emplace_back(argv[i]);
  }
  const NmGpuBackend* backend = nullptr;
  const Status opened = open_gpu_library("emulated", &backend);
  if (!opened.ok()) {
    std::fprintf(stderr, "%s\n", opened.message.c_str());
    return 1;
  }
  std::vector<std::unique_ptr<Model>> models;
  models.push_back(std::make_unique<Model>("tiny", tiny_spec()));
  if (!wanted.tiny) {
    models.push_back(std::make_unique<Model>("mixed", mixed_spec()));
    models.push_back(std::make_unique<Model>("normed", normed_spec()));
    models.push_back(std::make_unique<Model>("states", recurrent_spec()));
  }
  for (const auto& model : models) {
    if (wanted("layouts")) {
      test_layouts(*model);
      // Memory that GPU and CPU share, as on a Jetson: transfers hand over pointers.
      setenv("NEARMOE_GPU_UNIFIED", "1", 1);
      test_layouts(*model);
      unsetenv("NEARMOE_GPU_UNIFIED");
    }
    if (wanted("graphs")) test_graphs(*model);
  }
  if (wanted("slots")) test_few_slots(backend, *models[0]);
  for (const FaultKind& fault : kFaultKinds) {
    if (!wanted(fault.name)) continue;
    for (const auto& model : models) {
      const uint64_t stride = wanted.every ? 1 : model == models[0] ? fault.stride : fault.other_stride;
      if (stride > 0) test_faults(backend, *model, fault, stride, false);
      // Kept experts submit the same calls but for the transfers.
      if (wanted.every) test_faults(backend, *model, fault, 1, true);
    }
  }
  std::printf("%s\n", gpu_failures == 0 ? "ok" : "FAILED");
  return gpu_failures == 0 ? 0 : 1;
}
