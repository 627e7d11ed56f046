// The GPU device over the emulated backend library: the same tokens' logits as without a GPU, and what
// happens when the n-th allocation, copy, launch or kernel fails: right logits or an error that says so, then
// a device that can be made anew. Run with NEARMOE_GPU_LIBRARY_PATH naming the library's folder.
#include <cmath>
#include <cstring>

#include "native/runtime/gpu_device.h"
#include "tiny_model.h"

using namespace nearmoe;
using namespace nearmoe::testing;

namespace {

int failures = 0;

void check(bool ok, const std::string& what) {
  if (ok) return;
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  ++failures;
}

DeviceOptions options_of(uint32_t units, uint32_t threads, uint32_t tp_degree, bool gpu) {
  DeviceOptions options;
  options.topology = {units, threads, tp_degree, gpu ? 1 : units * threads, gpu};
  options.gpu_backend = gpu ? "emulated" : "";
  options.pin_threads = false;
  options.kv_dtype = KvDType::F32;
  options.max_step_tokens = 64;
  options.max_logit_rows = 8;
  options.arena_bytes = size_t{1} << 26;
  return options;
}

/// A device on its way from options to logits; every call may fail.
class Run {
 public:
  Run(const ModelSpec& spec, const WeightFile& file, DeviceOptions options, uint32_t slots)
      : flags_(4), spec_(spec), gpu_(options.topology.gpu_lane) {
    status_ = make_compute_device(spec, std::move(options), flags_.data(), 4, &device_);
    uint32_t index = 0, got = 0;
    then([&] { return device_->start(); });
    then([&] { return device_->open_file(file.path(), &index); });
    then([&] { return device_->load_weights(file.rows()); });
    then([&] { return device_->finish_load(); });
    then([&] { return device_->allocate_kv(kTestKvBlocks); });
    if (gpu_) then([&] { return device_->allocate_expert_slots(slots, &got); });
    slots_ = got;
  }

  const Status& status() const { return status_; }
  uint32_t slots() const { return slots_; }
  ComputeDevice& device() { return *device_; }

  /// Prefill of `prompt`, then its tokens again one by one behind it; the logits of all steps, empty after a
  /// failure.
  std::vector<float> logits(const std::vector<int32_t>& prompt) {
    std::vector<float> all;
    step(prompt, 0, all);
    for (uint32_t i = 0; i < 3; ++i) step({prompt[i]}, static_cast<uint32_t>(prompt.size()) + i, all);
    return status_.ok() ? all : std::vector<float>();
  }

 private:
  template <class Call>
  void then(Call call) {
    if (status_.ok()) status_ = call();
  }

  void step(const std::vector<int32_t>& tokens, uint32_t position, std::vector<float>& out) {
    std::vector<int32_t> wire = {1,
                                 static_cast<int32_t>(tokens.size()),
                                 static_cast<int32_t>(tokens.size()),
                                 static_cast<int32_t>(position),
                                 1,
                                 0,
                                 2,
                                 0,
                                 0,
                                 3,
                                 7};
    wire.insert(wire.end(), tokens.begin(), tokens.end());
    const float ropes[] = {1.0F, 1.0F, 0.3F, 0.1F, 0.03F};
    uint32_t ticket = 0;
    bool aborted = false;
    then([&] { return device_->begin_step(wire.data(), wire.size(), ropes, 5); });
    if (!gpu_)
      then([&] { return device_->submit_layers(0, static_cast<uint32_t>(spec_.layers.size()), &ticket); });
    if (!gpu_) then([&] { return device_->wait(ticket, &aborted); });
    for (uint32_t layer = 0; gpu_ && layer < spec_.layers.size(); ++layer) planned_layer(layer);
    then([&] { return device_->submit_logits(&ticket); });
    then([&] { return device_->wait(ticket, &aborted); });
    if (!status_.ok()) return;
    out.insert(out.end(), device_->buffers().logits, device_->buffers().logits + spec_.vocab_size);
    device_->drain();
  }

