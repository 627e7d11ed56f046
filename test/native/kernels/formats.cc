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

}  // namespace

void add_format_cases(Cases& cases, const std::string& fixtures) {
  for (size_t d = 0; d < kNumDTypes; ++d) {
    const auto dtype = static_cast<DType>(d);
    if (dtype == DType::F32) continue;
    cases.push_back({format("dequantize %s equals gguf-py", traits(dtype).name),
                     [=] { return check_fixtures(fixtures, dtype, false); }});
  }
  for (const DType dtype : {DType::F16, DType::BF16, DType::Q8_0, DType::Q4_0}) {
    cases.push_back({format("quantize %s equals gguf-py", traits(dtype).name),
                     [=] { return check_fixtures(fixtures, dtype, true); }});
  }
  // The best uniform 4-bit quantiser with a minimum per 32 normal values reaches about 0.07.
  cases.push_back({"quantize q4_k keeps the error small", [] { return check_error(DType::Q4_K, 0.078); }});
  cases.push_back({"quantize q8_0 keeps the error small", [] { return check_error(DType::Q8_0, 0.006); }});
}

}  // namespace nearmoe::testing
