// Times every op per ISA and format against what the machine can do, and prints one JSON object a line;
// bench/kernels.mjs makes tables of them. Usage:
//   kernel_bench [--isa NAME] [--dtype NAME] [--op decode|prefill|vector|attention|delta] [--memory-gib N]
//   [--threads N]
//                [--rounds N] [--rows N --cols N] [--tokens N]
// Weights of the decode case are cold: copies fill --memory-gib (default 4), each round reads other ones.
// Reads of the same memory are timed in between, so that both see the same neighbours; shares are ratios of
// medians.
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>

#include "kernels/ops.h"
#include "native/runtime/ceiling_loops.h"
#include "workers.h"

namespace nearmoe::bench {
namespace {

/// Runs side by side in the plain reads: the fastest of a few counts on the machines seen.
constexpr ReadPattern kPlainReads = {4, Nearness::L2};
/// About a millisecond of the densest loop.
constexpr uint64_t kPeakRounds = 50000;

struct Options {
  std::string isa, dtype, op;
  size_t memory = size_t{4} << 30, rows = 0, cols = 0, tokens = 0;
  unsigned threads = 2;
  size_t rounds = 15;
};

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

std::vector<const OpTable*> tables(const Options& options) {
  const OpTable* found[8];
  const size_t count = runnable_ops(found, 8);
  std::vector<const OpTable*> out;
  for (size_t i = 0; i < count; ++i) {
    if (options.isa.empty() ? i > 0 : options.isa == found[i]->isa) out.push_back(found[i]);
  }
  return out;
}

struct Shape {
  std::string name;
  uint32_t rows, cols;
};
// One unit's slice with two units: gate and up cut by rows, down by columns.
const Shape kShapes[] = {{"olmoe gate/2", 512, 2048},
                         {"olmoe down/2", 2048, 512},
                         {"qwen3 gate/2", 384, 2048},
                         {"qwen3 down/2", 2048, 384}};

std::vector<Shape> shapes(const Options& options) {
  if (options.rows) {
    return {{std::to_string(options.rows) + " x " + std::to_string(options.cols),
             static_cast<uint32_t>(options.rows), static_cast<uint32_t>(options.cols)}};
  }
  return {std::begin(kShapes), std::end(kShapes)};
}

struct Memory {
  std::byte* data;
  size_t size;

  explicit Memory(size_t bytes) : size(bytes) {
    constexpr size_t kHuge = size_t{2} << 20;
    void* p = mmap(nullptr, bytes + kHuge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
      std::fprintf(stderr, "kernel_bench: cannot map %zu bytes\n", bytes);
      std::exit(1);
    }
    const auto address = (reinterpret_cast<uintptr_t>(p) + kHuge - 1) / kHuge * kHuge;
    data = reinterpret_cast<std::byte*>(address);
    madvise(data, size, MADV_HUGEPAGE);
  }
};

std::vector<std::byte> packed_weights(DType dtype, uint32_t rows, uint32_t cols) {
  const FormatTraits& format = traits(dtype);
  const size_t full_cols = (cols + format.block_cols - 1) / format.block_cols * format.block_cols;
  std::vector<float> values(size_t{rows} * full_cols);
  std::minstd_rand random(1);
  for (float& v : values) v = static_cast<float>(random() % 2001) * 1e-3f - 1.0f;
  std::vector<std::byte> source(source_bytes(dtype, rows, full_cols));
  if (!quantize(dtype, values.data(), rows, full_cols, source.data())) {
    // Formats without a quantiser: any bits, with exponents kept small.
    for (std::byte& b : source) b = static_cast<std::byte>(random() & 0x3b);
  }
  std::vector<std::byte> packed(packed_bytes(dtype, rows, cols));
  if (!pack(dtype, source.data(), source_bytes(dtype, 1, full_cols), rows, 0, cols, packed.data()))
    std::abort();
  return packed;
}

struct Activations {
  std::vector<std::byte> storage;
  std::byte* data;
  size_t stride;

