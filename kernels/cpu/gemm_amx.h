// Many tokens times a packed block-format matrix with AMX tiles: one tile product is 16 tokens x 16 rows x
// the 32 columns of a block (16 where a block has two scales), exact in int32. It is stored and scaled in
// vector registers, which bounds the speed, so three products are always under way: one being multiplied, one
// being stored, one being scaled. Bits equal gemm.h's. Linux needs the process's permission for tile state
// (../dispatch.cc asks).
#pragma once

#include "gemm_panel.h"

namespace nearmoe {
namespace {

/// Row groups and blocks that are unpacked at a time: 18 KB, so that a token tile of as many blocks, the
/// next one on its way and the products' sums fit beside them into L1.
constexpr size_t kChunkGroups = 2, kChunkBlocks = 16;
constexpr size_t kAmxPanelTiles = 8;      // token tiles of a panel at most
constexpr size_t kAmxPanelRecords = 512;  // 288 KB, inside L2
constexpr size_t kSumSlots = 4;           // products between their tile and their scaling

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t column_bytes[16] = {};
  uint8_t rows[16] = {};
};

// Tiles: 0, 1 sums; 2, 3 tokens (16 x 32 bytes, or 16 x 16); 4, 5 weights (8 quads, or 4).
template <int kHalves>
static void configure_tiles() {
  TileConfig config;
  for (int i = 0; i < 6; ++i) {
    config.rows[i] = i < 4 ? 16 : 8 / kHalves;
    config.column_bytes[i] = i == 2 || i == 3 ? 32 / kHalves : 64;
  }
  _tile_loadconfig(&config);
}

template <size_t kMins>
struct TileMins {
  float min[kMins][16];
};
template <>
struct TileMins<0> {};
/// 16 rows of one block as the tiles want them: 8 quads of signed bytes, a scale (and minimum) of each half.
template <int kHalves, bool kHasMin>
struct alignas(64) TileWeights : TileMins<kHasMin ? kHalves : 0> {
  uint8_t codes[8 * 64];
  float scale[kHalves][kRowGroup];
};

/// 16 tokens of one block; `min` is what a minimum is multiplied with.
template <int kHalves, bool kHasMin>
struct alignas(64) TileTokens : TileMins<kHasMin ? kHalves : 0> {
  int8_t values[kTileTokens][kBlockCols];
  float scale[kTileTokens];
};

/// What is asked for ahead of use while tiles are multiplied: the weights of the next chunk.
struct Ahead {
  const uint8_t* at[kChunkGroups];
  size_t lines;  ///< for each product
};

/// float(dot) of 16 rows. Two of three times by way of 1.5 * 2^23 + dot, which is exact below 2^22: beside
/// tiles, conversions share one port with products, while additions have another.
template <bool kHasMin>
NEARMOE_INLINE VF sums_as_float(const int32_t* sums, size_t token) {
  const VI dots = i_load(sums);
  if (!kHasMin && token % 3 == 0) return f_from_int(dots);
  return f_sub(f_bits(i_add(dots, i_set(0x4b400000))), f_set(0x1.8p23f));
}

/// The products of one token tile with `groups` row groups over `blocks` blocks in turn.
template <int kHalves, bool kHasMin>
struct TileRun {
  const TileWeights<kHalves, kHasMin>* weights;  ///< [groups][blocks]
  const TileTokens<kHalves, kHasMin>* tokens;    ///< [blocks]
  size_t groups, blocks;
  size_t count;                           ///< tokens that are stored
  enum { Zero, Partial, Stored } from;    ///< sums start at 0, go on from `sums` or from y
  bool last;                              ///< sums go to y, else to `sums`
  float (*sums)[kTileTokens][kRowGroup];  ///< [groups]
  float* y;
  size_t ldy, rows;
};

/// Tile product of 16 tokens and 16 rows, into the sums tile of even or odd products.
template <bool kEven>
NEARMOE_INLINE void multiply(const int8_t* values, const uint8_t* codes) {
  if constexpr (kEven) {
    _tile_zero(0);
    _tile_loadd(2, values, kBlockCols);
    _tile_loadd(4, codes, 64);
    _tile_dpbssd(0, 2, 4);
  } else {
    _tile_zero(1);
    _tile_loadd(3, values, kBlockCols);
    _tile_loadd(5, codes, 64);
    _tile_dpbssd(1, 3, 5);
  }
}

/// kTokens tokens are scaled: those that count, filled up to a multiple of 4. Where there are several groups,
/// the products of one are an even number.
template <int kHalves, bool kHasMin, int kTokens>
__attribute__((noinline)) static void multiply_tile(const TileRun<kHalves, kHasMin>& run, Ahead& ahead) {
  using Weights = TileWeights<kHalves, kHasMin>;
  using Tokens = TileTokens<kHalves, kHasMin>;
  alignas(64) int32_t sums[kSumSlots][kTileTokens][kRowGroup];
  const size_t of_group = run.blocks * kHalves, total = run.groups * of_group, ldy = run.ldy;
  const Tokens* const tokens = run.tokens;
  __asm__ volatile("" ::: "memory");  // tile loads read what was just unpacked
  // A product is one half of a block where a block has two scales, else a whole one.
  const auto values = [&](size_t at) { return tokens[at / kHalves].values[0] + at % kHalves * 16; };
  const auto codes = [&](size_t at) { return run.weights[at / kHalves].codes + at % kHalves * 256; };
  multiply<true>(values(0), codes(0));
  if (total > 1) multiply<false>(values(1), codes(1));
  _tile_stored(0, sums[0], 64);
  const Weights* weights = run.weights;
  float* y = run.y;
  size_t left = total, rows = run.rows;  // products from this one on
  for (size_t g = 0; g < run.groups; ++g, y += kRowGroup, rows -= kRowGroup) {
    VF acc[kTokens];
    if (run.from == run.Partial) {
#pragma GCC unroll 16
      for (size_t t = 0; t < kTokens; ++t) acc[t] = f_load(run.sums[g][t]);
    } else {
#pragma GCC unroll 16
      for (size_t t = 0; t < kTokens; ++t) acc[t] = f_zero();
      if (run.from == run.Stored) {
#pragma GCC unroll 16
        for (size_t t = 0; t < kTokens; ++t) {
          if (t < run.count) acc[t] = f_load_up_to(y + t * ldy, rows);
        }
      }
    }
    const Tokens* block = tokens;
    const uint8_t* next = ahead.at[g];
    const auto step = [&]<bool kEven>(size_t at, size_t half) NEARMOE_LAMBDA_INLINE {
      if (left > 2) {
        const size_t two = at + 2 < of_group ? at + 2 : at + 2 - of_group;
        multiply<kEven>(tokens[two / kHalves].values[0] + half * 16, weights[2 / kHalves].codes + half * 256);
      }
      const size_t p = total - left;
      const auto& slot = sums[p % kSumSlots];
      if (left > 1) {
        if constexpr (kEven) {
          _tile_stored(1, sums[(p + 1) % kSumSlots], 64);
        } else {
          _tile_stored(0, sums[(p + 1) % kSumSlots], 64);
        }
      }
      const VF scale = f_load(weights->scale[half]);
      VF min = scale;
      if constexpr (kHasMin) min = f_load(weights->min[half]);
#pragma GCC unroll 16
      for (size_t t = 0; t < kTokens; ++t) {
        const VF dot = sums_as_float<kHasMin>(slot[t], t);
        acc[t] = f_fma(dot, f_mul(scale, f_set(block->scale[t])), acc[t]);
        if constexpr (kHasMin) acc[t] = f_fma(min, f_set(block->min[half][t]), acc[t]);
      }
      for (size_t i = 0; i < ahead.lines; ++i, next += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(next), _MM_HINT_T1);
      }
      --left;
      if (half == kHalves - 1) {
        ++weights;
        ++block;
      }
    };
    for (size_t at = 0; at < of_group; at += 2) {
      step.template operator()<true>(at, 0);
      if (at + 1 < of_group) step.template operator()<false>(at + 1, 1 % kHalves);
    }
    ahead.at[g] = next;
    if (!run.last) {
#pragma GCC unroll 16
      for (size_t t = 0; t < kTokens; ++t) f_store(run.sums[g][t], acc[t]);
    } else {
#pragma GCC unroll 16
      for (size_t t = 0; t < kTokens; ++t) {
        if (t < run.count) f_store_up_to(y + t * ldy, acc[t], rows);
      }
    }
  }
}

