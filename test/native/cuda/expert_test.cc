// dispatch, expert_gemv, expert_gemm, combine and top_k against plain loops.
#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

#include "kernels/activations.h"
#include "kernels/half.h"
#include "kernels/reference/reference.h"
#include "weights.h"

namespace gpu_test {
namespace {

using namespace nearmoe::cuda;

/// Distinct ids per token, ascending, as the router gives them; some experts get many tokens.
std::vector<int32_t> random_ids(uint32_t tokens, uint32_t top_k, uint32_t experts) {
  std::vector<int32_t> ids;
  for (uint32_t t = 0; t < tokens; ++t) {
    std::vector<int32_t> row;
    while (row.size() < top_k) {
      const auto id = static_cast<int32_t>(std::min(random_below(experts), random_below(experts)));
      if (std::find(row.begin(), row.end(), id) == row.end()) row.push_back(id);
    }
    std::sort(row.begin(), row.end());
    ids.insert(ids.end(), row.begin(), row.end());
  }
  return ids;
}

/// The lists as kernels and tests want them.
std::vector<std::vector<uint32_t>> pairs_by_expert(const std::vector<int32_t>& ids, uint32_t experts) {
  std::vector<std::vector<uint32_t>> lists(experts);
  for (uint32_t pair = 0; pair < ids.size(); ++pair) lists[static_cast<size_t>(ids[pair])].push_back(pair);
  return lists;
}

void check_dispatch(uint32_t tokens, uint32_t top_k, uint32_t experts) {
  const std::vector<int32_t> ids = random_ids(tokens, top_k, experts);
  const Buffer<int32_t> device_ids(ids);
  const uint32_t capacity = tokens + 1;
  Buffer<uint32_t> lists(size_t{experts} * capacity), counts(experts);
  const std::string name = text("dispatch %u tokens, %u of %u experts", tokens, top_k, experts);
  const auto launch = [&] {
    return dispatch({device_ids.data(), tokens, top_k, experts, capacity, lists.data(), counts.data()},
                    nullptr);
  };
  if (!run_in_orders(name, launch, lists, counts)) return;
  const std::vector<uint32_t> got = lists.get(), got_counts = counts.get();
  const std::vector<std::vector<uint32_t>> expected = pairs_by_expert(ids, experts);
  bool same = true;
  for (uint32_t e = 0; e < experts; ++e) {
    same = same && got_counts[e] == expected[e].size();
    for (size_t i = 0; same && i < expected[e].size(); ++i)
      same = got[size_t{e} * capacity + i] == expected[e][i];
  }
  check(same, name);
}

GPU_TEST(dispatch) {
  check_dispatch(1, 8, 128);
  check_dispatch(7, 2, 8);
  check_dispatch(70, 8, 60);
  check_dispatch(33, 1, 3);
  if (full()) check_dispatch(512, 8, 128);
}

/// An expert as slices over ranks, with its view; slices may be ragged.
struct TestExpert {
  std::vector<std::unique_ptr<TestMatrix>> gate, up, down;
  std::vector<float> gate_bias, up_bias, down_bias;  ///< zeros where it has none
  std::unique_ptr<Buffer<float>> device_biases;
  ExpertView view{};

  TestExpert(DType gate_dtype, DType down_dtype, uint32_t hidden, const std::vector<uint32_t>& slices,
             bool biased = false)
      : gate_bias(std::accumulate(slices.begin(), slices.end(), 0u)),
        up_bias(gate_bias.size()),
        down_bias(hidden) {
    if (biased) add_biases();
    uint32_t begin = 0;
    for (const uint32_t rows : slices) {
      gate.push_back(std::make_unique<TestMatrix>(gate_dtype, rows, hidden, 0.2f));
      up.push_back(std::make_unique<TestMatrix>(gate_dtype, rows, hidden, 0.2f));
      down.push_back(std::make_unique<TestMatrix>(down_dtype, hidden, rows, 0.2f, begin));
      const WeightView w = down.back()->view();
      view.slices[view.num_slices++] = {gate.back()->view().data,
                                        up.back()->view().data,
                                        w.data,
                                        rows,
                                        view.hidden_cols,
                                        w.group_bytes,
                                        w.superblocks,
                                        w.phase,
                                        begin};
      view.hidden_cols += round_up(rows, 32);
      begin += rows;
    }
  }