  Activations(const OpTable& ops, DType dtype, uint32_t cols, size_t tokens) {
    const ActFormat format = traits(dtype).activation;
    stride = activation_stride(format, cols);
    storage.resize(stride * tokens + 64);
    data = storage.data() + (64 - reinterpret_cast<uintptr_t>(storage.data()) % 64) % 64;
    std::vector<float> x(cols * tokens);
    for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i));
    ops.prepare_activations(format, x.data(), cols, tokens, cols, data);
  }
};

void print(const char* op, const OpTable& ops, const char* what, const char* format, const char* shape,
           size_t tokens, unsigned threads, double value, const char* unit, double ceiling, double share) {
  std::printf(
      "{\"op\":\"%s\",\"isa\":\"%s\",\"case\":\"%s\",\"format\":\"%s\",\"shape\":\"%s\",\"tokens\":%zu,"
      "\"threads\":%u,\"value\":%.3f,\"unit\":\"%s\",\"ceiling\":%.3f,\"share\":%.4f}\n",
      op, ops.isa, what, format, shape, tokens, threads, value, unit, ceiling, share);
  std::fflush(stdout);
}

/// One token over cold weights, in turn with plain reads.
void bench_decode(const Options& options, Workers& workers, const Memory& memory, const OpTable& ops,
                  DType dtype) {
  for (const Shape& shape : shapes(options)) {
    const std::vector<std::byte> packed = packed_weights(dtype, shape.rows, shape.cols);
    const Activations x(ops, dtype, shape.cols, 1);
    constexpr size_t kSegment = size_t{64} << 20;
    const size_t segments = memory.size / kSegment;
    const size_t copies = kSegment / packed.size();
    workers.run(options.threads, [&](unsigned t) {
      for (size_t s = t; s < segments; s += options.threads) {
        for (size_t c = 0; c < copies; ++c) {
          std::memcpy(memory.data + s * kSegment + c * packed.size(), packed.data(), packed.size());
        }
      }
    });
    size_t turn = 0;
    for (unsigned threads = 1; threads <= options.threads; ++threads) {
      std::vector<double> read, compute;
      const size_t each = copies / threads;
      const double bytes = static_cast<double>(each * packed.size() * threads);
      for (size_t round = 0; round < 2 * options.rounds; ++round) {
        const std::byte* segment = memory.data + turn++ % segments * kSegment;
        const double seconds = workers.run(threads, [&](unsigned t) {
          const std::byte* mine = segment + t * each * packed.size();
          if (round % 2 == 0) return read_lines(mine, each * packed.size(), kPlainReads);
          std::vector<float> y(shape.rows);
          for (size_t c = 0; c < each; ++c) {
            const PackedMatrix w{mine + c * packed.size(), shape.rows, shape.cols, dtype};
            ops.matmul(w, {x.data, x.stride, nullptr, 1}, y.data(), shape.rows);
          }
        });
        (round % 2 == 0 ? read : compute).push_back(bytes / seconds / 1e9);
      }
      print("matmul", ops, "decode", traits(dtype).name, shape.name.c_str(), 1, threads, median(compute),
            "GB/s", median(read), median(compute) / median(read));
    }
  }
}

/// Multiply-adds per second / 1e9 of the table's densest instruction; 0 for a table without SIMD.
double compute_peak(Workers& workers, const OpTable& ops, const char* unit, unsigned threads) {
  const MultiplyLoop loop = multiply_loop(ops.isa, std::strcmp(unit, "int8") == 0);
  if (loop == nullptr) return 0;
  uint64_t work[64] = {};
  const double seconds = workers.run(threads, [&](unsigned t) { work[t] = loop(kPeakRounds); });
  return static_cast<double>(work[0]) * threads / seconds / 1e9;
}