  /// Attention, then a plan: every third expert stays on the units, the others take turns over the slots; the
  /// next layer's expert 0 is prefetched.
  void planned_layer(uint32_t layer) {
    uint32_t ticket = 0;
    bool aborted = false;
    then([&] { return device_->submit_attention(layer, &ticket); });
    then([&] { return device_->wait(ticket, &aborted); });
    if (!status_.ok() || !spec_.layers[layer].ffn.is_moe) return;
    device_->take_completed_slots();
    const ExpertGroups& groups = device_->buffers().groups;
    std::vector<int32_t> plan = {static_cast<int32_t>(layer), 0};
    uint32_t slot = 0;
    for (uint32_t e = 0; e < spec_.layers[layer].ffn.num_experts; ++e) {
      if (groups.offsets[e] == groups.offsets[e + 1]) continue;
      ++plan[1];
      const bool on_gpu = e % 3 != 0 && slot + 1 < slots_;
      const std::vector<int32_t> row = {static_cast<int32_t>(e),
                                        on_gpu ? -1 : static_cast<int32_t>(group_of(e)),
                                        on_gpu ? static_cast<int32_t>(slot) : -1, on_gpu ? 1 : 0};
      plan.insert(plan.end(), row.begin(), row.end());
      if (on_gpu) ++slot;
    }
    then([&] { return device_->submit_experts(plan.data(), plan.size(), &ticket); });
    if (layer + 2 < spec_.layers.size())
      then([&] { return device_->submit_prefetch(layer + 2, 0, slots_ - 1); });
  }

  uint32_t group_of(uint32_t expert) const { return device_->store().topology().group_of(expert); }

  std::vector<std::atomic<int32_t>> flags_;
  ModelSpec spec_;
  bool gpu_;
  Status status_;
  std::unique_ptr<ComputeDevice> device_;
  uint32_t slots_ = 0;
};

/// Largest difference as a share of the largest value.
double error_of(const std::vector<float>& got, const std::vector<float>& expected) {
  double largest = 0, error = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    largest = std::fmax(largest, std::fabs(expected[i]));
    error = std::fmax(error, std::fabs(static_cast<double>(got[i]) - static_cast<double>(expected[i])));
  }
  return error / largest;
}

std::vector<int32_t> prompt_of(uint32_t tokens) {
  std::vector<int32_t> prompt;
  for (uint32_t i = 0; i < tokens; ++i) prompt.push_back(static_cast<int32_t>(i * 7 % 75));
  return prompt;
}

/// The same tolerance as the goldens'.
constexpr double kTolerance = 1e-3;

void test_layouts(const ModelSpec& spec, const WeightFile& file, const std::vector<float>& expected,
                  const std::vector<int32_t>& prompt) {
  for (const auto& [units, threads, tp] : {std::array{1U, 1U, 1U}, {2U, 1U, 2U}, {3U, 2U, 2U}}) {
    Run run(spec, file, options_of(units, threads, tp, true), kTestSlots);
    const std::vector<float> got = run.logits(prompt);
    const std::string name =
        std::to_string(units) + " units of " + std::to_string(threads) + ", TP " + std::to_string(tp);
    check(run.status().ok(), name + ": " + run.status().message);
    check(got.size() == expected.size() && error_of(got, expected) <= kTolerance, name + ": logits");
    double us = 0;
    check(run.device().measure_experts(true, 5, &us).ok() && us > 0, name + ": time of experts on the GPU");
    check(run.device().measure_experts(false, 5, &us).ok() && us > 0,
          name + ": time of experts on the units");
    check(run.device().measure_transfer(&us).ok() && us > 0, name + ": time of a transfer");
  }
}

/// The same with every way to reach experts' memory.
void test_model(const ModelSpec& spec, const WeightFile& file, const std::vector<int32_t>& prompt,
                std::vector<float>* expected) {
  Run reference(spec, file, options_of(2, 1, 2, false), 0);
  *expected = reference.logits(prompt);
  check(!expected->empty(), "logits of the units: " + reference.status().message);
  test_layouts(spec, file, *expected, prompt);
  // Memory that GPU and CPU share, as on a Jetson: transfers hand over pointers.
  setenv("NEARMOE_GPU_UNIFIED", "1", 1);
  test_layouts(spec, file, *expected, prompt);
  unsetenv("NEARMOE_GPU_UNIFIED");
}

