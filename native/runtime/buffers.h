// Activation memory of the forward pass, allocated once for the largest step.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "arena.h"
#include "expert_groups.h"
#include "op_times.h"
#include "status.h"
#include "top_candidates.h"
#include "weights.h"

namespace nearmoe {

/// Tokens up to which every rank keeps its own copy of the hidden state instead of sharing the work behind a
/// barrier.
inline constexpr uint32_t kPrivateTokens = 4;
/// Tokens of one expert computed at a time at most; bounds scratch so that it stays in a core's L2 cache.
inline constexpr uint32_t kFfnTile = 96;
/// Of so many, the next ones to compute: equal parts but for whole runs of 16, since a short last part reads
/// and unpacks the expert's weights for few tokens.
inline uint32_t ffn_tile_size(uint32_t tokens) {
  const uint32_t parts = (tokens + kFfnTile - 1) / kFfnTile;
  const uint32_t size = ((tokens + parts - 1) / parts + 15) / 16 * 16;
  return size < tokens ? size : tokens;
}
/// Tokens whose queries meet the latents at a time, and (token, head) pairs unless a token alone has more
/// heads: many tokens of few heads, since every head has projections of its own to run over its tokens.
inline constexpr uint32_t kLatentTokens = 64, kLatentRows = 256;
/// Keys of a part of attention, where heads straddle ranks; parts of one head go to different ranks.
inline constexpr uint32_t kPartKeys = 512;
static_assert(kPartKeys % kAttentionStep == 0);
/// (token, query head, part) triples of a step up to which parts are dealt out; beyond, whole heads are.
inline constexpr uint32_t kPartRows = 8192;
/// Tokens whose queries of one KV head a rank keeps at a time, where heads straddle ranks.
inline constexpr uint32_t kPartTokens = 16;

/// Attention of a token and query head over some of its keys; see AttentionArgs::stats.
struct AttentionParts {
  float* out = nullptr;    ///< [rows][head dim], undivided
  float* stats = nullptr;  ///< [rows][2]
};

/// What was put together of a row's parts so far: largest logit, sum of exp(logit - largest).
struct PartSum {
  float largest = 0, sum = 0;
};

/// Tokens of a step up to which the next layer's experts are guessed: beyond, nearly all are active anyway.
inline constexpr uint32_t kGuessedTokens = kFfnTile;

/// A token's normalised hidden state, as floats and prepared in each activation format that a consumer wants.
struct LayerInput {
  float* normed = nullptr;                  ///< [tokens][H]
  std::array<std::byte*, 2> prepared = {};  ///< by ActFormat
  std::array<size_t, 2> stride = {};
};

/// What belongs to one rank alone.
struct RankScratch {
  float* hidden = nullptr;                ///< [kPrivateTokens][H]
  LayerInput input;                       ///< for kPrivateTokens
  LayerInput expert_input, router_input;  ///< where branches normalise for themselves
  std::byte* output_in = nullptr;         ///< prepared attention output of the rank's columns, [T]
  float* latent = nullptr;                ///< a compressed query, then a latent row
  float* latent_query = nullptr;          ///< [rows][latent row]: queries that meet latents
  float* latent_out = nullptr;            ///< [rows][key_value_rank]: weighted latents
  std::byte* latent_in = nullptr;         ///< prepared parts of one head, [kLatentTokens]
  float* delta_keys = nullptr;            ///< [T][2][key_dim]: q and k of one head, normalised
  float* head = nullptr;                  ///< one key and one value head
  float* part_query = nullptr;            ///< [kPartTokens][query heads of a KV head][D]
  AttentionParts part;                    ///< the same
  std::vector<PartSum> part_sums;
  float* gate = nullptr;                          ///< [kFfnTile][I]
  float* up = nullptr;                            ///< [kFfnTile][I]
  std::byte* ffn_mid = nullptr;                   ///< prepared act(gate) * up, [kFfnTile]
  float* ffn_out = nullptr;                       ///< [kFfnTile][H]
  float* router_logits = nullptr;                 ///< [kFfnTile][E]
  std::vector<float> query_inverse, key_inverse;  ///< [T], 1 / rms; where q and k are normalised as a whole
  std::vector<int32_t> own_ids;  ///< routing of kPrivateTokens; used where tokens are not shared
  std::vector<float> own_weights;
  std::vector<const std::byte*> kv_blocks;
  ExpertGroups groups;
  OpClock clock;
};

struct Buffers {
  /// `lookahead`: with room for guesses (GPU lane only).
  Status allocate(const ModelSpec& spec, const Topology& topology, uint32_t max_tokens,
                  uint32_t max_logit_rows, bool lookahead);

  uint32_t max_tokens = 0;
  float* hidden = nullptr;                ///< [T][H]
  LayerInput input;                       ///< shared
  LayerInput expert_input, router_input;  ///< shared, where branches normalise for themselves
  float* qkv = nullptr;                   ///< [T][max qkv size]
  float* query = nullptr;                 ///< [T][max q size], normalised and rotated
  std::byte* query_latents = nullptr;     ///< prepared compressed queries, [T]
  float* attention = nullptr;             ///< [T][max out size]
  AttentionParts attention_parts;         ///< [kPartRows]; where there are ranks for heads to straddle
  std::vector<float*> norm_sums;          ///< per dense rank [T][2]: squares of its rows of q and of k, added
  std::vector<float*> attention_partials;   ///< per dense rank [T][H]
  std::vector<float*> ffn_partials;         ///< per dense rank [T][H]
  std::vector<float*> expert_partials;      ///< the experts' alone, where branches have norms of their own
  float* contributions = nullptr;           ///< [pairs][max group ranks][H]; GPU lane only
  int32_t* topk_ids = nullptr;              ///< [layers][T * K]
  float* topk_weights = nullptr;            ///< [layers][T * K]
  uint32_t guessed_tokens = 0;              ///< most tokens of a step with guesses; 0: no room for any
  LayerInput guess_input;                   ///< [guessed_tokens]
  int32_t* guess_ids = nullptr;             ///< [guessed_tokens * K], of the layer guessed last
  float* guess_weights = nullptr;           ///< [guessed_tokens * K]
  float* logits = nullptr;                  ///< [rows][V]
  LayerInput final_input;                   ///< [rows]
  Candidates candidates;                    ///< [rows], where they were asked for
  std::vector<Candidates> rank_candidates;  ///< per dense rank [rows]: of its part of the vocabulary
  std::vector<RankScratch> unit_scratch;    ///< per unit rank
  std::vector<RankScratch> dense_scratch;   ///< per dense rank; the unit ranks' where there is no GPU lane
  ExpertGroups groups;                      ///< of the layer under way; GPU lane only

 private:
  Arena arena_;
};

}  // namespace nearmoe