/// Many tokens: gathered rows of a larger batch, a few matrices in turn.
void bench_prefill(const Options& options, Workers& workers, const OpTable& ops, DType dtype) {
  for (const Shape& shape : shapes(options)) {
    const std::vector<std::byte> packed = packed_weights(dtype, shape.rows, shape.cols);
    constexpr size_t kMatrices = 4;
    std::vector<std::vector<std::byte>> copies;
    std::vector<const std::byte*> aligned;
    for (size_t i = 0; i < kMatrices * options.threads; ++i) {
      copies.emplace_back(packed.size() + 64);
      std::byte* p = copies.back().data();
      p += (64 - reinterpret_cast<uintptr_t>(p) % 64) % 64;
      std::memcpy(p, packed.data(), packed.size());
      aligned.push_back(p);
    }
    const char* unit = traits(dtype).activation == ActFormat::Q8 ? "int8" : "f32";
    std::vector<size_t> token_counts = {2, 4, 8, 16, 64, 512};
    if (options.tokens) token_counts = {options.tokens};
    for (const size_t tokens : token_counts) {
      const Activations x(ops, dtype, shape.cols, 512);
      std::vector<uint32_t> index(tokens);
      for (size_t t = 0; t < tokens; ++t) index[t] = static_cast<uint32_t>(t * 37 % 512);
      std::vector<std::vector<float>> y(options.threads, std::vector<float>(size_t{shape.rows} * tokens));
      const double macs =
          static_cast<double>(kMatrices) * shape.rows * shape.cols * static_cast<double>(tokens);
      const size_t repeat = std::max<size_t>(1, static_cast<size_t>(4e8 / macs));
      for (unsigned threads = 1; threads <= options.threads; ++threads) {
        std::vector<double> reached, peaks;
        for (size_t round = 0; round < options.rounds; ++round) {
          const double seconds = workers.run(threads, [&](unsigned t) {
            for (size_t i = 0; i < repeat * kMatrices; ++i) {
              const PackedMatrix w{aligned[t * kMatrices + i % kMatrices], shape.rows, shape.cols, dtype};
              ops.matmul(w, {x.data, x.stride, index.data(), static_cast<uint32_t>(tokens)}, y[t].data(),
                         shape.rows);
            }
          });
          reached.push_back(macs * static_cast<double>(repeat) * threads / seconds / 1e9);
          peaks.push_back(compute_peak(workers, ops, unit, threads));
        }
        const double peak = median(peaks);
        print("matmul", ops, "prefill", traits(dtype).name, shape.name.c_str(), tokens, threads,
              median(reached), "GMAC/s", peak, peak > 0 ? median(reached) / peak : 0);
      }
    }
  }
}

/// Nanoseconds of one call, the median over rounds of many calls.
template <class Call>
double nanoseconds(const Options& options, Call call) {
  std::vector<double> times;
  for (size_t round = 0; round < options.rounds; ++round) {
    constexpr size_t kCalls = 200;
    const double start = now();
    for (size_t i = 0; i < kCalls; ++i) call();
    times.push_back((now() - start) / kCalls * 1e9);
  }
  return median(times);
}