template <int kHalves, bool kHasMin>
NEARMOE_INLINE void multiply_tile(const TileRun<kHalves, kHasMin>& run, Ahead& ahead) {
  switch ((run.count + 3) / 4) {
    case 1:
      return multiply_tile<kHalves, kHasMin, 4>(run, ahead);
    case 2:
      return multiply_tile<kHalves, kHasMin, 8>(run, ahead);
    case 3:
      return multiply_tile<kHalves, kHasMin, 12>(run, ahead);
    default:
      return multiply_tile<kHalves, kHasMin, 16>(run, ahead);
  }
}

template <class Q>
using WeightsOf = TileWeights<Q::kHalves, Q::kHasMin>;
template <class Q>
using TokensOf = TileTokens<Q::kHalves, Q::kHasMin>;
template <class Q>
using RunOf = TileRun<Q::kHalves, Q::kHasMin>;

/// Fills tiles of `tokens` tokens from `first_token` on; tile i's records begin at out + i * blocks. The
/// scales of lanes without a token are 0: whatever lies on the stack there could be denormal, which is slow.
template <class Q>
static void gather_tokens(const ActView& x, size_t cols, size_t first_token, size_t tokens, size_t first,
                          size_t blocks, TokensOf<Q>* out) {
  for (size_t t = 0; t < (tokens + 3) / 4 * 4; ++t) {
    TokensOf<Q>* tile = out + t / kTileTokens * blocks;
    const size_t lane = t % kTileTokens;
    if (t >= tokens) {
      for (size_t b = 0; b < blocks; ++b) {
        tile[b].scale[lane] = 0.0f;
        if constexpr (Q::kHasMin) {
          for (int h = 0; h < Q::kHalves; ++h) tile[b].min[h][lane] = 0.0f;
        }
      }
      continue;
    }
    const std::byte* row = token_row(x, first_token + t);
    const auto* values = reinterpret_cast<const int8_t*>(row) + first * kBlockCols;
    const auto* meta = reinterpret_cast<const Q8Meta*>(row + q8_value_bytes(cols)) + first;
    for (size_t b = 0; b < blocks; ++b) {
      std::memcpy(tile[b].values[lane], values + b * kBlockCols, kBlockCols);
      tile[b].scale[lane] = meta[b].scale;
      if constexpr (Q::kHasMin) {
        for (int h = 0; h < Q::kHalves; ++h) {
          tile[b].min[h][lane] = Q::kHalves == 1 ? meta[b].scaled_sum : meta[b].scaled_half[h];
        }
      }
    }
  }
}