 private:
  void add_biases() {
    std::vector<float> all;
    for (std::vector<float>* bias : {&gate_bias, &up_bias, &down_bias}) {
      *bias = random_floats(bias->size(), 2.0f);
      all.insert(all.end(), bias->begin(), bias->end());
    }
    device_biases = std::make_unique<Buffer<float>>(all);
    view.gate_bias = device_biases->data();
    view.up_bias = view.gate_bias + gate_bias.size();
    view.down_bias = view.up_bias + up_bias.size();
  }
};

double activate(ActivationKind kind, double x, double up) {
  if (kind == ActivationKind::SwigluClamped) {
    const double g = std::fmin(x, 7.0);
    return g / (1 + std::exp(-1.702 * g)) * (std::fmin(std::fmax(up, -7.0), 7.0) + 1);
  }
  if (kind == ActivationKind::Silu) return x / (1 + std::exp(-x)) * up;
  if (kind == ActivationKind::GeluTanh)
    return 0.5 * x * (1 + std::tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x))) * up;
  return 0.5 * x * (1 + std::erf(x * 0.70710678118654752440)) * up;
}

/// The expert's output for a token in double, and how far float32 (and, for quantised down matrices, a hidden
/// value that rounds to the neighbouring int8) may be off.
void reference_expert(const TestExpert& e, ActivationKind kind, uint32_t hidden, const TestActivations& x,
                      uint32_t token, double share, std::vector<double>& out, std::vector<double>& slack,
                      double scale = 1.0) {
  out.assign(e.down_bias.begin(), e.down_bias.end());
  slack.assign(hidden, 0.0);
  size_t first_row = 0;
  for (size_t s = 0; s < e.gate.size(); first_row += e.gate[s++]->rows) {
    const uint32_t rows = e.gate[s]->rows;
    std::vector<float> h(rows);
    double largest = 0, error = 0;
    for (uint32_t r = 0; r < rows; ++r) {
      Product g = reference_product(*e.gate[s], r, x, token), u = reference_product(*e.up[s], r, x, token);
      for (Product* p : {&g, &u}) {
        p->sum *= scale;
        p->magnitude *= std::fabs(scale);
      }
      g.sum += e.gate_bias[first_row + r];
      u.sum += e.up_bias[first_row + r];
      h[r] = static_cast<float>(activate(kind, g.sum, u.sum));
      largest = std::fmax(largest, std::fabs(h[r]));
      error = std::fmax(
          error, share * (g.magnitude * (std::fabs(u.sum) + 1) + u.magnitude * (std::fabs(g.sum) + 1)));
    }
    const TestActivations prepared(h, 1, rows);
    if (wants_q8(e.down[s]->dtype)) error += 1.01 * largest / 127.0;  // one step of the largest block's scale
    for (uint32_t n = 0; n < hidden; ++n) {
      const Product p = reference_product(*e.down[s], n, prepared, 0);
      out[n] += p.sum;
      double weights = 0;
      for (uint32_t c = 0; c < rows; ++c) weights += std::fabs(e.down[s]->values[size_t{n} * rows + c]);
      // A few hidden values of a row may round differently, not all of them.
      slack[n] += share * p.magnitude + error * (wants_q8(e.down[s]->dtype) ? 4.0 * weights / rows : weights);
    }
  }
}

struct ExpertCase {
  DType gate_dtype, down_dtype;
  uint32_t hidden;
  std::vector<uint32_t> slices;
  ActivationKind activation;
  uint32_t tokens, top_k, experts, residents;
  bool biased = false;
  bool scales_input = false;  ///< the weights multiply what goes in, not what comes out
};

struct ExpertFixture {
  ExpertCase c;
  std::vector<std::unique_ptr<TestExpert>> experts;
  std::vector<int32_t> ids, slots;
  std::vector<float> weights, start;
  TestActivations x;
  Buffer<ExpertView> views;
  Buffer<int32_t> device_ids, device_slots;
  Buffer<float> device_weights, out;