void bench_vectors(const Options& options, const OpTable& ops) {
  constexpr size_t kHidden = 2048, kIntermediate = 1024;
  std::vector<float> x(kHidden), y(kHidden), w(kHidden, 1.0f);
  for (size_t i = 0; i < kHidden; ++i) x[i] = std::sin(static_cast<float>(i));
  Activations prepared(ops, DType::Q8_0, kHidden, 1);
  const auto report = [&](const char* op, size_t n, double ns) {
    print(op, ops, "vector", "f32", "", n, 1, ns, "ns", 0, 0);
  };
  report("prepare_activations", kHidden, nanoseconds(options, [&] {
           ops.prepare_activations(ActFormat::Q8, x.data(), kHidden, 1, kHidden, prepared.data);
         }));
  report("rms_norm", kHidden,
         nanoseconds(options, [&] { ops.rms_norm(x.data(), w.data(), 1e-5f, y.data(), kHidden); }));
  report("layer_norm", kHidden, nanoseconds(options, [&] {
           ops.layer_norm(x.data(), w.data(), w.data(), 1e-5f, y.data(), kHidden);
         }));
  report("rope", kHidden, nanoseconds(options, [&] {
           ops.rope(y.data(), 16, 128, 128, w.data(), x.data(), RopeStyle::Neox);
           std::fill(y.begin(), y.end(), 1.0f);
         }));
  report("gated_activation", kIntermediate, nanoseconds(options, [&] {
           ops.gated_activation(Activation::Silu, x.data(), w.data(), y.data(), kIntermediate);
         }));
  report("accumulate", kHidden,
         nanoseconds(options, [&] { ops.accumulate(x.data(), 0.1f, y.data(), kHidden); }));
  report("add", kHidden, nanoseconds(options, [&] { ops.add(x.data(), y.data(), kHidden); }));
  report("argmax", kHidden,
         nanoseconds(options, [&] { y[0] = static_cast<float>(ops.argmax(x.data(), kHidden)); }));
}

/// head_dim 128; OLMoE shares no KV head, Qwen3 eight query heads each.
void bench_attention(const Options& options, Workers& workers, const OpTable& ops) {
  const char* names[] = {"f32", "f16", "bf16", "q8_0"};
  constexpr uint32_t kHeadDim = 128, kPositions = 4096;
  for (int d = 0; d < 4; ++d) {
    const auto dtype = static_cast<KvDType>(d);
    const size_t block_bytes = kv_block_bytes(dtype, kHeadDim);
    Memory cache(block_bytes * kPositions / kKvBlockTokens);
    std::vector<const std::byte*> blocks;
    std::vector<float> k(kHeadDim);
    for (uint32_t p = 0; p < kPositions; ++p) {
      for (uint32_t i = 0; i < kHeadDim; ++i) k[i] = std::sin(static_cast<float>(p * 7 + i));
      std::byte* block = cache.data + p / kKvBlockTokens * block_bytes;
      ops.kv_store(dtype, k.data(), k.data(), kHeadDim, p % kKvBlockTokens, block);
      if (p % kKvBlockTokens == 0) blocks.push_back(block);
    }
    for (const uint32_t heads : {1u, 8u}) {
      for (const uint32_t tokens : {1u, 512u}) {
        std::vector<float> q(size_t{heads} * kHeadDim * tokens), out(q.size());
        for (size_t i = 0; i < q.size(); ++i) q[i] = std::sin(static_cast<float>(i));
        AttentionArgs args;
        args.q = q.data();
        args.out = out.data();
        args.q_stride = args.out_stride = size_t{heads} * kHeadDim;
        args.q_heads = heads;
        args.tokens = tokens;
        args.first_position = tokens == 1 ? kPositions - 1 : 0;
        args.head_dim = kHeadDim;
        args.blocks = blocks.data();
        args.kv_dtype = dtype;
        args.scale = 0.088f;
        const size_t calls = tokens == 1 ? 64 : 1;
        std::vector<double> rates, peaks;
        double pairs = 0;  // query-key pairs of a call
        for (uint32_t t = 0; t < tokens; ++t) pairs += args.first_position + t + 1;
        const double macs = pairs * heads * 2 * kHeadDim;
        for (size_t round = 0; round < options.rounds; ++round) {
          const double start = now();
          for (size_t i = 0; i < calls; ++i) ops.attention(args);
          rates.push_back(macs * static_cast<double>(calls) / (now() - start) / 1e9);
          peaks.push_back(compute_peak(workers, ops, "f32", 1));
        }
        const std::string shape = std::to_string(heads) + " heads";
        print("attention", ops, tokens == 1 ? "decode" : "prefill", names[d], shape.c_str(), tokens, 1,
              median(rates), "GMAC/s", median(peaks), median(rates) / median(peaks));
      }
    }
    munmap(cache.data, cache.size);
  }
}

