// Latent attention (MLA) in its absorbed form, DeepSeek-V2, arXiv 2405.04434: the cache holds one compressed
// row per position; a head's query is brought into the space of those rows, attends to them as they are, and
// the weighted rows are projected up to the head's value. Every rank has whole heads. See forward.h.
#include <algorithm>

#include "forward.h"

namespace nearmoe {

void Forward::latent_attention_part(uint32_t rank, uint32_t layer) {
  prepare_input(rank, layer, Part::Attention);
  OpClock& clock = dense_scratch(rank).clock;
  project_latents(rank, layer);
  clock.lap(TimedOp::Qkv);
  meet(rank);
  ready_latents(rank, layer);
  clock.lap(TimedOp::Rope);
  meet(rank);
  attend_latents(rank, layer);
  if (!store_.heads_aligned(layer)) meet(rank);
  project_output(rank, layer);
  clock.lap(TimedOp::Output);
}

/// This rank's rows of the compressed query and of the latent; without compression its heads' queries.
void Forward::project_latents(uint32_t rank, uint32_t layer) {
  const LayerWeights& weights = weights_.layers[layer];
  const AttentionSpec& spec = spec_.layers[layer].attention;
  const LayerInput& input = input_of(rank);
  const uint32_t query_rank = spec.latent.query_rank;
  const size_t ld = spec.qkv_size();
  project(ops_, weights.latent_down, rank, input, step_->tokens, buffers_.qkv + query_rank, ld);
  if (query_rank > 0) {
    project(ops_, weights.query_down, rank, input, step_->tokens, buffers_.qkv, ld);
  } else {
    project(ops_, weights.query, rank, input, step_->tokens, buffers_.query, spec.q_size());
  }
}

void Forward::rotate_latent(const AttentionSpec& spec, uint32_t token, float* part) const {
  const auto set = static_cast<size_t>(spec.rope);
  const RopeSpec& rope = spec_.ropes[set];
  const size_t at = size_t{token} * (rope.rotary_dim / 2);
  ops_.rope(part, 1, spec.latent.rope_dim, rope.rotary_dim, step_->cos[set].data() + at,
            step_->sin[set].data() + at, rope.style);
}

/// This rank's tokens: the latent normalised, rotated and stored, the compressed query normalised and
/// prepared.
void Forward::ready_latents(uint32_t rank, uint32_t layer) {
  const LayerWeights& weights = weights_.layers[layer];
  const AttentionSpec& spec = spec_.layers[layer].attention;
  const LatentSpec& latent = spec.latent;
  const Range mine = split(step_->tokens, topology_.dense_ranks, 1)[rank];
  float* query = dense_scratch(rank).latent;
  float* row = query + latent.query_rank;
  for (const StepSequence& sequence : step_->sequences) {
    const uint32_t first = std::max(mine.begin, sequence.first_token);
    const uint32_t end = std::min(mine.end, sequence.first_token + sequence.count);
    for (uint32_t token = first; token < end; ++token) {
      const float* compressed = buffers_.qkv + size_t{token} * spec.qkv_size();
      const float* source = compressed + latent.query_rank;
      ops_.rms_norm(source, weights.key_norm.data(), kLatentNormEps, row, latent.key_value_rank);
      std::copy(source + latent.key_value_rank, source + latent.row_size(), row + latent.key_value_rank);
      rotate_latent(spec, token, row + latent.key_value_rank);
      const uint32_t position = sequence.first_position + token - sequence.first_token;
      const uint32_t block = step_->blocks[sequence.first_block + position / kKvBlockTokens];
      ops_.latent_store(kv_.dtype(), row, latent.row_size(), position % kKvBlockTokens,
                        kv_.block(layer, block, 0));
      if (latent.query_rank == 0) continue;
      ops_.rms_norm(compressed, weights.query_norm.data(), kLatentNormEps, query, latent.query_rank);
      const ActFormat format = traits(weights.query.slices[0].dtype).activation;
      ops_.prepare_activations(format, query, latent.query_rank, 1, latent.query_rank,
                               buffers_.query_latents + token * activation_stride(format, latent.query_rank));
    }
  }
}

void Forward::attend_latents(uint32_t rank, uint32_t layer) {
  const AttentionSpec& spec = spec_.layers[layer].attention;
  const Range heads = store_.latent_heads(layer)[rank];
  if (heads.size() == 0) return;
  OpClock& clock = dense_scratch(rank).clock;
  if (spec.latent.query_rank > 0) {
    const SlicedMatrix& query = weights_.layers[layer].query;
    const size_t stride =
        activation_stride(traits(query.slices[rank].dtype).activation, spec.latent.query_rank);
    ops_.matmul(query.slices[rank], {buffers_.query_latents, stride, nullptr, step_->tokens},
                buffers_.query + query.ranges[rank].begin, spec.q_size());
    clock.lap(TimedOp::Qkv);
  }
  for (const StepSequence& sequence : step_->sequences) {
    for (uint32_t first = 0; first < sequence.count; first += kLatentTokens) {
      const Range tokens{first, std::min(first + kLatentTokens, sequence.count)};
      const uint32_t tile = std::max(kLatentRows / tokens.size(), 1U);
      for (uint32_t head = heads.begin; head < heads.end; head += tile)
        attend_latent_tile(rank, layer, sequence, tokens, {head, std::min(head + tile, heads.end)});
    }
  }
  clock.lap(TimedOp::Attention);
}

/// `heads` of the attention of a sequence's `tokens`, counted from its first one in the step.
void Forward::attend_latent_tile(uint32_t rank, uint32_t layer, const StepSequence& sequence, Range tokens,
                                 Range heads) {
  const AttentionSpec& spec = spec_.layers[layer].attention;
  const LatentSpec& latent = spec.latent;
  RankScratch& scratch = dense_scratch(rank);
  const Range rows{sequence.first_token + tokens.begin, sequence.first_token + tokens.end};
  for (uint32_t head = heads.begin; head < heads.end; ++head)
    absorb_query(layer, head, rows, scratch.latent_query + size_t{head - heads.begin} * latent.row_size(),
                 size_t{heads.size()} * latent.row_size(), scratch);
  scratch.kv_blocks.clear();
  for (uint32_t b = 0; b < sequence.num_blocks; ++b)
    scratch.kv_blocks.push_back(kv_.block(layer, step_->blocks[sequence.first_block + b], 0));
  LatentAttentionArgs args;
  args.q = scratch.latent_query;
  args.q_stride = size_t{heads.size()} * latent.row_size();
  args.q_heads = heads.size();
  args.tokens = tokens.size();
  args.first_position = sequence.first_position + tokens.begin;
  args.latent_dim = latent.row_size();
  args.value_dim = latent.key_value_rank;
  args.blocks = scratch.kv_blocks.data();
  args.kv_dtype = kv_.dtype();
  args.scale = spec.scale;
  args.out = scratch.latent_out;
  args.out_stride = size_t{heads.size()} * latent.key_value_rank;
  ops_.latent_attention(args);
  for (uint32_t head = heads.begin; head < heads.end; ++head)
    project_value(layer, head, rows, scratch.latent_out + size_t{head - heads.begin} * latent.key_value_rank,
                  args.out_stride, scratch);
}

/// A head's queries of the step's `rows` in the space of the latents, their rotary part behind: `out`, token
/// stride `ld`.
void Forward::absorb_query(uint32_t layer, uint32_t head, Range rows, float* out, size_t ld,
                           RankScratch& scratch) const {
  const AttentionSpec& spec = spec_.layers[layer].attention;
  const LatentSpec& latent = spec.latent;
  const PackedMatrix& key_up = weights_.layers[layer].key_up[head];
  const ActFormat format = traits(key_up.dtype).activation;
  const float* query = buffers_.query + size_t{rows.begin} * spec.q_size() + size_t{head} * spec.head_dim;
  ops_.prepare_activations(format, query, spec.q_size(), rows.size(), latent.nope_dim, scratch.latent_in);
  ops_.matmul(key_up, {scratch.latent_in, activation_stride(format, latent.nope_dim), nullptr, rows.size()},
              out, ld);
  for (uint32_t i = 0; i < rows.size(); ++i) {
    const float* rope_part = query + i * spec.q_size() + latent.nope_dim;
    float* rotated = out + i * ld + latent.key_value_rank;
    std::copy(rope_part, rope_part + latent.rope_dim, rotated);
    rotate_latent(spec, rows.begin + i, rotated);
  }
}

/// A head's weighted latents of the step's `rows` (token stride `ld`), projected up to its values.
void Forward::project_value(uint32_t layer, uint32_t head, Range rows, const float* weighted, size_t ld,
                            RankScratch& scratch) {
  const AttentionSpec& spec = spec_.layers[layer].attention;
  const LatentSpec& latent = spec.latent;
  const PackedMatrix& value_up = weights_.layers[layer].value_up[head];
  const ActFormat format = traits(value_up.dtype).activation;
  ops_.prepare_activations(format, weighted, ld, rows.size(), latent.key_value_rank, scratch.latent_in);
  ops_.matmul(value_up,
              {scratch.latent_in, activation_stride(format, latent.key_value_rank), nullptr, rows.size()},
              buffers_.attention + size_t{rows.begin} * spec.out_size() + size_t{head} * latent.value_dim,
              spec.out_size());
}

}  // namespace nearmoe