  explicit ExpertFixture(const ExpertCase& c_)
      : c(c_),
        ids(random_ids(c.tokens, c.top_k, c.experts)),
        weights(random_floats(ids.size(), 0.5f)),
        start(random_floats(size_t{c.tokens} * c.hidden)),
        x(random_floats(size_t{c.tokens} * c.hidden), c.tokens, c.hidden),
        views(c.residents),
        device_ids(ids),
        device_slots(c.experts),
        device_weights(weights),
        out(start) {
    slots.assign(c.experts, -1);
    std::vector<ExpertView> host_views;
    for (uint32_t i = 0; i < c.residents; ++i) {
      experts.push_back(
          std::make_unique<TestExpert>(c.gate_dtype, c.down_dtype, c.hidden, c.slices, c.biased));
      host_views.push_back(experts.back()->view);
      slots[c.residents - 1 - i] = static_cast<int32_t>(i);  // slots in another order than ids
    }
    views.set(host_views);
    device_slots.set(slots);
  }
  ExpertShape shape() const {
    return {c.gate_dtype,
            c.down_dtype,
            weight_layout(c.gate_dtype, 0, c.hidden),
            c.hidden,
            experts[0]->view.hidden_cols,
            c.activation};
  }
  PairRouting routing() const {
    return {views.data(),
            device_ids.data(),
            device_slots.data(),
            c.scales_input ? nullptr : device_weights.data(),
            c.tokens,
            c.top_k};
  }
  const float* input_scales() const { return c.scales_input ? device_weights.data() : nullptr; }
  std::string name(const char* op) const {
    return text("%s %s/%s, hidden %u, %zu slices, %u tokens, %u of %u experts, %u resident%s%s", op,
                nearmoe::traits(c.gate_dtype).name, nearmoe::traits(c.down_dtype).name, c.hidden,
                c.slices.size(), c.tokens, c.top_k, c.experts, c.residents, c.biased ? ", biased" : "",
                c.scales_input ? ", scaled input" : "");
  }
  void compare(const std::string& what, float multiplier, double share) const {
    std::vector<double> expected(start.begin(), start.end()), tolerance(start.size(), 1e-6);
    std::vector<double> y, slack;
    for (uint32_t pair = 0; pair < ids.size(); ++pair) {
      const int32_t slot = slots[static_cast<size_t>(ids[pair])];
      if (slot < 0) continue;
      reference_expert(*experts[static_cast<size_t>(slot)], c.activation, c.hidden, x, pair / c.top_k, share,
                       y, slack, c.scales_input ? weights[pair] : 1.0);
      const double weight = static_cast<double>(multiplier) * (c.scales_input ? 1.0 : weights[pair]);
      for (uint32_t n = 0; n < c.hidden; ++n) {
        const size_t at = size_t{pair / c.top_k} * c.hidden + n;
        expected[at] += weight * y[n];
        tolerance[at] += std::fabs(weight) * (slack[n] + 1e-7);
      }
    }
    check_close(what, out.get(), expected, tolerance);
  }
  std::vector<std::byte> collect() const {
    std::vector<std::byte> bytes;
    append_bytes(bytes, out);
    return bytes;
  }
};

void check_expert_gemv(const ExpertCase& c) {
  ExpertFixture f(c);
  TestSinks hidden(c.tokens * c.top_k, f.experts[0]->view.hidden_cols);
  const std::string name = f.name("expert_gemv");
  const ExpertGemvArgs args{f.shape(),     f.routing(),  f.x.view(), f.input_scales(),
                            hidden.view(), f.out.data(), c.hidden,   0.22f};
  if (!run_in_orders(
          name, [&] { f.out.set(f.start); }, [&] { return expert_gemv(args, nullptr); },
          [&] { return f.collect(); }))
    return;
  f.compare(name, 0.22f, 3e-6);
}

void check_expert_gemm(const ExpertCase& c) {
  if (!(wants_q8(c.gate_dtype) && wants_q8(c.down_dtype)) && !has_bf16_matrices()) return;
  ExpertFixture f(c);
  const std::string name = f.name("expert_gemm");
  const std::vector<std::vector<uint32_t>> lists = pairs_by_expert(f.ids, c.experts);
  std::vector<uint32_t> flat;
  std::vector<ExpertTile> tiles;
  for (uint32_t e = 0; e < c.experts; ++e) {
    if (f.slots[e] < 0) continue;
    for (uint32_t at = 0; at < lists[e].size(); at += expert_gemm_tile_tokens()) {
      const auto count =
          static_cast<uint32_t>(std::min<size_t>(lists[e].size() - at, expert_gemm_tile_tokens()));
      const auto first = static_cast<uint32_t>(flat.size());
      tiles.push_back({static_cast<uint32_t>(f.slots[e]), first, count, first});
      flat.insert(flat.end(), lists[e].begin() + at, lists[e].begin() + at + count);
    }
  }
  if (tiles.empty()) return check(false, name + ": no pairs in the test");
  const uint32_t cols = f.experts[0]->view.hidden_cols, rows = static_cast<uint32_t>(flat.size());
  const Buffer<ExpertTile> device_tiles(tiles);
  const Buffer<uint32_t> device_lists(flat);
  Buffer<float> hidden(size_t{rows} * cols), outputs(f.ids.size() * c.hidden);
  TestSinks prepared(rows, cols);
  const ExpertGemmArgs args{f.shape(),
                            f.views.data(),
                            device_tiles.data(),
                            static_cast<uint32_t>(tiles.size()),
                            device_lists.data(),
                            c.top_k,
                            rows,
                            f.x.view(),
                            f.input_scales(),
                            hidden.data(),
                            cols,
                            prepared.view(),
                            outputs.data(),
                            c.hidden};
  const auto launch = [&] {
    const cudaError_t error = expert_gemm(args, nullptr);
    if (error != cudaSuccess) return error;
    return combine({f.out.data(), c.hidden, c.hidden, f.routing(), outputs.data(), c.hidden, 0.22f}, nullptr);
  };
  if (!run_in_orders(
          name, [&] { f.out.set(f.start); }, launch, [&] { return f.collect(); }))
    return;
  f.compare(name, 0.22f, wants_q8(c.gate_dtype) && wants_q8(c.down_dtype) ? 3e-6 : 6e-5);
}

