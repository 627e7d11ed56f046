// The vector ops against the scalar reference: prepare_activations, norms, rope, accumulate, add, argmax bit
// for bit, gated_activation within its tolerance; on every length up to a few vectors and on misaligned
// memory.
#include "cases.h"

namespace nearmoe::testing {
namespace {

const size_t kLengths[] = {1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 768, 2048, 2051};

std::string run_prepare(const OpTable& ops) {
  Random random(5);
  for (const size_t cols : kLengths) {
    for (const ActFormat act : {ActFormat::F32, ActFormat::Q8}) {
      const size_t tokens = 3, stride = cols + 3, out_stride = activation_stride(act, cols);
      Buffer x(tokens * stride * 4, 4);
      fill_floats(random, x.floats(), tokens * stride);
      if (cols > 40) {  // values that cannot be quantised end up in the scale
        x.floats()[stride + 3] = INFINITY;
        x.floats()[stride + 35] = -NAN;
        x.floats()[2 * stride] = 3e38f;
      }
      Buffer expected(tokens * out_stride), got(tokens * out_stride);
      kScalarOps.prepare_activations(act, x.floats(), stride, tokens, cols, expected.data());
      ops.prepare_activations(act, x.floats(), stride, tokens, cols, got.data());
      for (size_t t = 0; t < tokens; ++t) {
        const std::byte* a = expected.data() + t * out_stride;
        const std::byte* b = got.data() + t * out_stride;
        if (act == ActFormat::F32) {
          if (std::memcmp(a, b, cols * 4) != 0) return format("f32, %zu columns differ", cols);
          continue;
        }
        const size_t blocks = (cols + 31) / 32;
        if (std::memcmp(a, b, q8_value_bytes(cols)) != 0)
          return format("int8 values of %zu columns differ", cols);
        for (size_t i = 0; i < blocks; ++i) {
          Q8Meta m[2];
          std::memcpy(&m[0], a + q8_value_bytes(cols) + i * sizeof(Q8Meta), sizeof(Q8Meta));
          std::memcpy(&m[1], b + q8_value_bytes(cols) + i * sizeof(Q8Meta), sizeof(Q8Meta));
          std::string wrong = compare_exact(&m[0].scale, &m[1].scale, 4, "block scales");
          if (!wrong.empty()) return wrong + format(" (%zu columns, block %zu)", cols, i);
          if (m[0].sum != m[1].sum || m[0].half[0] != m[1].half[0] || m[0].half[1] != m[1].half[1]) {
            return format("sums of block %zu of %zu columns differ", i, cols);
          }
        }
      }
    }
  }
  return {};
}

/// Quantised activations reproduce their values to half a step, and zeros stay zeros.
std::string run_prepare_accuracy(const OpTable& ops) {
  Random random(6);
  const std::vector<float> x = random_floats(random, 2048);
  Buffer out(activation_stride(ActFormat::Q8, 2048));
  ops.prepare_activations(ActFormat::Q8, x.data(), 2048, 1, 2048, out.data());
  const auto* values = reinterpret_cast<const int8_t*>(out.data());
  const auto* meta = reinterpret_cast<const Q8Meta*>(out.data() + q8_value_bytes(2048));
  for (size_t i = 0; i < 2048; ++i) {
    const float scale = meta[i / 32].scale;
    if (std::fabs(x[i] - scale * static_cast<float>(values[i])) > 0.5001f * scale + 2e-36f) {
      return format("value %zu is off by more than half a step", i);
    }
  }
  return {};
}

std::string run_norms(const OpTable& ops) {
  Random random(8);
  for (const size_t n : kLengths) {
    Buffer x(n * 4, 8), weight(n * 4, 4), bias(n * 4, 12), expected(n * 4), got(n * 4 + 64, 20);
    fill_floats(random, x.floats(), n);
    fill_floats(random, weight.floats(), n);
    fill_floats(random, bias.floats(), n);
    kScalarOps.rms_norm(x.floats(), weight.floats(), 1e-5f, expected.floats(), n);
    ops.rms_norm(x.floats(), weight.floats(), 1e-5f, got.floats(), n);
    std::string wrong = compare_exact(expected.floats(), got.floats(), n, "rms_norm");
    for (const float* b : {static_cast<const float*>(nullptr), static_cast<const float*>(bias.floats())}) {
      if (!wrong.empty()) return wrong + format(" (length %zu)", n);
      kScalarOps.layer_norm(x.floats(), weight.floats(), b, 1e-5f, expected.floats(), n);
      ops.layer_norm(x.floats(), weight.floats(), b, 1e-5f, got.floats(), n);
      wrong = compare_exact(expected.floats(), got.floats(), n, "layer_norm");
    }
    if (!wrong.empty()) return wrong + format(" (length %zu)", n);
    if (got.data()[n * 4] != std::byte{0xa5}) return format("wrote past length %zu", n);
  }
  return {};
}

std::string run_rope(const OpTable& ops) {
  Random random(9);
  struct Dims {
    size_t heads, head_dim, rotary_dim;
  };
  for (const Dims d :
       {Dims{3, 8, 8}, {1, 64, 64}, {4, 80, 32}, {2, 96, 96}, {5, 128, 128}, {3, 20, 10}, {1, 256, 64}}) {
    for (const RopeStyle style : {RopeStyle::Neox, RopeStyle::Interleaved}) {
      std::vector<float> cos(d.rotary_dim / 2), sin(d.rotary_dim / 2);
      for (size_t i = 0; i < cos.size(); ++i) {
        cos[i] = std::cos(static_cast<float>(i) * 0.7f);
        sin[i] = std::sin(static_cast<float>(i) * 0.7f);
      }
      const size_t n = d.heads * d.head_dim;
      std::vector<float> expected = random_floats(random, n);
      Buffer got(n * 4, 4);
      std::memcpy(got.data(), expected.data(), n * 4);
      kScalarOps.rope(expected.data(), d.heads, d.head_dim, d.rotary_dim, cos.data(), sin.data(), style);
      ops.rope(got.floats(), d.heads, d.head_dim, d.rotary_dim, cos.data(), sin.data(), style);
      std::string wrong = compare_exact(expected.data(), got.floats(), n, "rope");
      if (!wrong.empty()) return wrong + format(" (head_dim %zu, rotary %zu)", d.head_dim, d.rotary_dim);
    }
  }
  return {};
}

std::string run_sums(const OpTable& ops) {
  Random random(10);
  for (const size_t n : kLengths) {
    Buffer x(n * 4, 4), got(n * 4 + 64, 8);
    fill_floats(random, x.floats(), n);
    std::vector<float> expected = random_floats(random, n);
    std::memcpy(got.data(), expected.data(), n * 4);
    kScalarOps.accumulate(x.floats(), 0.37f, expected.data(), n);
    ops.accumulate(x.floats(), 0.37f, got.floats(), n);
    kScalarOps.add(x.floats(), expected.data(), n);
    ops.add(x.floats(), got.floats(), n);
    std::string wrong = compare_exact(expected.data(), got.floats(), n, "accumulate and add");
    if (!wrong.empty()) return wrong + format(" (length %zu)", n);
    if (got.data()[n * 4] != std::byte{0xa5}) return format("wrote past length %zu", n);
  }
  return {};
}

std::string run_argmax(const OpTable& ops) {
  Random random(11);
  for (const size_t n : kLengths) {
    for (int round = 0; round < 8; ++round) {
      Buffer x(n * 4, 4);
      float* v = x.floats();
      for (size_t i = 0; i < n; ++i) v[i] = static_cast<float>(random() % 5) - 9.0f;  // many ties
      if (round == 1) v[random() % n] = NAN;
      if (round == 2) std::fill(v, v + n, NAN);
      if (round == 3) std::fill(v, v + n, -INFINITY);
      if (round == 4) v[n - 1] = INFINITY;
      if (ops.argmax(v, n) != kScalarOps.argmax(v, n)) return format("length %zu, round %d", n, round);
    }
  }
  return {};
}

std::string run_activation(const OpTable& ops, Activation act) {
  Random random(12);
  for (const size_t n : kLengths) {
    Buffer gate(n * 4, 4), got(n * 4, 8);
    for (size_t i = 0; i < n; ++i) {
      gate.floats()[i] = (static_cast<float>(random() % 20001) - 10000.0f) * (random() % 4 ? 5e-4f : 2e-2f);
    }
    std::vector<float> up(n, 1.0f), expected(n);
    for (size_t i = 0; i < n; ++i) {
      // The clamped one looks at both sides of its bounds.
      up[i] = act == Activation::SwigluClamped ? 4.5f * (static_cast<float>(i % 5) - 1.5f)
                                               : 0.5f + static_cast<float>(i % 3);
    }
    kScalarOps.gated_activation(act, gate.floats(), up.data(), expected.data(), n);
    ops.gated_activation(act, gate.floats(), up.data(), got.floats(), n);
    for (size_t i = 0; i < n; ++i) {  // element by element: small outputs count as well
      const float allowed = kActivationTolerance * std::fmax(std::fabs(expected[i]), 1.0f);
      if (!(std::fabs(expected[i] - got.floats()[i]) <= allowed)) {
        return format("act(%.9g) * %.9g is %.9g, expected %.9g", static_cast<double>(gate.floats()[i]),
                      static_cast<double>(up[i]), static_cast<double>(got.floats()[i]),
                      static_cast<double>(expected[i]));
      }
    }
  }
  float x = NAN, one = 1.0f, out = 0.0f;
  ops.gated_activation(act, &x, &one, &out, 1);
  return std::isnan(out) ? "" : "NaN does not pass through";
}

}  // namespace

void add_vector_cases(Cases& cases) {
  for (const OpTable* ops : tables()) {
    cases.push_back({format("%s prepare_activations keeps values to half a step", ops->isa),
                     [ops] { return run_prepare_accuracy(*ops); }});
    if (ops == &kScalarOps) continue;
    const auto add = [&](const char* what, std::string (*run)(const OpTable&)) {
      cases.push_back(
          {format("%s %s equals the reference", ops->isa, what), [ops, run] { return run(*ops); }});
    };
    add("prepare_activations", run_prepare);
    add("rms_norm and layer_norm", run_norms);
    add("rope", run_rope);
    add("accumulate and add", run_sums);
    add("argmax", run_argmax);
    const char* names[] = {"silu", "gelu_tanh", "gelu", "swiglu_clamped", "sigmoid", "identity"};
    for (int a = 0; a < 6; ++a) {
      cases.push_back({format("%s gated_activation %s is within tolerance", ops->isa, names[a]),
                       [ops, a] { return run_activation(*ops, static_cast<Activation>(a)); }});
    }
  }
}

}  // namespace nearmoe::testing