/// Value heads of 128 x 128, as in Qwen3-Next; in decode each call has another state, so that they come from
/// memory. Multiply-adds of both reads and the update.
void bench_delta(const Options& options, Workers& workers, const OpTable& ops) {
  constexpr uint32_t kDim = 128;
  constexpr size_t kStates = 512, kFloats = delta_state_floats(kDim, kDim);
  Memory states(2 * kStates * kFloats * sizeof(float));
  std::memset(states.data, 0, states.size);
  for (const uint32_t tokens : {1u, 512u}) {
    std::vector<float> x(size_t{tokens} * kDim), gates(tokens, 0.5f), out(x.size());
    for (size_t i = 0; i < x.size(); ++i) x[i] = 0.1f * std::sin(static_cast<float>(i));
    GatedDeltaArgs args;
    args.q = args.k = args.v = x.data();
    args.key_stride = args.value_stride = args.out_stride = kDim;
    args.decay = args.beta = gates.data();
    args.gate_stride = 1;
    args.tokens = tokens;
    args.key_dim = args.value_dim = kDim;
    args.out = out.data();
    const size_t calls = tokens == 1 ? kStates : 4;
    const double macs = 4.0 * kDim * kDim * tokens;
    std::vector<double> rates, peaks;
    for (size_t round = 0; round < options.rounds; ++round) {
      const double start = now();
      for (size_t i = 0; i < calls; ++i) {
        auto* state = reinterpret_cast<float*>(states.data) + 2 * i * kFloats;
        args.state_in = state;
        args.state_out = state + kFloats;
        ops.gated_delta(args);
      }
      rates.push_back(macs * static_cast<double>(calls) / (now() - start) / 1e9);
      peaks.push_back(compute_peak(workers, ops, "f32", 1));
    }
    print("gated_delta", ops, tokens == 1 ? "decode" : "prefill", "f32", "128 x 128", tokens, 1,
          median(rates), "GMAC/s", median(peaks), median(rates) / median(peaks));
  }
  munmap(states.data, states.size);
}

int run(const Options& options) {
  Workers workers(options.threads);
  const auto wants = [&](const char* op) { return options.op.empty() || options.op == op; };
  Memory memory(wants("decode") ? options.memory : size_t{1} << 21);
  for (const OpTable* ops : tables(options)) {
    for (size_t d = 0; d < kNumDTypes; ++d) {
      const auto dtype = static_cast<DType>(d);
      if (!options.dtype.empty() && options.dtype != traits(dtype).name) continue;
      if (wants("decode")) bench_decode(options, workers, memory, *ops, dtype);
      if (wants("prefill")) bench_prefill(options, workers, *ops, dtype);
    }
    if (wants("vector")) bench_vectors(options, *ops);
    if (wants("attention")) bench_attention(options, workers, *ops);
    if (wants("delta")) bench_delta(options, workers, *ops);
  }
  return 0;
}

}  // namespace
}  // namespace nearmoe::bench

int main(int argc, char** argv) {
  nearmoe::bench::Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i], value = argv[i + 1];
    const auto number = static_cast<size_t>(std::atoll(value.c_str()));
    if (name == "--isa")
      options.isa = value;
    else if (name == "--dtype")
      options.dtype = value;
    else if (name == "--op")
      options.op = value;
    else if (name == "--memory-gib")
      options.memory = number << 30;
    else if (name == "--threads")
      options.threads = static_cast<unsigned>(number);
    else if (name == "--rounds")
      options.rounds = number;
    else if (name == "--rows")
      options.rows = number;
    else if (name == "--cols")
      options.cols = number;
    else if (name == "--tokens")
      options.tokens = number;
    else {
      std::fprintf(stderr, "kernel_bench: unknown option %s\n", name.c_str());
      return 2;
    }
  }
  return nearmoe::bench::run(options);
}
