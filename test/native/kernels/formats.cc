// The formats against an independent reader and writer: dequantize and quantize compared with gguf-py's
// results (fixtures made by scripts/goldens/kernels_gguf_fixtures.py), and the error of q4_k, which gguf-py
// cannot write.
#include <fstream>
#include <iterator>

#include "cases.h"

namespace nearmoe::testing {
namespace {

/// One record of the fixture file: a format's bytes and the floats gguf-py reads from them or wrote them
/// from.
struct Fixture {
  uint32_t dtype = 0, quantised_here = 0;  // 1: `values` were quantised to `bytes`
  std::vector<std::byte> bytes;
  std::vector<float> values;
};

std::vector<Fixture> load_fixtures(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> all((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::vector<Fixture> out;
  for (size_t at = 0; at + 16 <= all.size();) {
    uint32_t head[4];  // dtype, quantised, bytes, values
    std::memcpy(head, all.data() + at, sizeof head);
    at += sizeof head;
    Fixture f{head[0], head[1], std::vector<std::byte>(head[2]), std::vector<float>(head[3])};
    if (at + head[2] + 4 * size_t{head[3]} > all.size()) return {};
    std::memcpy(f.bytes.data(), all.data() + at, head[2]);
    std::memcpy(f.values.data(), all.data() + at + head[2], 4 * size_t{head[3]});
    at += head[2] + 4 * size_t{head[3]};
    out.push_back(f);
  }
  return out;
}

std::string check_fixtures(const std::string& path, DType dtype, bool quantised) {
  size_t checked = 0;
  for (const Fixture& f : load_fixtures(path)) {
    if (f.dtype != static_cast<uint32_t>(dtype) || (f.quantised_here != 0) != quantised) continue;
    ++checked;
    if (source_bytes(dtype, 1, f.values.size()) != f.bytes.size())
      return "the fixture's size does not fit the traits";
    if (quantised) {
      std::vector<std::byte> got(f.bytes.size());
      if (!quantize(dtype, f.values.data(), 1, f.values.size(), got.data()))
        return "quantize is not supported";
      for (size_t i = 0; i < got.size(); ++i) {
        if (got[i] != f.bytes[i]) return format("byte %zu differs", i);
      }
    } else {
      std::vector<float> got(f.values.size());
      dequantize(dtype, f.bytes.data(), got.data(), got.size());
      if (!same_bits(got.data(), f.values.data(), got.size())) {
        return compare_exact(f.values.data(), got.data(), got.size(), "values") +
               " (or only the sign of a zero)";
      }
    }
  }
  return checked ? "" : "no fixture in " + path;
}

/// Root mean square error of a quantisation of normal values, in parts of their size.
double relative_error(DType dtype) {
  Random random(41);
  std::normal_distribution<float> normal;
  std::vector<float> x(64 * 256), back(x.size());
  for (float& v : x) v = normal(random);
  std::vector<std::byte> bytes(source_bytes(dtype, 64, 256));
  quantize(dtype, x.data(), 64, 256, bytes.data());
  dequantize(dtype, bytes.data(), back.data(), back.size());
  double error = 0, size = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    error += (static_cast<double>(x[i]) - back[i]) * (static_cast<double>(x[i]) - back[i]);
    size += static_cast<double>(x[i]) * x[i];
  }
  return std::sqrt(error / size);
}

std::string check_error(DType dtype, double allowed) {
  const double error = relative_error(dtype);
  return error <= allowed ? "" : format("relative error %.4f, allowed %.4f", error, allowed);
}

/// NaN and infinity anywhere make a block that pack refuses; zeros and denormals one that it takes and reads
/// as (nearly) zero.
std::string check_extremes(DType dtype) {
  constexpr size_t kCols = 256;
  const size_t row_bytes = source_bytes(dtype, 1, kCols);
  std::vector<std::byte> bytes(row_bytes), packed(packed_bytes(dtype, 1, kCols));
  std::vector<float> x(kCols), back(kCols);
  const auto packs = [&] {
    quantize(dtype, x.data(), 1, kCols, bytes.data());
    return pack(dtype, bytes.data(), row_bytes, 1, 0, kCols, packed.data());
  };
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    for (const size_t at : {size_t{0}, size_t{17}, kCols - 1}) {
      std::fill(x.begin(), x.end(), 0.5f);
      x[at] = bad;
      if (packs()) return format("%g at column %zu was taken", static_cast<double>(bad), at);
    }
  }
  for (const float small : {0.0f, -0.0f, 0x1p-140f, -0x1p-140f}) {
    std::fill(x.begin(), x.end(), small);
    if (!packs()) return format("%g was refused", static_cast<double>(small));
    dequantize(dtype, bytes.data(), back.data(), kCols);
    for (const float value : back) {
      if (!(std::fabs(value) <= 0x1p-126f))
        return format("%g became %g", static_cast<double>(small), static_cast<double>(value));
    }
  }
  return "";
}

}  // namespace

void add_format_cases(Cases& cases, const std::string& fixtures) {
  for (size_t d = 0; d < kNumDTypes; ++d) {
    const auto dtype = static_cast<DType>(d);
    if (dtype == DType::F32) continue;
    cases.push_back({format("dequantize %s equals gguf-py", traits(dtype).name),
                     [=] { return check_fixtures(fixtures, dtype, false); }});
  }
  for (const DType dtype : {DType::F16, DType::BF16, DType::Q8_0, DType::Q4_0, DType::Q4_1, DType::Q5_0,
                            DType::Q5_1, DType::MXFP4}) {
    cases.push_back({format("quantize %s equals gguf-py", traits(dtype).name),
                     [=] { return check_fixtures(fixtures, dtype, true); }});
  }
  // The best uniform 4-bit quantiser with a minimum per 32 normal values reaches about 0.07; each further bit
  // halves that, and q6_k has half as many values to a scale.
  const struct {
    DType dtype;
    double allowed;
  } bounds[] = {{DType::Q8_0, 0.006},   {DType::Q4_0, 0.1},   {DType::Q4_K, 0.078},
                {DType::IQ4_NL, 0.085}, {DType::Q5_K, 0.039}, {DType::Q6_K, 0.02}};
  for (const auto& bound : bounds) {
    cases.push_back({format("quantize %s keeps the error small", traits(bound.dtype).name),
                     [=] { return check_error(bound.dtype, bound.allowed); }});
  }
  for (size_t d = static_cast<size_t>(DType::Q8_0); d < kNumDTypes; ++d) {
    const auto dtype = static_cast<DType>(d);
    if (!can_quantize(dtype)) continue;
    cases.push_back({format("quantize %s leaves what is not finite to be refused by pack, zeros stay",
                            traits(dtype).name),
                     [=] { return check_extremes(dtype); }});
  }
}

}  // namespace nearmoe::testing