/// The same cases for both; slices of quantised formats are multiples of 32.
std::vector<ExpertCase> expert_cases(uint32_t tokens) {
  std::vector<ExpertCase> cases;
  for (const DType dtype : kFormats) {
    const bool superblocks = nearmoe::traits(dtype).block_cols == 256;
    const bool quantised = wants_q8(dtype);
    const std::vector<uint32_t> slices = superblocks ? std::vector<uint32_t>{96, 160}
                                         : quantised ? std::vector<uint32_t>{64, 32}
                                                     : std::vector<uint32_t>{13, 40, 1};
    cases.push_back({dtype, dtype,
                     superblocks ? 256u
                     : quantised ? 64u
                                 : 50u,
                     slices, ActivationKind::Silu, tokens, 2, 6, 4});
  }
  cases.push_back({DType::Q4_K, DType::Q6_K, 256, {256}, ActivationKind::GeluTanh, tokens, 3, 5, 5});
  cases.push_back({DType::BF16, DType::Q8_0, 33, {32, 32, 32}, ActivationKind::Gelu, tokens, 1, 3, 3});
  for (const DType dtype : {DType::Q8_0, DType::F32})  // Llama 4
    cases.push_back({dtype, dtype, 64, {32, 32}, ActivationKind::Silu, tokens, 1, 3, 2, false, true});
  // gpt-oss, its slices ragged.
  cases.push_back(
      {DType::MXFP4, DType::MXFP4, 64, {64, 32}, ActivationKind::SwigluClamped, tokens, 2, 5, 3, true});
  cases.push_back(
      {DType::F32, DType::F32, 45, {17, 5, 30}, ActivationKind::SwigluClamped, tokens, 2, 5, 4, true});
  return cases;
}

GPU_TEST(expert_gemv) {
  for (const ExpertCase& c : expert_cases(3)) check_expert_gemv(c);
  if (full())
    check_expert_gemv({DType::Q4_0, DType::Q4_0, 512, {192, 192}, ActivationKind::Silu, 1, 8, 16, 10});
}

GPU_TEST(expert_gemm) {
  for (const ExpertCase& c : expert_cases(11)) check_expert_gemm(c);
  if (full()) check_expert_gemm({DType::Q4_0, DType::Q4_0, 128, {64, 64}, ActivationKind::Silu, 90, 2, 3, 2});
}

/// Dense blocks and shared experts: one view, no ids, the gate as weight.
GPU_TEST(shared_expert) {
  const uint32_t tokens = 3, hidden_size = 40;
  const TestExpert expert(DType::F32, DType::F32, hidden_size, {48});
  const TestActivations x(random_floats(tokens * hidden_size), tokens, hidden_size);
  const std::vector<float> gate_weight = random_floats(hidden_size),
                           start = random_floats(tokens * hidden_size);
  const Buffer<float> device_gate(gate_weight);
  const Buffer<ExpertView> views(std::vector<ExpertView>{expert.view});
  Buffer<float> gates(tokens), out(start);
  TestSinks hidden(tokens, expert.view.hidden_cols);
  const ExpertShape shape{DType::F32,
                          DType::F32,
                          weight_layout(DType::F32, 0, hidden_size),
                          hidden_size,
                          expert.view.hidden_cols,
                          ActivationKind::Silu};
  const auto launch = [&] {
    const cudaError_t error =
        shared_gate({x.view().f32, x.stride, hidden_size, tokens, device_gate.data(), gates.data()}, nullptr);
    if (error != cudaSuccess) return error;
    return expert_gemv({shape,
                        {views.data(), nullptr, nullptr, gates.data(), tokens, 1},
                        x.view(),
                        nullptr,
                        hidden.view(),
                        out.data(),
                        hidden_size,
                        1.0f},
                       nullptr);
  };
  const auto collect = [&] {
    std::vector<std::byte> bytes;
    append_bytes(bytes, out);
    return bytes;
  };
  if (!run_in_orders(
          "shared expert", [&] { out.set(start); }, launch, collect))
    return;
  std::vector<double> expected(start.begin(), start.end()), tolerance(start.size(), 1e-5), y, slack;
  for (uint32_t t = 0; t < tokens; ++t) {
    reference_expert(expert, ActivationKind::Silu, hidden_size, x, t, 3e-6, y, slack);
    double sum = 0;
    for (uint32_t i = 0; i < hidden_size; ++i)
      sum += static_cast<double>(gate_weight[i]) * x.padded[size_t{t} * x.stride + i];
    for (uint32_t n = 0; n < hidden_size; ++n) {
      expected[size_t{t} * hidden_size + n] += y[n] / (1 + std::exp(-sum));
      tolerance[size_t{t} * hidden_size + n] += slack[n];
    }
  }
  check_close("shared expert", out.get(), expected, tolerance);
}

