// Routing and experts of the bandwidth program: Qwen3-30B-A3B's shapes, whole experts.
#include <algorithm>
#include <cstddef>

#include "measure.h"

namespace gpu_test {
namespace {

using namespace nearmoe::cuda;

constexpr uint32_t kExperts = size_of(128, 8), kTopK = size_of(8, 2), kHidden = size_of(2048, 256),
                   kInner = size_of(768, 256);

/// As many experts as are cold together (a launch takes kTopK of them, or all), each in a slot of its number.
struct Experts {
  explicit Experts(DType dtype_)
      : dtype(dtype_),
        gate(dtype, kInner, kHidden),
        down(dtype, kHidden, kInner),
        bytes(2 * gate.packed.size() + down.packed.size()),
        count(std::max(static_cast<uint32_t>(kColdBytes / bytes / kExperts * kExperts), kExperts)),
        memory(bytes * count),
        views(count) {
    std::vector<ExpertView> host(count);
    const WeightView layout = down.view();
    for (uint32_t e = 0; e < count; ++e) {
      uint8_t* at = memory.data() + bytes * e;
      const size_t one = gate.packed.size();
      host[e].num_slices = 1;
      host[e].hidden_cols = kInner;
      host[e].slices[0] = {
          at, at + one, at + 2 * one, kInner, 0, layout.group_bytes, layout.superblocks, layout.phase, 0};
      for (int m = 0; m < 3; ++m) {
        const std::vector<std::byte>& packed = m == 2 ? down.packed : gate.packed;
        demand(cudaMemcpy(at + one * static_cast<size_t>(m), packed.data(), packed.size(),
                          cudaMemcpyHostToDevice),
               "upload");
      }
    }
    views.set(host);
  }
  ExpertShape shape() const {
    return {dtype, dtype, weight_layout(dtype, 0, kHidden), kHidden, kInner, ActivationKind::Silu};
  }

  DType dtype;
  TestMatrix gate, down;
  size_t bytes;
  uint32_t count;
  Buffer<uint8_t> memory;
  Buffer<ExpertView> views;
};

std::vector<int32_t> turns(uint32_t n, uint32_t experts) {
  std::vector<int32_t> ids(n);
  for (uint32_t i = 0; i < n; ++i) ids[i] = static_cast<int32_t>(i % experts);
  return ids;
}

void few_tokens(const Experts& e) {
  const Buffer<int32_t> ids(turns(e.count, e.count));  // also the slots
  const Buffer<float> weights(std::vector<float>(kTopK, 0.1f));
  const TestActivations x(random_floats(kHidden), 1, kHidden);
  TestSinks hidden(kTopK, kInner);
  Buffer<float> out(std::vector<float>(kHidden, 0.0f));
  measure(text("expert_gemv %s, 1 token, %u of %u experts", nearmoe::traits(e.dtype).name, kTopK, kExperts),
          {e.bytes * kTopK, 6.0 * kHidden * kInner * kTopK}, e.count / kTopK, [&](size_t i) {
            const PairRouting pairs{e.views.data(), ids.data() + i * kTopK, ids.data(), weights.data(), 1,
                                    kTopK};
            return expert_gemv(
                {e.shape(), pairs, x.view(), nullptr, hidden.view(), out.data(), kHidden, 1.0f}, nullptr);
          });
}

void many_tokens(const Experts& e) {
  const uint32_t tokens = size_of(512, 16), pairs = tokens * kTopK, each = pairs / kExperts;
  const TestActivations x(random_floats(size_t{tokens} * kHidden), tokens, kHidden);
  std::vector<uint32_t> lists;
  std::vector<ExpertTile> tiles;
  for (uint32_t expert = 0; expert < kExperts; ++expert) {
    for (uint32_t at = 0; at < each; at += expert_gemm_tile_tokens())
      tiles.push_back(
          {expert, expert * each + at, std::min(each - at, expert_gemm_tile_tokens()), expert * each + at});
    for (uint32_t i = 0; i < each; ++i) lists.push_back(i * kExperts + expert);
  }
  const Buffer<uint32_t> device_lists(lists);
  const Buffer<ExpertTile> device_tiles(tiles);
  Buffer<float> hidden(size_t{pairs} * kInner), outputs(size_t{pairs} * kHidden);
  TestSinks prepared(pairs, kInner);
  ExpertGemmArgs args{e.shape(),
                      e.views.data(),
                      device_tiles.data(),
                      static_cast<uint32_t>(tiles.size()),
                      device_lists.data(),
                      kTopK,
                      pairs,
                      x.view(),
                      nullptr,
                      hidden.data(),
                      kInner,
                      prepared.view(),
                      outputs.data(),
                      kHidden};
  measure(text("expert_gemm %s, %u tokens, %u of %u experts", nearmoe::traits(e.dtype).name, tokens, kTopK,
               kExperts),
          {e.bytes * kExperts + 4 * size_t{pairs} * kHidden, 6.0 * kHidden * kInner * pairs},
          e.count / kExperts, [&](size_t i) {
            args.views = e.views.data() + i * kExperts;
            return expert_gemm(args, nullptr);
          });
  const Buffer<int32_t> ids(turns(pairs, kExperts));
  const Buffer<float> weights(std::vector<float>(pairs, 0.1f));
  Buffer<float> out(std::vector<float>(size_t{tokens} * kHidden, 0.0f));
  const PairRouting routing{e.views.data(), ids.data(), ids.data(), weights.data(), tokens, kTopK};
  measure(text("combine, %u tokens of %u experts", tokens, kTopK),
          {4 * size_t{kHidden} * (pairs + 2 * tokens), 0}, 1, [&](size_t) {
            return combine({out.data(), kHidden, kHidden, routing, outputs.data(), kHidden, 1.0f}, nullptr);
          });
}

GPU_TEST(expert_bandwidth) {
  for (const DType dtype : {DType::BF16, DType::Q8_0, DType::Q4_0, DType::Q4_K, DType::MXFP4}) {
    const Experts experts(dtype);
    few_tokens(experts);
    if (wants_q8(dtype) || has_bf16_matrices()) many_tokens(experts);
  }
}

GPU_TEST(routing_bandwidth) {
  const uint32_t tokens = size_of(512, 16), pairs = tokens * kTopK;
  const Buffer<float> logits(random_floats(size_t{tokens} * kExperts));
  Buffer<int32_t> ids(turns(pairs, kExperts));
  Buffer<float> weights(pairs);
  RouterArgs args{};
  args.logits = logits.data();
  args.stride = kExperts;
  args.tokens = tokens;
  args.rule.num_experts = kExperts;
  args.rule.top_k = kTopK;
  args.rule.scoring = ScoringKind::Softmax;
  args.rule.normalise = true;
  args.rule.weight_multiplier = 1.0f;
  args.ids = ids.data();
  args.weights = weights.data();
  measure(text("router, %u tokens to %u of %u", tokens, kTopK, kExperts),
          {4 * size_t{tokens} * kExperts + 8 * size_t{pairs}, 0}, 1,
          [&](size_t) { return router(args, nullptr); });
  Buffer<uint32_t> lists(size_t{kExperts} * tokens), counts(kExperts);
  measure(
      text("dispatch, %u tokens to %u of %u", tokens, kTopK, kExperts), {8 * size_t{pairs} + 4 * kExperts, 0},
      1, [&](size_t) {
        return dispatch({ids.data(), tokens, kTopK, kExperts, tokens, lists.data(), counts.data()}, nullptr);
      });
}

}  // namespace
}  // namespace gpu_test
