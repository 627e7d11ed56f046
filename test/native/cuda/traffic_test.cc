// What decode moves: sectors counted in the emulation against the least bytes that the inputs and outputs
// have. Weights, keys, values, parts and lists count once for each thread block that touches them, so a
// second block that reads them again shows; input rows, which all blocks share, count once.
#include "traffic.h"
#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/state_kernels.h"
#include "weights.h"

namespace gpu_test {
namespace {

using namespace nearmoe::cuda;

constexpr double kMostOverLeast = 1.1;

void check_traffic(const std::string& name, uint64_t moved, uint64_t least) {
  const double ratio = static_cast<double>(moved) / static_cast<double>(least);
  std::printf("     %s: %llu bytes, %.3f of the least\n", name.c_str(),
              static_cast<unsigned long long>(moved), ratio);
  check(ratio >= 0.999, name + ": fewer bytes than the data has, so the counter misses some");
  check(ratio <= kMostOverLeast, name + text(": %.3f times the least bytes", ratio));
}

void check_launch(const std::string& name, cudaError_t error) {
  if (error == cudaSuccess) error = cudaDeviceSynchronize();
  check(error == cudaSuccess, name + ": " + cudaGetErrorString(error));
}

template <class T>
size_t watch(const Buffer<T>& buffer) {
  return traffic::watch(buffer.data(), buffer.size() * sizeof(T));
}

GPU_TEST(gemv_traffic) {
  for (const DType dtype : kFormats) {
    for (const uint32_t tokens : {1u, 8u}) {
      const uint32_t rows = 256, cols = 2048;
      const TestMatrix w(dtype, rows, cols);
      const TestActivations x(random_floats(size_t{tokens} * cols), tokens, cols);
      Buffer<float> y(size_t{tokens} * rows);
      traffic::reset();
      const size_t weights = watch(w.device), outputs = watch(y);
      const bool q8 = wants_q8(dtype);
      const size_t input = q8 ? watch(x.q8) : watch(x.f32), scales = q8 ? watch(x.q8_meta) : input;
      MatmulArgs args{};
      args.dtype = dtype;
      args.segments[0] = {w.view(), nullptr, y.data(), rows};
      args.num_segments = 1;
      args.x = x.view();
      args.tokens = tokens;
      args.multiplier = 1.0f;
      const std::string name = text("gemv %s, %u tokens", nearmoe::traits(dtype).name, tokens);
      check_launch(name, gemv(args, nullptr));
      const uint64_t inputs = traffic::counted(input).distinct + (q8 ? traffic::counted(scales).distinct : 0);
      const uint64_t moved = traffic::counted(weights).blocks + traffic::counted(outputs).blocks + inputs;
      const uint64_t row = q8 ? cols + cols / 4 : 4 * cols;
      check_traffic(name, moved, w.packed.size() + size_t{tokens} * (row + 4 * rows));
    }
  }
}

struct DecodeShape {
  uint32_t heads, kv_heads, splits;
};

GPU_TEST(attention_decode_traffic) {
  // OLMoE and Qwen3-30B-A3B; parts of 192 positions, as the backend cuts them.
  const uint32_t positions = 768, head_dim = 128;
  for (const DecodeShape shape : {DecodeShape{16, 16, 4}, DecodeShape{32, 4, 4}}) {
    const uint32_t blocks = positions / kKvTokens, q_size = shape.heads * head_dim;
    std::vector<uint32_t> table(blocks);
    for (uint32_t b = 0; b < blocks; ++b) table[b] = blocks - 1 - b;
    const Buffer<uint32_t> block_table(table), offsets(std::vector<uint32_t>{0}),
        position(std::vector<uint32_t>{positions - 1});
    const uint32_t kv_dtype = 1;  // f16
    const size_t kv_bytes = kv_pool_block_bytes(kv_dtype, head_dim) * blocks * shape.kv_heads;
    const Buffer<uint8_t> kv(std::vector<uint8_t>(kv_bytes, 0));
    const Buffer<float> q(random_floats(q_size));
    Buffer<float> out(q_size), parts(attention_decode_workspace(1, shape.heads, head_dim, shape.splits));
    traffic::reset();
    const size_t pool = watch(kv), query = watch(q), output = watch(out), partial = watch(parts);
    const AttentionArgs args{q.data(),
                             q_size,
                             out.data(),
                             q_size,
                             shape.heads,
                             shape.kv_heads,
                             head_dim,
                             head_dim,
                             0.1f,
                             0.0f,
                             0,
                             0,
                             nullptr,
                             position.data(),
                             offsets.data(),
                             block_table.data(),
                             kv.data(),
                             kv_dtype};
    const std::string name =
        text("attention_decode, %u heads on %u, %u parts", shape.heads, shape.kv_heads, shape.splits);
    check_launch(name, attention_decode({args, nullptr, 1, shape.splits, parts.data()}, nullptr));
    // Parts are written once and read once.
    const uint64_t moved = traffic::counted(pool).blocks + traffic::counted(query).distinct +
                           traffic::counted(output).distinct + 2 * traffic::counted(partial).distinct;
    check_traffic(name, moved, kv_bytes + 2 * size_t{q_size} * sizeof(float));
  }
}

GPU_TEST(latent_attention_traffic) {
  // DeepSeek-V2-Lite and GLM-4.7-Flash, in parts as the backend cuts them.
  const uint32_t latent_dim = 576, value_dim = 512, kv_dtype = 1, splits = 2;
  for (const uint32_t heads : {16u, 20u}) {
    const uint32_t positions = heads == 16 ? 1376 : 1728, blocks = positions / kKvTokens;
    std::vector<uint32_t> table(blocks);
    for (uint32_t b = 0; b < blocks; ++b) table[b] = blocks - 1 - b;
    const Buffer<uint32_t> block_table(table), offsets(std::vector<uint32_t>{0}),
        position(std::vector<uint32_t>{positions - 1});
    const size_t kv_bytes = latent_pool_block_bytes(kv_dtype, latent_dim) * blocks;
    const Buffer<uint8_t> kv(std::vector<uint8_t>(kv_bytes, 0));
    const Buffer<float> q(random_floats(size_t{heads} * latent_dim));
    Buffer<float> out(size_t{heads} * value_dim),
        parts(latent_attention_workspace(1, heads, value_dim, splits));
    traffic::reset();
    const size_t pool = watch(kv), query = watch(q), output = watch(out), partial = watch(parts);
    LatentAttentionArgs args{};
    args.q = q.data();
    args.out = out.data();
    args.num_heads = heads;
    args.latent_dim = latent_dim;
    args.value_dim = value_dim;
    args.scale = 0.1f;
    args.positions = position.data();
    args.block_offsets = offsets.data();
    args.block_table = block_table.data();
    args.kv = kv.data();
    args.kv_dtype = kv_dtype;
    args.num_tiles = 1;
    args.num_splits = splits;
    args.partial = parts.data();
    const std::string name =
        text("latent_attention, %u heads, %u positions, %u parts", heads, positions, splits);
    check_launch(name, latent_attention(args, nullptr));
    const uint64_t moved = traffic::counted(pool).blocks + traffic::counted(query).distinct +
                           traffic::counted(output).distinct + 2 * traffic::counted(partial).distinct;
    check_traffic(name, moved, kv_bytes + size_t{heads} * (latent_dim + value_dim) * sizeof(float));
  }
}

GPU_TEST(gated_delta_traffic) {
  // Heads of Qwen3-Next, one token: the states are read once and written once.
  const uint32_t heads = 4, dim = 128, stride = (2 + heads) * dim;
  const Buffer<StateSequence> sequence(std::vector<StateSequence>{{0, 1, 0, 1}});
  const Buffer<uint32_t> sequence_of(std::vector<uint32_t>{0});
  const size_t floats = size_t{heads} * dim * dim;
  Buffer<float> states(std::vector<float>(2 * floats, 0.5f)), out(heads * dim);
  const Buffer<float> rows(random_floats(stride)), gates(random_floats(2 * heads)),
      rate(std::vector<float>(heads, -1.0f)), bias(random_floats(heads));
  traffic::reset();
  const size_t state = watch(states), input = watch(rows), output = watch(out);
  const float* q = rows.data();
  const GatedDeltaArgs args{q,
                            q + dim,
                            q + 2 * dim,
                            stride,
                            gates.data(),
                            gates.data() + heads,
                            2 * heads,
                            rate.data(),
                            bias.data(),
                            1,
                            heads,
                            dim,
                            dim,
                            false,
                            out.data(),
                            heads * dim,
                            {sequence.data(), 1, sequence_of.data(), {states.data(), floats}}};
  check_launch("gated_delta", gated_delta(args, nullptr));
  const uint64_t moved =
      traffic::counted(state).blocks + traffic::counted(input).distinct + traffic::counted(output).blocks;
  check_traffic("gated_delta, 4 heads of 128 x 128", moved,
                sizeof(float) * (2 * floats + stride + size_t{heads} * dim));
}

GPU_TEST(dispatch_traffic) {
  const uint32_t tokens = 512, top_k = 8, experts = 64, pairs = tokens * top_k;
  std::vector<int32_t> ids(pairs);
  for (uint32_t i = 0; i < pairs; ++i) ids[i] = static_cast<int32_t>((i * 7 + i / top_k) % experts);
  const Buffer<int32_t> device_ids(ids);
  Buffer<uint32_t> lists(size_t{experts} * tokens), counts(experts);
  traffic::reset();
  const size_t read = watch(device_ids), written = watch(lists), counted = watch(counts);
  check_launch(
      "dispatch",
      dispatch({device_ids.data(), tokens, top_k, experts, tokens, lists.data(), counts.data()}, nullptr));
  const uint64_t moved =
      traffic::counted(read).blocks + traffic::counted(written).blocks + traffic::counted(counted).blocks;
  check_traffic("dispatch, 512 tokens to 8 of 64", moved, 4 * (2 * size_t{pairs} + experts));
}

}  // namespace
}  // namespace gpu_test