/// Row groups and blocks of a matrix that are unpacked together.
struct Chunk {
  size_t group, groups, block, blocks;
};

/// Row group `group` from block `block` on, the headers before it included.
NEARMOE_INLINE const uint8_t* weights_from(const PackedMatrix& w, const PackedLayout& layout, size_t group,
                                           size_t block) {
  const size_t offset = block == 0 ? 0 : packed_codes_offset(layout, block);
  return reinterpret_cast<const uint8_t*>(w.data) + group * layout.group_bytes + offset;
}

/// One chunk times all tiles of a panel (records `panel_blocks` apart) while `next` is fetched. run: tokens
/// and y of the chunk's first block and row.
template <class Q>
static void multiply_chunk(const PackedMatrix& w, const PackedLayout& layout, const Chunk& chunk,
                           const Chunk& next, RunOf<Q> run, size_t count, size_t panel_blocks) {
  WeightsOf<Q> weights[kChunkGroups * kChunkBlocks];
  for (size_t g = 0; g < chunk.groups; ++g) {
    load_weights<Q, true>(weights_from(w, layout, chunk.group + g, 0), layout, chunk.block, chunk.blocks,
                          weights + g * chunk.blocks);
  }
  const size_t tiles = (count + kTileTokens - 1) / kTileTokens;
  const size_t products = tiles * chunk.blocks * Q::kHalves;
  Ahead ahead{};
  ahead.lines = (next.blocks * layout.group_bytes / layout.blocks / 64 + products / 2) / products;
  for (size_t g = 0; g < kChunkGroups; ++g) ahead.at[g] = weights_from(w, layout, next.group + g, next.block);
  // Several groups in one run want an even number of products of each.
  const size_t groups_of_run = chunk.blocks * Q::kHalves % 2 == 0 ? chunk.groups : 1;
  run.groups = groups_of_run;
  run.blocks = chunk.blocks;
  for (size_t tile = 0; tile < tiles; ++tile) {
    const size_t left = count - tile * kTileTokens;
    run.count = left < kTileTokens ? left : kTileTokens;
    for (size_t g = 0; g < chunk.groups; g += groups_of_run) {
      RunOf<Q> part = run;
      part.weights = weights + g * chunk.blocks;
      part.sums += g;
      part.y += g * kRowGroup;
      part.rows -= g * kRowGroup;
      multiply_tile(part, ahead);
    }
    run.tokens += panel_blocks;
    run.sums += chunk.groups;
    run.y += kTileTokens * run.ldy;
  }
}