GPU_TEST(add_partial) {
  const uint32_t tokens = 3, cols = 300;
  const std::vector<float> start = random_floats(tokens * 320),
                           partial = random_floats(tokens * cols, 1.0f, true);
  const Buffer<float> device_partial(partial);
  Buffer<float> hidden(start);
  const auto collect = [&] {
    std::vector<std::byte> bytes;
    append_bytes(bytes, hidden);
    return bytes;
  };
  const auto launch = [&] {
    return add_partial({hidden.data(), 320, cols, tokens, device_partial.data(), 0.22f}, nullptr);
  };
  if (!run_in_orders(
          "add_partial", [&] { hidden.set(start); }, launch, collect))
    return;
  std::vector<float> expected = start;
  for (uint32_t t = 0; t < tokens; ++t) {
    for (uint32_t i = 0; i < cols; ++i)
      expected[t * 320 + i] = std::fma(0.22f, partial[t * cols + i], expected[t * 320 + i]);
  }
  check_same("add_partial", hidden.get(), expected);
}

void check_top_k(uint32_t rows, uint32_t vocab, uint32_t k) {
  const uint32_t stride = vocab + 5;
  std::vector<float> logits = random_floats(size_t{rows} * stride, 5.0f, true);
  for (uint32_t i = 0; i < vocab; i += 3) logits[i] = 7.0f;  // more ties than candidates
  logits[stride] = INFINITY;
  logits[stride + 1] = -INFINITY;
  logits[stride + 2] = NAN;
  const Buffer<float> device_logits(logits);
  Buffer<unsigned long long> workspace(top_k_workspace(rows, vocab, k));
  Buffer<int32_t> ids(size_t{rows} * k);
  Buffer<float> values(size_t{rows} * k);
  const std::string name = text("top_k %u of %u, %u rows", k, vocab, rows);
  const auto launch = [&] {
    return top_k({device_logits.data(), stride, rows, vocab, k, workspace.data(), ids.data(), values.data()},
                 nullptr);
  };
  if (!run_in_orders(name, launch, ids, values)) return;
  std::vector<int32_t> expected_ids;
  std::vector<float> expected_values;
  for (uint32_t r = 0; r < rows; ++r) {
    std::vector<float> row(logits.begin() + r * stride, logits.begin() + r * stride + vocab);
    for (float& x : row) x = std::isnan(x) ? -INFINITY : x;
    std::vector<int32_t> order(vocab);
    std::iota(order.begin(), order.end(), 0);
    // -0 and 0 are different keys: the bits decide, as in the kernel.
    const auto before = [&](int32_t a, int32_t b) {
      const float x = row[static_cast<size_t>(a)], y = row[static_cast<size_t>(b)];
      return x != y ? x > y : std::signbit(x) < std::signbit(y);
    };
    std::stable_sort(order.begin(), order.end(), before);
    for (uint32_t i = 0; i < k; ++i) {
      expected_ids.push_back(order[i]);
      expected_values.push_back(row[static_cast<size_t>(order[i])]);
    }
  }
  check_same(name + ", ids", ids.get(), expected_ids);
  check_same(name + ", values", values.get(), expected_values);
}

GPU_TEST(top_k) {
  check_top_k(2, 40, 40);
  check_top_k(3, 1000, 1);
  check_top_k(2, 4100, 20);
  if (full()) check_top_k(2, 20000, 256);
}

}  // namespace
}  // namespace gpu_test
