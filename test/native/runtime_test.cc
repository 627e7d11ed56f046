// The native runtime without JavaScript: results do not depend on plans, batches or timing, cancelled steps
// leave no trace, and nonsense from the wall is refused. Also what the sanitizer builds run.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <thread>

#include "native/runtime/synthetic_weights.h"
#include "tiny_model.h"

namespace nearmoe::testing {
namespace {

int failures = 0;

void check(bool ok, const char* what) {
  std::printf("%s %s\n", ok ? "ok" : "FAILED", what);
  if (!ok) ++failures;
}

/// Which chosen experts run on the GPU lane: every one, none, or those whose id has the bit of `pattern` set.
using Plan = uint32_t;
constexpr Plan kAllNdp = 0;

std::vector<int32_t> make_plan(TestDevice& device, uint32_t layer, uint32_t tokens, Plan pattern) {
  const FfnSpec& ffn = device->spec().layers[layer].ffn;
  const Buffers& buffers = device->buffers();
  const int32_t* ids = buffers.topk_ids + size_t{layer} * buffers.max_tokens * device->spec().max_top_k();
  std::vector<bool> active(ffn.num_experts);
  for (uint32_t i = 0; i < tokens * ffn.top_k; ++i) active[static_cast<size_t>(ids[i])] = true;
  std::vector<int32_t> plan = {static_cast<int32_t>(layer), 0};
  int32_t slot = 0;
  for (uint32_t e = 0; e < ffn.num_experts; ++e) {
    if (!active[e]) continue;
    ++plan[1];
    const bool gpu = (pattern >> e & 1U) != 0 && slot < static_cast<int32_t>(kTestSlots);
    const auto group = static_cast<int32_t>(device->store().topology().group_of(e));
    plan.insert(plan.end(), {static_cast<int32_t>(e), gpu ? -1 : group, gpu ? slot++ : -1, gpu ? 1 : 0});
  }
  return plan;
}

/// One step; returns the logits, empty if it was aborted. `before_logits` is called between them and the
/// layers.
std::vector<float> run(
    TestDevice& device, const std::vector<Sequence>& sequences, Plan pattern = kAllNdp,
    const std::function<void()>& before_logits = [] {}) {
  TestDevice::must(device.begin(sequences));
  uint32_t tokens = 0;
  for (const Sequence& s : sequences) tokens += static_cast<uint32_t>(s.tokens.size());
  const auto layers = static_cast<uint32_t>(device->spec().layers.size());
  uint32_t ticket = 0;
  bool aborted = false;
  if (!device->store().topology().gpu_lane) {
    TestDevice::must(device->submit_layers(0, layers, &ticket));
    TestDevice::must(device->wait(ticket, &aborted));
    if (aborted) return {};
  }
  for (uint32_t layer = 0; device->store().topology().gpu_lane && layer < layers; ++layer) {
    TestDevice::must(device->submit_attention(layer, &ticket));
    TestDevice::must(device->wait(ticket, &aborted));
    if (aborted) return {};
    if (!device->spec().layers[layer].ffn.is_moe) continue;
    const std::vector<int32_t> plan = make_plan(device, layer, tokens, pattern);
    TestDevice::must(device->submit_experts(plan.data(), plan.size(), &ticket));
  }
  before_logits();
  TestDevice::must(device->submit_logits(0, &ticket));
  TestDevice::must(device->wait(ticket, &aborted));
  if (aborted) return {};
  const float* logits = device->buffers().logits;
  return {logits, logits + sequences.size() * device->spec().vocab_size};
}

Topology topology(uint32_t units, uint32_t threads, uint32_t degree, uint32_t gpu_threads) {
  Topology t;
  t.units = units;
  t.threads_per_unit = threads;
  t.tp_degree = degree;
  t.gpu_lane = gpu_threads > 0;
  t.dense_ranks = gpu_threads > 0 ? gpu_threads : units * threads;
  return t;
}

float largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  float largest = a.size() == b.size() && !a.empty() ? 0 : INFINITY;
  for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
    const float difference = std::fabs(a[i] - b[i]);
    largest = std::isfinite(difference) ? std::fmax(largest, difference) : INFINITY;
  }
  return largest;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && !a.empty() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

const Sequence kPrompt{{5, 17, 33, 2, 60, 41, 8, 19, 70}, 0, {3}, 0};
const Sequence kNext{{12}, 9, {3}, 0};

void test_topologies(const ModelSpec& spec, const WeightFile& file) {
  TestDevice one(spec, file, topology(1, 1, 1, 0));
  const std::vector<float> prompt = run(one, {kPrompt});
  const std::vector<float> next = run(one, {kNext});
  for (const Topology& t :
       {topology(2, 1, 2, 0), topology(3, 1, 3, 0), topology(3, 1, 2, 0), topology(2, 2, 1, 0),
        topology(2, 1, 2, 1), topology(3, 1, 1, 2), topology(4, 1, 3, 1)}) {
    TestDevice device(spec, file, t);
    check(largest_difference(run(device, {kPrompt}, 0x2A), prompt) < 1e-4F, "prefill agrees with one unit");
    check(largest_difference(run(device, {kNext}, 0x55), next) < 1e-4F, "decode agrees with one unit");
  }
}

void test_plans_do_not_change_bits(const ModelSpec& spec, const WeightFile& file) {
  for (const Topology& t : {topology(2, 1, 2, 1), topology(3, 1, 2, 2)}) {
    TestDevice device(spec, file, t);
    const std::vector<float> prompt = run(device, {kPrompt});
    const std::vector<float> next = run(device, {kNext});
    for (const Plan pattern : {0x7FU, 0x15U, 0x2AU, 0x61U}) {
      check(same_bits(run(device, {kPrompt}, pattern), prompt), "another plan, the same prefill bits");
      check(same_bits(run(device, {kNext}, pattern), next), "another plan, the same decode bits");
    }
  }
}

void test_batches_do_not_change_bits(const ModelSpec& spec, const WeightFile& file) {
  TestDevice device(spec, file, topology(2, 1, 2, 0));
  const std::vector<float> alone = run(device, {kPrompt});
  const Sequence other{{1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18,
                        19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35},
                       0,
                       {0, 1},
                       1};
  std::vector<float> batch = run(device, {other, kPrompt});
  batch.erase(batch.begin(), batch.begin() + spec.vocab_size);
  check(same_bits(batch, alone), "a prompt beside another one keeps its bits");
  const std::vector<float> next = run(device, {kNext});
  Sequence first = kPrompt;
  first.tokens.resize(4);
  Sequence rest = kPrompt;
  rest.tokens.erase(rest.tokens.begin(), rest.tokens.begin() + 4);
  rest.position = 4;
  run(device, {first});
  check(same_bits(run(device, {rest}), alone), "a prompt in two chunks keeps its bits");
  check(same_bits(run(device, {kNext}), next), "and so does the token after it");
}

/// Heads that straddle ranks: a context of several parts, in one step (every head on one rank), in two (the
/// second one deals parts out) and token by token.
void test_parts_of_attention(const ModelSpec& spec, const WeightFile& file) {
  TestDevice one(spec, file, topology(1, 1, 1, 0)), two(spec, file, topology(2, 1, 2, 0));
  check(!two->store().heads_aligned(0) && one->store().heads_aligned(0), "three KV heads straddle two ranks");
  Sequence whole;
  for (uint32_t i = 0; i < 1100; ++i) whole.tokens.push_back(static_cast<int32_t>(i * i % 73));
  for (int32_t block = 0; block < 36; ++block) whole.blocks.push_back(block);
  const auto piece = [&](uint32_t first, uint32_t end) {
    Sequence part = whole;
    part.tokens.assign(whole.tokens.begin() + first, whole.tokens.begin() + end);
    part.position = first;
    return part;
  };
  const std::vector<float> expected = run(one, {whole});
  const std::vector<float> got = run(two, {whole});
  check(largest_difference(got, expected) < 1e-4F, "parts of attention agree with whole heads");
  run(two, {piece(0, 1005)});
  check(same_bits(run(two, {piece(1005, 1100)}), got), "parts dealt out give the bits of parts on one rank");
  run(two, {piece(0, 1020)});
  std::vector<float> last;
  for (uint32_t i = 1020; i < 1100; ++i) last = run(two, {piece(i, i + 1)});
  check(same_bits(last, got), "and so does decode, across a part's end");
}

void test_cancel(const ModelSpec& spec, const WeightFile& file) {
  for (const uint32_t gpu_threads : {0U, 1U}) {
    TestDevice device(spec, file, topology(2, 1, 2, gpu_threads));
    const std::vector<float> prompt = run(device, {kPrompt}, 0x15);
    device.flag(0).store(1);
    check(run(device, {kNext}, 0x15).empty(), "a raised flag aborts the step");
    device.flag(0).store(0);
    check(run(device, {kNext}, 0x15, [&device] { device.flag(0).store(1); }).empty(),
          "a flag raised behind the layers aborts the logits");
    device.flag(0).store(0);
    device.flag(1).store(1);
    check(same_bits(run(device, {kPrompt}, 0x15), prompt),
          "another request's flag does not matter, nothing was lost");
    // Raised at a random moment: the step ends one way or the other, and the next one is right.
    for (int round = 0; round < 30; ++round) {
      std::thread raiser([&device] { device.flag(0).store(1); });
      run(device, {kPrompt}, 0x2A);
      raiser.join();
      device.flag(0).store(0);
    }
    check(same_bits(run(device, {kPrompt}, 0x15), prompt), "right after thirty aborts");
  }
}

void test_prefetch(const ModelSpec& spec, const WeightFile& file) {
  TestDevice device(spec, file, topology(2, 1, 2, 1));
  const std::vector<float> prompt = run(device, {kPrompt});
  for (uint32_t round = 0; round < 20; ++round) {
    for (uint32_t slot = 0; slot < kTestSlots; ++slot) {
      TestDevice::must(device->submit_prefetch(2 * (round % 2), (round + slot) % 7, slot));
    }
    check(same_bits(run(device, {kPrompt}, 0x7F), prompt), "prefetches into slots in use do no harm");
  }
  device->drain();
  check(!device->take_completed_slots().empty(), "completed transfers are reported");
}

void test_refusals(const ModelSpec& spec, const WeightFile& file) {
  TestDevice device(spec, file, topology(2, 1, 2, 1));
  uint32_t ticket = 0;
  bool aborted = false;
  Sequence bad = kPrompt;
  bad.tokens[0] = 75;
  check(!device.begin({bad}).ok(), "token outside the vocabulary");
  bad = kPrompt;
  bad.blocks = {static_cast<int32_t>(kTestKvBlocks)};
  check(!device.begin({bad}).ok(), "KV block that does not exist");
  bad.blocks = {};
  check(!device.begin({bad}).ok(), "KV blocks that do not cover the tokens");
  bad = kPrompt;
  bad.cancel_slot = 4;
  check(!device.begin({bad}).ok(), "cancel slot that does not exist");
  bad = kPrompt;
  bad.state_target = 0;
  check(!device.begin({bad}).ok(), "state slot of a model without states");
  TestDevice::must(device.begin({kPrompt}));
  check(!device->submit_layers(0, 3, &ticket).ok(), "whole layers with a GPU lane");
  check(!device->submit_attention(3, &ticket).ok(), "layer that does not exist");
  TestDevice::must(device->submit_attention(0, &ticket));
  TestDevice::must(device->wait(ticket, &aborted));
  const std::vector<int32_t> good = make_plan(device, 0, 9, 0x7F);
  auto refused = [&](size_t at, int32_t value) {
    std::vector<int32_t> plan = good;
    plan[at] = value;
    return !device->submit_experts(plan.data(), plan.size(), &ticket).ok();
  };
  check(refused(0, 5), "plan for a layer that does not exist");
  check(refused(1, good[1] - 1), "plan that leaves an expert out");
  check(refused(1, 1000), "plan longer than its array");
  check(refused(2, 99), "plan with an expert that does not exist");
  check(refused(3, 1), "plan with the wrong NDP group");
  check(refused(4, -1), "GPU expert without a slot");
  check(refused(4, 99), "GPU expert in a slot that does not exist");
  check(refused(5, 0), "GPU expert in a slot that does not hold it");
  check(device->submit_experts(good.data(), good.size(), &ticket).ok(), "the plan itself is fine");
}

/// Column slices may start inside a superblock: the sum over ranks must not notice.
void test_cut_superblocks() {
  const ModelSpec spec = superblock_spec();
  const WeightFile file(spec);
  for (const DType dtype : {DType::Q4_K, DType::Q6_K, DType::Q8_0, DType::Q4_0}) {
    TestDevice one(spec, file, topology(1, 1, 1, 0), dtype);
    const std::vector<float> prompt = run(one, {kPrompt});
    float largest = 0;
    for (const float value : prompt) largest = std::fmax(largest, std::fabs(value));
    for (const Topology& t : {topology(2, 1, 2, 0), topology(3, 1, 3, 0), topology(2, 1, 2, 1)}) {
      TestDevice device(spec, file, t, dtype);
      // Activations are quantised after sums in another order, so that single codes may differ by one.
      const float difference = largest_difference(run(device, {kPrompt}, 0x15), prompt);
      check(largest > 0 && difference < 0.02F * largest, "quantised slices add up to the whole");
    }
  }
}

/// A slice quantised on its way in has the bytes of the same slice of a matrix that was quantised as a whole,
/// rows that end inside a superblock filled up with zeros.
void test_quantised_packing() {
  constexpr uint32_t kRows = 37;
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  for (const uint32_t cols : {512U, 192U, 96U}) {
    for (const DType held : {DType::Q8_0, DType::Q4_0, DType::Q4_K, DType::Q6_K, DType::BF16}) {
      for (const DType stored : {DType::F32, DType::F16, DType::BF16}) {
        const uint32_t block = traits(held).block_cols;
        const uint32_t whole = (cols + block - 1) / block * block;
        std::vector<float> values(size_t{kRows} * cols), padded(size_t{kRows} * whole);
        std::vector<std::byte> source(source_bytes(stored, kRows, cols));
        for (float& value : values) value = normal(random);
        quantize(stored, values.data(), kRows, cols, source.data());
        dequantize(stored, source.data(), values.data(), values.size());
        for (uint32_t row = 0; row < kRows; ++row)
          std::copy_n(values.data() + size_t{row} * cols, cols, padded.data() + size_t{row} * whole);
        std::vector<std::byte> quantised(source_bytes(held, kRows, whole));
        quantize(held, padded.data(), kRows, whole, quantised.data());
        for (const Range& range : split_evenly(cols, 3, 32, 32)) {
          const size_t bytes = packed_bytes(held, kRows, range.size(), range.begin);
          std::vector<std::byte> expected(bytes), got(bytes);
          const bool packed = pack(held, quantised.data(), source_bytes(held, 1, whole), kRows, range.begin,
                                   range.size(), expected.data());
          const bool run = run_pack_task({{Encoding::Plain, stored, source.data(), nullptr, cols, 0, 1},
                                          held,
                                          kRows,
                                          range.begin,
                                          range.size(),
                                          got.data(),
                                          0});
          check(packed && run && got == expected, "a quantised slice has the bytes of the quantised matrix");
        }
      }
    }
  }
}

/// Row and column slices of the second of two matrices that lie side by side with inputs before outputs have
/// the bytes of the same slices of the plain matrix.
void test_transposed_packing() {
  constexpr uint32_t kRows = 150, kCols = 192;
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  std::vector<float> plain(size_t{kRows} * kCols), side_by_side(2 * plain.size());
  for (float& value : side_by_side) value = normal(random);
  for (uint32_t row = 0; row < kRows; ++row) {
    for (uint32_t col = 0; col < kCols; ++col)
      plain[size_t{row} * kCols + col] = side_by_side[size_t{col} * 2 * kRows + kRows + row];
  }
  const auto packed = [](PackTask task, size_t bytes) {
    std::vector<std::byte> out(bytes);
    task.dst = out.data();
    check(run_pack_task(task), "a slice is packed");
    return out;
  };
  const auto* stored = reinterpret_cast<const std::byte*>(side_by_side.data() + kRows);
  const SourceRows source{Encoding::Plain, DType::F32, stored, nullptr, 2 * kRows, 0, 1};
  const SourceRows rows{
      Encoding::Plain, DType::F32, reinterpret_cast<const std::byte*>(plain.data()), nullptr, kCols, 0, 1};
  for (const DType held : {DType::F32, DType::Q8_0, DType::Q4_K}) {
    for (const Range& cut : split_evenly(kRows, 3, 16, 1)) {
      const size_t bytes = packed_bytes(held, cut.size(), kCols, 0);
      const PackTask task{source, held, cut.size(), 0, kCols, nullptr, 0, true, cut.begin, kCols};
      const PackTask expected{rows.from(cut.begin), held, cut.size(), 0, kCols, nullptr, 0};
      check(packed(task, bytes) == packed(expected, bytes), "rows of a transposed matrix");
    }
    for (const Range& cut : split_evenly(kCols, 3, 32, 32)) {
      const size_t bytes = packed_bytes(held, kRows, cut.size(), cut.begin);
      const PackTask task{source, held, kRows, cut.begin, cut.size(), nullptr, 0, true, 0, kCols};
      const PackTask expected{rows, held, kRows, cut.begin, cut.size(), nullptr, 0};
      check(packed(task, bytes) == packed(expected, bytes), "columns of a transposed matrix");
    }
  }
}

/// Candidates picked part by part and merged are those of a sort; of equal values the lowest id comes first.
void test_candidates() {
  std::mt19937 random(11);
  for (const uint32_t n : {1U, 63U, 64U, 700U, 5003U}) {
    for (const uint32_t count : {1U, 2U, 40U, kMaxCandidates}) {
      std::vector<float> row(n);
      // Few different values: many ties, also across the parts.
      for (float& value : row) value = static_cast<float>(random() % 97) - 40;
      std::vector<int32_t> sorted(n);
      for (uint32_t i = 0; i < n; ++i) sorted[i] = static_cast<int32_t>(i);
      std::stable_sort(sorted.begin(), sorted.end(), [&](int32_t a, int32_t b) {
        return row[static_cast<size_t>(a)] > row[static_cast<size_t>(b)];
      });
      std::vector<int32_t> ids(4 * kMaxCandidates);
      std::vector<float> values(ids.size());
      const Candidates lists{ids.data(), values.data()};
      std::vector<Candidates> parts;
      std::vector<uint32_t> held;
      for (const Range range : split(n, 3, 16)) {
        parts.push_back(lists.row(static_cast<uint32_t>(parts.size())));
        held.push_back(
            select_candidates(row.data() + range.begin, range.size(), range.begin, count, parts.back()));
      }
      const Candidates merged = lists.row(3);
      const uint32_t found = merge_candidates(parts, held.data(), count, merged);
      bool same = found == std::min(count, n);
      for (uint32_t i = 0; i < found; ++i)
        same = same && merged.ids[i] == sorted[i] && merged.values[i] == row[static_cast<size_t>(sorted[i])];
      check(same, "candidates of parts are the largest of the row");
    }
  }
}

void test_synthetic_weights() {
  for (const DType dtype : {DType::F32, DType::Q4_0, DType::Q6_K}) {
    const size_t bytes = 5000 * traits(dtype).block_bytes;
    const auto filled = [&](uint64_t place) {
      std::vector<std::byte> out(bytes);
      fill_synthetic(dtype, false, place, out.data(), bytes);
      return out;
    };
    check(filled(64) == filled(64) && filled(64) != filled(128), "made-up tensors differ and repeat");
    std::vector<float> values(bytes / traits(dtype).block_bytes * traits(dtype).block_cols);
    dequantize(dtype, filled(64).data(), values.data(), values.size());
    double squares = 0;
    for (const float value : values) squares += double{value} * value;
    const double deviation = std::sqrt(squares / static_cast<double>(values.size()));
    check(deviation > 0.005 && deviation < 0.06, "and have the size of trained ones");
  }
}

void test_load_errors(const ModelSpec& spec, const WeightFile& file) {
  auto load = [&](auto change) {
    DeviceOptions options;
    options.arena_bytes = size_t{1} << 26;
    const std::vector<std::atomic<int32_t>> flags(1);
    ComputeDevice device(spec, options, flags.data(), 1);
    TestDevice::must(device.start());
    uint32_t index = 0;
    TestDevice::must(device.open_file(file.path(), &index));
    std::vector<LoadRow> rows = file.rows();
    change(rows);
    const Status loaded = device.load_weights(rows);
    return loaded.ok() ? device.finish_load() : loaded;
  };
  check(load([](auto&) {}).ok(), "the unchanged table loads");
  check(load([](auto& rows) { rows.pop_back(); }).code == Code::WeightMissing, "missing weight");
  check(load([](auto& rows) { rows[0].rows = 74; }).row == 0, "wrong shape names its row");
  check(load([](auto& rows) { rows[4].offset = 1ULL << 40; }).row == 4,
        "offset beyond the file names its row");
  check(load([](auto& rows) { rows.push_back(rows[5]); }).code == Code::InvalidArgument,
        "weight given twice");
  check(load([](auto& rows) { rows[5].quantised = DType::Q4_0; }).row == 5,
        "columns that are no whole blocks name their row");
  check(load([](auto& rows) { rows[3].layer = 17; }).row == 3, "layer that does not exist");
  check(load([](auto& rows) { rows[5].source_width = 1 << 20; }).row == 5, "a part of rows that lie plainly");
}

}  // namespace
}  // namespace nearmoe::testing

int main() {
  using namespace nearmoe::testing;
  const nearmoe::ModelSpec spec = tiny_spec();
  const WeightFile file(spec);
  test_topologies(spec, file);
  test_plans_do_not_change_bits(spec, file);
  test_batches_do_not_change_bits(spec, file);
  test_parts_of_attention(spec, file);
  test_cancel(spec, file);
  test_prefetch(spec, file);
  test_refusals(spec, file);
  test_cut_superblocks();
  test_quantised_packing();
  test_transposed_packing();
  test_candidates();
  test_synthetic_weights();
  test_load_errors(spec, file);
  std::printf("%d failed\n", failures);
  return failures == 0 ? 0 : 1;
}
