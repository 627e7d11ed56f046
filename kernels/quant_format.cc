// The block formats as tables and the scalar code that reads them (see quant_format.h). Field positions
// follow the GGUF files as gguf-py's `gguf.quants` reads them; test/native cross-checks both.
#include "quant_format.h"

#include <cstring>

#include "half.h"

namespace nearmoe {
namespace {

// Non-linear 4-bit code book of IQ4_NL and IQ4_XS.
constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
// e2m1 values, doubled (the scale is halved in turn).
constexpr int8_t kMxfp4Values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

//   dtype, subs, low, high, halves, min, xor, zero, lut, pieces
constexpr QuantFormat kFormats[] = {
    {DType::Q8_0, 1, 8, 0, 1, false, 0x80, 128, nullptr, 1, {{0, 2}}},
    {DType::Q4_0, 1, 4, 0, 1, false, 0, 8, nullptr, 1, {{0, 2}}},
    {DType::Q4_1, 1, 4, 0, 1, true, 0, 0, nullptr, 2, {{0, 2}, {2, 2}}},
    {DType::Q5_0, 1, 4, 1, 1, false, 0, 16, nullptr, 1, {{0, 2}}},
    {DType::Q5_1, 1, 4, 1, 1, true, 0, 0, nullptr, 2, {{0, 2}, {2, 2}}},
    {DType::Q2_K, 8, 2, 0, 2, true, 0, 0, nullptr, 6, {{80, 2}, {82, 2}, {0, 4}, {4, 4}, {8, 4}, {12, 4}}},
    {DType::Q3_K, 8, 2, 1, 2, false, 0, 4, nullptr, 4, {{108, 2}, {96, 4}, {100, 4}, {104, 4}}},
    {DType::Q4_K, 8, 4, 0, 1, true, 0, 0, nullptr, 5, {{0, 2}, {2, 2}, {4, 4}, {8, 4}, {12, 4}}},
    {DType::Q5_K, 8, 4, 1, 1, true, 0, 0, nullptr, 5, {{0, 2}, {2, 2}, {4, 4}, {8, 4}, {12, 4}}},
    {DType::Q6_K,
     8,
     4,
     2,
     2,
     false,
     0,
     32,
     nullptr,
     17,
     {{208, 2},
      {192, 1},
      {193, 1},
      {194, 1},
      {195, 1},
      {196, 1},
      {197, 1},
      {198, 1},
      {199, 1},
      {200, 1},
      {201, 1},
      {202, 1},
      {203, 1},
      {204, 1},
      {205, 1},
      {206, 1},
      {207, 1}}},
    {DType::IQ4_NL, 1, 4, 0, 1, false, 0, 0, kIq4Values, 1, {{0, 2}}},
    {DType::IQ4_XS, 8, 4, 0, 1, false, 0, 0, kIq4Values, 3, {{0, 2}, {2, 2}, {4, 4}}},
    {DType::MXFP4, 1, 4, 0, 1, false, 0, 0, kMxfp4Values, 1, {{0, 1}}},
};

constexpr uint32_t kQuads = kBlockCols / 4;

uint32_t read_u32(const uint8_t* p) {
  uint32_t word;
  std::memcpy(&word, p, sizeof word);
  return word;
}
uint16_t read_u16(const uint8_t* p) { return static_cast<uint16_t>(p[0] | (p[1] << 8)); }
float read_f16(const uint8_t* p) { return f16_to_f32(read_u16(p)); }

/// 6-bit scale and minimum of Q4_K and Q5_K: eight of each in twelve bytes.
void scale_and_min(const uint8_t* p, uint32_t sub, int* scale, int* min) {
  if (sub < 4) {
    *scale = p[sub] & 63;
    *min = p[sub + 4] & 63;
  } else {
    *scale = (p[sub + 4] & 15) | ((p[sub - 4] >> 6) << 4);
    *min = (p[sub + 4] >> 4) | ((p[sub] >> 6) << 4);
  }
}

/// 6-bit scale of Q3_K: sixteen in twelve bytes, stored with 32 added.
int q3_scale(const uint8_t* p, uint32_t half) {
  const int low = (p[half % 8] >> (half < 8 ? 0 : 4)) & 15;
  const int high = (p[8 + half % 4] >> (2 * (half / 4))) & 3;
  return (low | (high << 4)) - 32;
}

}  // namespace

const QuantFormat* quant_format(DType dtype) {
  const size_t first = static_cast<size_t>(DType::Q8_0);
  const size_t index = static_cast<size_t>(dtype);
  return index < first ? nullptr : &kFormats[index - first];
}

int source_planes(DType dtype, uint32_t sub, Plane out[3]) {
  const auto at = [](uint32_t offset) { return static_cast<uint16_t>(offset); };
  const auto bit = [](uint32_t shift) { return static_cast<uint8_t>(shift); };
  // Two halves of 16 codes share the bytes of a 32-column block of 4-bit codes.
  const auto nibbles = [&](uint32_t offset) {
    out[0] = {at(offset), 0, 16, 0, 4, 0, false};
    out[1] = {at(offset), 16, 16, 4, 4, 0, false};
    return 2;
  };
  switch (dtype) {
    case DType::Q8_0:
      out[0] = {2, 0, 32, 0, 8, 0, false};
      return 1;
    case DType::Q4_0:
    case DType::IQ4_NL:
      return nibbles(2);
    case DType::Q4_1:
      return nibbles(4);
    case DType::MXFP4:
      return nibbles(1);
    case DType::IQ4_XS:
      return nibbles(8 + 16 * sub);
    case DType::Q5_0:
      out[2] = {2, 0, 32, 0, 1, 4, true};
      return nibbles(6) + 1;
    case DType::Q5_1:
      out[2] = {4, 0, 32, 0, 1, 4, true};
      return nibbles(8) + 1;
    case DType::Q2_K:
      out[0] = {at(16 + 32 * (sub / 4)), 0, 32, bit(2 * (sub % 4)), 2, 0, false};
      return 1;
    case DType::Q3_K:
      out[0] = {at(32 + 32 * (sub / 4)), 0, 32, bit(2 * (sub % 4)), 2, 0, false};
      out[1] = {0, 0, 32, bit(sub), 1, 2, false};
      return 2;
    case DType::Q4_K:
      out[0] = {at(16 + 32 * (sub / 2)), 0, 32, bit(4 * (sub % 2)), 4, 0, false};
      return 1;
    case DType::Q5_K:
      out[0] = {at(48 + 32 * (sub / 2)), 0, 32, bit(4 * (sub % 2)), 4, 0, false};
      out[1] = {16, 0, 32, bit(sub), 1, 4, false};
      return 2;
    case DType::Q6_K:
      out[0] = {at(64 * (sub / 4) + 32 * (sub % 2)), 0, 32, bit(4 * (sub % 4 / 2)), 4, 0, false};
      out[1] = {at(128 + 32 * (sub / 4)), 0, 32, bit(2 * (sub % 4)), 2, 4, false};
      return 2;
    default:
      return 0;
  }
}

void decode_codes(const QuantFormat& format, const uint8_t* source, uint32_t sub, uint8_t codes[kBlockCols]) {
  std::memset(codes, 0, kBlockCols);
  Plane planes[3];
  const int count = source_planes(format.dtype, sub, planes);
  for (int p = 0; p < count; ++p) {
    const Plane plane = planes[p];
    const uint8_t* from = source + plane.offset;
    uint8_t* to = codes + plane.first;
    if (plane.bit_row) {
      for (uint32_t i = 0; i < kBlockCols; ++i) {
        to[i] = static_cast<uint8_t>(to[i] | (((from[i / 8] >> (i % 8)) & 1u) << plane.code_shift));
      }
      continue;
    }
    const uint32_t mask = (1u << plane.bits) - 1;
    for (uint32_t first = 0; first < plane.count; first += 16) {  // 16 at a time vectorises
      for (uint32_t i = first; i < first + 16; ++i) {
        to[i] = static_cast<uint8_t>(to[i] | (((from[i] >> plane.shift) & mask) << plane.code_shift));
      }
    }
  }
  for (uint32_t i = 0; i < kBlockCols; ++i) codes[i] = static_cast<uint8_t>(codes[i] ^ format.code_xor);
}

void encode_codes(const QuantFormat& format, const uint8_t codes[kBlockCols], uint32_t sub, uint8_t* source) {
  Plane planes[3];
  const int count = source_planes(format.dtype, sub, planes);
  for (int p = 0; p < count; ++p) {
    const Plane& plane = planes[p];
    const uint32_t mask = (1u << plane.bits) - 1;
    for (uint32_t i = 0; i < plane.count; ++i) {
      const uint32_t code = static_cast<uint32_t>(codes[plane.first + i] ^ format.code_xor);
      uint8_t& byte = source[plane.offset + (plane.bit_row ? i / 8 : i)];
      const uint32_t shift = plane.bit_row ? i % 8 : plane.shift;
      byte = static_cast<uint8_t>(byte | (((code >> plane.code_shift) & mask) << shift));
    }
  }
}

BlockScale block_scale(DType dtype, const uint8_t* source, uint32_t sub) {
  const auto same = [](float scale, float min) { return BlockScale{{scale, scale}, {min, min}}; };
  switch (dtype) {
    case DType::Q8_0:
    case DType::Q4_0:
    case DType::Q5_0:
    case DType::IQ4_NL:
      return same(read_f16(source), 0.0f);
    case DType::Q4_1:
    case DType::Q5_1:
      return same(read_f16(source), read_f16(source + 2));
    case DType::MXFP4: {
      // Half of 2^(e - 127), whose smallest two values are denormal.
      const uint32_t e = source[0];
      return same(bits_float(e < 2 ? 0x00200000u << e : (e - 1) << 23), 0.0f);
    }
    case DType::Q4_K:
    case DType::Q5_K: {
      int scale = 0, min = 0;
      scale_and_min(source + 4, sub, &scale, &min);
      // Both products are exact: 11 bits times 6 bits.
      return same(read_f16(source) * static_cast<float>(scale),
                  -(read_f16(source + 2) * static_cast<float>(min)));
    }
    case DType::IQ4_XS: {
      const int low = (source[4 + sub / 2] >> (4 * (sub % 2))) & 15;
      const int high = (read_u16(source + 2) >> (2 * sub)) & 3;
      return same(read_f16(source) * static_cast<float>((low | (high << 4)) - 32), 0.0f);
    }
    default:
      break;
  }
  BlockScale out{};
  for (uint32_t h = 0; h < 2; ++h) {
    const uint32_t half = 2 * sub + h;
    if (dtype == DType::Q2_K) {
      out.scale[h] = read_f16(source + 80) * static_cast<float>(source[half] & 15);
      out.min[h] = -(read_f16(source + 82) * static_cast<float>(source[half] >> 4));
    } else if (dtype == DType::Q3_K) {
      out.scale[h] = read_f16(source + 108) * static_cast<float>(q3_scale(source + 96, half));
    } else {  // Q6_K
      out.scale[h] = read_f16(source + 208) * static_cast<float>(static_cast<int8_t>(source[192 + half]));
    }
  }
  return out;
}

PackedLayout packed_layout(const QuantFormat& format, size_t cols, size_t col_begin) {
  PackedLayout out{};
  out.blocks = (cols + kBlockCols - 1) / kBlockCols;
  out.subs = format.subs;
  out.phase = (col_begin / kBlockCols) % format.subs;
  out.superblocks = (out.phase + out.blocks + format.subs - 1) / format.subs;
  out.code_bytes = 64u * (format.low_bits + format.high_bits);
  for (size_t p = 0; p < format.num_pieces; ++p) out.header_bytes += kRowGroup * format.pieces[p].size;
  // As many superblocks as make the headers of a record a multiple of 64 bytes; 2 or more of the short ones.
  out.record_supers = format.subs == 1 ? 2 : 1;
  while (out.record_supers * out.header_bytes % kAlignment != 0) out.record_supers *= 2;
  const size_t last = (out.superblocks + out.record_supers - 1) / out.record_supers - 1;
  const Record record = packed_record(out, last);
  out.group_bytes = record.codes + record.blocks * out.code_bytes;
  return out;
}

size_t float_group_bytes(DType dtype, size_t cols) {
  // BF16 keeps pairs of columns together, so an odd last column has an unused partner.
  const size_t stored = dtype == DType::BF16 ? (cols + 1) / 2 * 2 : cols;
  const size_t bytes = stored * kRowGroup * traits(dtype).block_bytes;
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

void load_codes(const QuantFormat& format, const uint8_t* packed, size_t row, uint8_t codes[kBlockCols]) {
  const uint8_t* lane = packed + 4 * row;
  const uint8_t* high = lane + 64u * format.low_bits;
  for (uint32_t j = 0; j < kQuads; ++j) {
    uint32_t quad = 0;
    switch (format.low_bits) {
      case 8:
        quad = read_u32(lane + 64 * j);
        break;
      case 4:
        quad = (read_u32(lane + 64 * (j % 4)) >> (j < 4 ? 0 : 4)) & 0x0f0f0f0fu;
        break;
      default:
        quad = (read_u32(lane + 64 * (j / 4)) >> (2 * (j % 4))) & 0x03030303u;
        break;
    }
    if (format.high_bits == 1) {
      quad |= ((read_u32(high) >> j) & 0x01010101u) << format.low_bits;
    } else if (format.high_bits == 2) {
      quad |= ((read_u32(high + 64 * (j / 4)) >> (2 * (j % 4))) & 0x03030303u) << format.low_bits;
    }
    std::memcpy(codes + 4 * j, &quad, sizeof quad);
  }
}

void store_codes(const QuantFormat& format, const uint8_t codes[kBlockCols], size_t row, uint8_t* packed) {
  uint8_t* lane = packed + 4 * row;
  uint8_t* high = lane + 64u * format.low_bits;
  uint32_t quads[kQuads];
  std::memcpy(quads, codes, sizeof quads);
  const auto put = [](uint8_t* p, uint32_t word) { std::memcpy(p, &word, sizeof word); };
  // Two bits at `shift` of quads 4h..4h+3, side by side.
  const auto pairs = [&](uint32_t h, uint32_t shift) {
    uint32_t word = 0;
    for (uint32_t m = 0; m < 4; ++m) word |= ((quads[4 * h + m] >> shift) & 0x03030303u) << (2 * m);
    return word;
  };
  switch (format.low_bits) {
    case 8:
      for (uint32_t j = 0; j < kQuads; ++j) put(lane + 64 * j, quads[j]);
      break;
    case 4:
      for (uint32_t j = 0; j < 4; ++j) {
        put(lane + 64 * j, (quads[j] & 0x0f0f0f0fu) | ((quads[j + 4] & 0x0f0f0f0fu) << 4));
      }
      break;
    default:
      for (uint32_t h = 0; h < 2; ++h) put(lane + 64 * h, pairs(h, 0));
      break;
  }
  if (format.high_bits == 1) {
    uint32_t word = 0;
    for (uint32_t j = 0; j < kQuads; ++j) word |= ((quads[j] >> format.low_bits) & 0x01010101u) << j;
    put(high, word);
  } else if (format.high_bits == 2) {
    for (uint32_t h = 0; h < 2; ++h) put(high + 64 * h, pairs(h, format.low_bits));
  }
}

void load_header(const QuantFormat& format, const uint8_t* packed, size_t row, uint8_t* source) {
  for (size_t p = 0; p < format.num_pieces; ++p) {
    const HeaderPiece piece = format.pieces[p];
    std::memcpy(source + piece.offset, packed + row * piece.size, piece.size);
    packed += kRowGroup * piece.size;
  }
}

void store_header(const QuantFormat& format, const uint8_t* source, size_t row, uint8_t* packed) {
  for (size_t p = 0; p < format.num_pieces; ++p) {
    const HeaderPiece piece = format.pieces[p];
    std::memcpy(packed + row * piece.size, source + piece.offset, piece.size);
    packed += kRowGroup * piece.size;
  }
}

}  // namespace nearmoe