template <class Q>
static void gemm_amx(const PackedMatrix& w, const ActView& x, float* y, size_t ldy) {
  TokensOf<Q> panel[kAmxPanelRecords];
  alignas(64) float sums[kAmxPanelTiles * kChunkGroups][kTileTokens][kRowGroup];
  const PackedLayout layout = packed_layout(*quant_format(Q::kDType), w.cols, w.col_begin);
  const size_t groups = (w.rows + kRowGroup - 1) / kRowGroup;
  const auto at_most = [](size_t n, size_t most) { return n < most ? n : most; };
  configure_tiles<Q::kHalves>();
  for (size_t token = 0; token < x.count; token += kAmxPanelTiles * kTileTokens) {
    const size_t count = at_most(x.count - token, kAmxPanelTiles * kTileTokens);
    const size_t most_blocks = kAmxPanelRecords / ((count + kTileTokens - 1) / kTileTokens);
    for (size_t first = 0; first < layout.blocks; first += most_blocks) {
      const size_t blocks = at_most(layout.blocks - first, most_blocks), end = first + blocks;
      gather_tokens<Q>(x, w.cols, token, count, first, blocks, panel);
      Chunk chunk{0, at_most(groups, kChunkGroups), first, at_most(blocks, kChunkBlocks)};
      while (chunk.groups > 0) {
        Chunk next = chunk;
        next.block += chunk.blocks;
        if (next.block == end) {
          next.group += chunk.groups;
          next.groups = at_most(groups - next.group, kChunkGroups);
          next.block = first;
        }
        next.blocks = at_most(end - next.block, kChunkBlocks);
        RunOf<Q> run{};
        run.tokens = panel + (chunk.block - first);
        run.from = chunk.block == 0 ? run.Zero : chunk.block == first ? run.Stored : run.Partial;
        run.last = chunk.block + chunk.blocks == end;
        run.sums = sums;
        run.y = y + token * ldy + chunk.group * kRowGroup;
        run.ldy = ldy;
        run.rows = w.rows - chunk.group * kRowGroup;
        multiply_chunk<Q>(w, layout, chunk, next, run, count, blocks);
        chunk = next;
      }
    }
  }
  _tile_release();
}

struct AmxGemm {
  static constexpr size_t kLeastTokens = 5;  // fewer are faster with dot product instructions
  template <class Q>
  NEARMOE_INLINE void run(const PackedMatrix& w, const ActView& x, float* y, size_t ldy) {
    gemm_amx<Q>(w, x, y, ldy);
  }
};

}  // namespace
}  // namespace nearmoe