/// Where the memory for all slots is not to be had, there are fewer, and the logits stay right.
void test_few_slots(const NmGpuBackend* backend, const ModelSpec& spec, const WeightFile& file,
                    const std::vector<float>& expected, const std::vector<int32_t>& prompt) {
  uint32_t shrunk = 0;
  for (uint64_t n = 1; n < 400; ++n) {
    backend->inject_fault(NM_GPU_FAULT_NONE, 0);
    backend->inject_fault(NM_GPU_FAULT_ALLOCATION, n);
    Run run(spec, file, options_of(1, 1, 1, true), kTestSlots);
    if (!run.status().ok()) continue;
    if (run.slots() == kTestSlots) break;  // no allocation of the load is left to fail
    ++shrunk;
    check(error_of(run.logits(prompt), expected) <= kTolerance, "logits with fewer slots");
  }
  check(shrunk == 1, "one allocation is that of the slots, got " + std::to_string(shrunk));
  backend->inject_fault(NM_GPU_FAULT_NONE, 0);
}

/// Fails the n-th operation of a kind for n = first, first + stride, ... until one run meets no failure.
void test_faults(const NmGpuBackend* backend, const ModelSpec& spec, const WeightFile& file,
                 const std::vector<float>& expected, const std::vector<int32_t>& prompt, int32_t kind,
                 const char* name, uint64_t stride) {
  uint32_t failed = 0, survived = 0;
  for (uint64_t n = 1, quiet = 0; quiet < 2; n += stride) {
    backend->inject_fault(NM_GPU_FAULT_NONE, 0);
    backend->inject_fault(kind, n);
    bool right = false;
    {
      Run run(spec, file, options_of(2, 1, 2, true), kTestSlots);
      const std::vector<float> got = run.logits(prompt);
      const std::string what = std::string(name) + " " + std::to_string(n);
      right = run.status().ok();
      if (right) {
        check(error_of(got, expected) <= kTolerance, what + ": wrong logits");
      } else {
        check(run.status().code == Code::Gpu && !run.status().message.empty(),
              what + ": expected ERR_GPU, got " + code_name(run.status().code) + " " + run.status().message);
      }
    }
    // Two runs in a row without a failure: the fault lies behind the last operation, or was survived twice.
    quiet = right ? quiet + 1 : 0;
    (right ? survived : failed) += 1;
    check(n < 100000, std::string(name) + ": no end");
  }
  std::printf("%-20s %u failed with an error, %u went on\n", name, failed, survived);
  check(kind == NM_GPU_FAULT_PINNED_ALLOCATION || failed > 3,
        std::string(name) + ": hardly any fault struck");
  backend->inject_fault(NM_GPU_FAULT_NONE, 0);
}

}  // namespace

int main() {
  const NmGpuBackend* backend = nullptr;
  const Status opened = open_gpu_library("emulated", &backend);
  if (!opened.ok()) {
    std::fprintf(stderr, "%s\n", opened.message.c_str());
    return 1;
  }
  const ModelSpec spec = tiny_spec();
  const WeightFile file(spec);
  const std::vector<int32_t> prompt = prompt_of(21);
  std::vector<float> expected, mixed_logits;
  test_model(spec, file, prompt, &expected);
  const ModelSpec mixed = mixed_spec();
  const WeightFile mixed_file(mixed);
  test_model(mixed, mixed_file, prompt, &mixed_logits);
  test_few_slots(backend, spec, file, expected, prompt);
  test_faults(backend, spec, file, expected, prompt, NM_GPU_FAULT_ALLOCATION, "allocation", 3);
  test_faults(backend, spec, file, expected, prompt, NM_GPU_FAULT_PINNED_ALLOCATION, "pinned allocation", 1);
  test_faults(backend, spec, file, expected, prompt, NM_GPU_FAULT_COPY, "copy", 7);
  test_faults(backend, spec, file, expected, prompt, NM_GPU_FAULT_LAUNCH, "launch", 11);
  test_faults(backend, spec, file, expected, prompt, NM_GPU_FAULT_KERNEL, "kernel", 11);
  test_faults(backend, mixed, mixed_file, mixed_logits, prompt, NM_GPU_FAULT_ALLOCATION, "allocation, latent",
              7);
  test_faults(backend, mixed, mixed_file, mixed_logits, prompt, NM_GPU_FAULT_KERNEL, "kernel, latent", 23);
  test_faults(backend, spec, file, expected, prompt, NM_GPU_FAULT_DEVICE_LOST, "lost device", 53);
  std::printf("%s\n", failures == 0 ? "ok" : "FAILED");
  return failures == 0 ? 0 : 1;
}
