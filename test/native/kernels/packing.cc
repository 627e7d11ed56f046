// pack, unpack, unpack_row: bit for bit in both directions for random bits, whole matrices and slices; values
// that are not finite are refused.
#include "cases.h"

namespace nearmoe::testing {
namespace {

struct Slice {
  size_t rows, full_cols, col_begin, cols;
};
const Slice kSlices[] = {{1, 256, 0, 256},    {37, 512, 0, 512},  {16, 768, 0, 384},   {16, 768, 384, 384},
                         {20, 1280, 224, 64}, {3, 512, 256, 256}, {18, 2304, 32, 2208}};
const Slice kFloatSlices[] = {{1, 1, 0, 1}, {37, 33, 0, 33}, {16, 33, 7, 19}, {5, 100, 99, 1}};

const Slice* slices_of(DType dtype, size_t* count) {
  *count = quant_format(dtype) ? std::size(kSlices) : std::size(kFloatSlices);
  return quant_format(dtype) ? kSlices : kFloatSlices;
}

/// What unpack must give: the source blocks the slice touches, quants outside the slice cleared.
std::vector<std::byte> expected_source(DType dtype, const std::vector<std::byte>& source, const Slice& s) {
  const size_t row_bytes = source_bytes(dtype, 1, s.full_cols), block_cols = traits(dtype).block_cols;
  const size_t first = s.col_begin / block_cols, end = (s.col_begin + s.cols + block_cols - 1) / block_cols;
  const size_t block = traits(dtype).block_bytes;
  const QuantFormat* quantised = quant_format(dtype);
  std::vector<std::byte> out;
  for (size_t row = 0; row < s.rows; ++row) {
    for (size_t b = first; b < end; ++b) {
      const std::byte* from = source.data() + row * row_bytes + b * block;
      std::vector<std::byte> copy(from, from + block);
      for (uint32_t sub = 0; quantised && sub < quantised->subs; ++sub) {
        const size_t col = b * block_cols + sub * kBlockCols;
        if (col >= s.col_begin && col < s.col_begin + s.cols) continue;
        uint8_t codes[kBlockCols], none[kBlockCols] = {};
        decode_codes(*quantised, reinterpret_cast<const uint8_t*>(from), sub, codes);
        // Clearing by xor: encoding the codes once more over a copy of themselves.
        std::vector<std::byte> bits(block), zero(block);
        encode_codes(*quantised, codes, sub, reinterpret_cast<uint8_t*>(bits.data()));
        encode_codes(*quantised, none, sub, reinterpret_cast<uint8_t*>(zero.data()));
        for (size_t i = 0; i < block; ++i) copy[i] ^= bits[i];
      }
      out.insert(out.end(), copy.begin(), copy.end());
    }
  }
  return out;
}

std::string round_trip(DType dtype) {
  Random random(7 + static_cast<uint32_t>(dtype));
  size_t count = 0;
  const Slice* slices = slices_of(dtype, &count);
  for (size_t i = 0; i < count; ++i) {
    const Slice& s = slices[i];
    const std::vector<std::byte> source = random_weights(random, dtype, s.rows, s.full_cols);
    Buffer packed(packed_bytes(dtype, s.rows, s.cols, s.col_begin));
    const size_t row_bytes = source_bytes(dtype, 1, s.full_cols);
    if (!pack(dtype, source.data(), row_bytes, s.rows, s.col_begin, s.cols, packed.data())) {
      return "pack refused finite values";
    }
    const PackedMatrix w{packed.data(), static_cast<uint32_t>(s.rows), static_cast<uint32_t>(s.cols), dtype,
                         static_cast<uint32_t>(s.col_begin)};
    const std::vector<std::byte> expected = expected_source(dtype, source, s);
    std::vector<std::byte> got(expected.size(), std::byte{0x5a});
    unpack(w, got.data());
    if (got != expected) {
      return format("%zu x %zu from column %zu does not come back", s.rows, s.cols, s.col_begin);
    }
  }
  return {};
}

std::string rows_equal_dequantised(const OpTable& ops, DType dtype) {
  Random random(17);
  size_t count = 0;
  const Slice* slices = slices_of(dtype, &count);
  for (size_t i = 0; i < count; ++i) {
    const Slice& s = slices[i];
    const std::vector<std::byte> source = random_weights(random, dtype, s.rows, s.full_cols);
    const size_t row_bytes = source_bytes(dtype, 1, s.full_cols);
    Buffer packed(packed_bytes(dtype, s.rows, s.cols, s.col_begin));
    pack(dtype, source.data(), row_bytes, s.rows, s.col_begin, s.cols, packed.data());
    const PackedMatrix w{packed.data(), static_cast<uint32_t>(s.rows), static_cast<uint32_t>(s.cols), dtype,
                         static_cast<uint32_t>(s.col_begin)};
    std::vector<float> values(s.full_cols), row(s.cols);
    for (size_t r = 0; r < s.rows; ++r) {
      dequantize(dtype, source.data() + r * row_bytes, values.data(), s.full_cols);
      ops.unpack_row(w, r, row.data());
      std::string wrong = compare_exact(values.data() + s.col_begin, row.data(), s.cols, "row");
      if (!wrong.empty()) return wrong + format(" (row %zu, slice %zu)", r, i);
    }
  }
  return {};
}

/// Overwrites one value or scale with NaN or infinity, each of the places a format has.
std::string refuses(DType dtype) {
  Random random(3);
  const size_t cols = quant_format(dtype) ? 512 : 37, rows = 19;
  const std::vector<std::byte> good = random_weights(random, dtype, rows, cols);
  std::vector<std::byte> packed(packed_bytes(dtype, rows, cols));
  const size_t row_bytes = source_bytes(dtype, 1, cols), block = traits(dtype).block_bytes;
  const QuantFormat* quantised = quant_format(dtype);
  const size_t places = quantised ? (quantised->has_min ? 2 : 1) : 1;
  for (size_t place = 0; place < places; ++place) {
    for (const uint32_t bits : {0x7f800000u, 0xff800000u, 0x7fc00000u}) {
      std::vector<std::byte> bad = good;
      std::byte* at = bad.data() + 11 * row_bytes + (row_bytes / block - 1) * block;  // last block of row 11
      const auto half =
          static_cast<uint16_t>(((bits >> 16) & 0x8000u) | 0x7c00u | (bits & 0x400000u ? 0x200u : 0u));
      const auto bfloat = static_cast<uint16_t>(bits >> 16);
      if (dtype == DType::F32) {
        std::memcpy(at, &bits, 4);
      } else if (dtype == DType::BF16) {
        std::memcpy(at, &bfloat, 2);
      } else if (dtype == DType::MXFP4) {
        *at = std::byte{0xff};
      } else {
        std::memcpy(at + (quantised ? quantised->pieces[place].offset : 0), &half, 2);
      }
      if (pack(dtype, bad.data(), row_bytes, rows, 0, cols, packed.data()))
        return format("took bits %08x", bits);
    }
  }
  return pack(dtype, good.data(), row_bytes, rows, 0, cols, packed.data()) ? "" : "refused finite values";
}

}  // namespace

void add_packing_cases(Cases& cases) {
  for (size_t d = 0; d < kNumDTypes; ++d) {
    const auto dtype = static_cast<DType>(d);
    const char* name = traits(dtype).name;
    cases.push_back({format("pack %s round-trips bit for bit", name), [dtype] { return round_trip(dtype); }});
    cases.push_back({format("pack %s refuses NaN and infinities", name), [dtype] { return refuses(dtype); }});
    for (const OpTable* ops : tables()) {
      cases.push_back({format("%s unpack_row %s equals dequantize", ops->isa, name),
                       [ops, dtype] { return rows_equal_dequantised(*ops, dtype); }});
    }
  }
}

}  // namespace nearmoe::testing
