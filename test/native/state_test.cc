// Layers with states without JavaScript: cutting a sequence over steps and ranks, steps that are aborted, and
// slots that do not fit together. Also what the sanitizer builds run.
#include <cmath>
#include <cstdio>
#include <cstring>

#include "tiny_model.h"

namespace nearmoe::testing {
namespace {

int failures = 0;

void check(bool ok, const char* what) {
  std::printf("%s %s\n", ok ? "ok" : "FAILED", what);
  if (!ok) ++failures;
}

const std::vector<int32_t> kTokens = {5, 17, 33, 2, 60, 41, 8, 19, 70};

/// Tokens [first, end) of the prompt, from one slot to another.
Sequence part(uint32_t first, uint32_t end, int32_t source, int32_t target) {
  Sequence sequence{{kTokens.begin() + first, kTokens.begin() + end}, first, {3}};
  sequence.state_source = source;
  sequence.state_target = target;
  return sequence;
}

/// One step; the logits of each sequence's last token, empty if it was aborted.
std::vector<float> run(TestDevice& device, const std::vector<Sequence>& sequences) {
  TestDevice::must(device.begin(sequences));
  uint32_t ticket = 0;
  bool aborted = false;
  TestDevice::must(device->submit_layers(0, 3, &ticket));
  TestDevice::must(device->submit_logits(0, &ticket));
  TestDevice::must(device->wait(ticket, &aborted));
  if (aborted) return {};
  const float* logits = device->buffers().logits;
  return {logits, logits + sequences.size() * device->spec().vocab_size};
}

Topology units(uint32_t count) {
  Topology t;
  t.units = t.tp_degree = t.dense_ranks = count;
  return t;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && !a.empty() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

bool close(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size() || a.empty()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!(std::fabs(a[i] - b[i]) < 1e-4F)) return false;
  }
  return true;
}

void test_steps(const ModelSpec& spec, const WeightFile& file) {
  std::vector<float> first;
  // Two key heads: whole heads to a rank, a rank for each, and ranks that share them.
  for (const uint32_t count : {1U, 2U, 3U}) {
    TestDevice device(spec, file, units(count));
    const std::vector<float> whole = run(device, {part(0, 9, -1, 0)});
    if (first.empty()) first = whole;
    check(close(whole, first), "ranks agree");
    run(device, {part(0, 2, -1, 1)});
    run(device, {part(2, 8, 1, 2)});
    check(same_bits(run(device, {part(8, 9, 2, 1)}), whole), "chunks give the bits of the whole");
    // The slot before the last token is as it was: another step may go on from it.
    device.flag(0) = 1;
    check(run(device, {part(8, 9, 2, 3)}).empty(), "a raised flag aborts the step");
    device.flag(0) = 0;
    check(same_bits(run(device, {part(8, 9, 2, 3)}), whole), "an aborted step leaves no trace");
    std::vector<Sequence> both = {part(8, 9, 2, 4), part(0, 9, -1, 5)};
    both[1].blocks = {4};
    std::vector<float> twice = run(device, both);
    twice.resize(whole.size());
    check(same_bits(twice, whole), "a neighbour changes no bit");
  }
}

void test_refusals(const ModelSpec& spec, const WeightFile& file) {
  TestDevice device(spec, file, units(2));
  run(device, {part(0, 4, -1, 0)});
  const auto refused = [&](std::vector<Sequence> sequences) { return !device.begin(sequences).ok(); };
  check(refused({part(0, 9, -1, -1)}), "no slot to write");
  check(refused({part(0, 9, -1, 6)}), "slot to write that does not exist");
  check(refused({part(4, 9, 6, 1)}), "slot to read that does not exist");
  check(refused({part(4, 9, -1, 1)}), "no state in mid-sequence");
  check(refused({part(0, 9, 0, 1)}), "a state before the first token");
  check(refused({part(4, 9, 0, 0)}), "one slot read and written");
  check(refused({part(4, 9, 0, 1), part(4, 9, 0, 1)}), "one slot written by two");
  check(refused({part(4, 9, 0, 1), part(0, 9, -1, 0)}), "one slot read by one and written by another");
  check(!refused({part(4, 9, 0, 1), part(4, 9, 0, 2)}), "two may go on from one state");
  check(!device->allocate_states(3).ok(), "slots are there already");
}

}  // namespace
}  // namespace nearmoe::testing

int main() {
  using namespace nearmoe::testing;
  const nearmoe::ModelSpec spec = recurrent_spec();
  const WeightFile file(spec);
  test_steps(spec, file);
  test_refusals(spec, file);
  return failures == 0 ? 0 : 1;
}
