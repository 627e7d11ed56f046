// Attention where heads straddle ranks: the keys of a head are cut into parts at fixed positions, which are
// dealt out to the ranks and put together in order (as in flash decoding, Dao et al. 2023). A token's result
// is put together from the same parts whether they were dealt out or one rank computed them all, so it does
// not depend on the batch.
#include <algorithm>
#include <cmath>
#include <optional>

#include "forward.h"

namespace nearmoe {
namespace {

uint32_t parts_of(const StepSequence& sequence) {
  return (sequence.first_position + sequence.count - 1) / kPartKeys + 1;
}

/// Tokens of the sequence whose own positions lie in a part.
Range tokens_in(const StepSequence& sequence, uint32_t part) {
  const auto clamp = [&](uint32_t position) {
    return std::clamp(position, sequence.first_position, sequence.first_position + sequence.count) -
           sequence.first_position;
  };
  return {clamp(part * kPartKeys), clamp((part + 1) * kPartKeys)};
}

/// Adds `columns` of one row's next part to `out`.
void add_part(const float* stats, const float* part, Range columns, PartSum& so_far, float* out) {
  if (stats[1] == 0) return;
  if (so_far.sum == 0) {
    so_far = {stats[0], stats[1]};
    std::copy(part + columns.begin, part + columns.end, out + columns.begin);
    return;
  }
  const float largest = std::max(so_far.largest, stats[0]);
  const float before = std::exp(so_far.largest - largest), now = std::exp(stats[0] - largest);
  for (uint32_t c = columns.begin; c < columns.end; ++c) out[c] = out[c] * before + part[c] * now;
  so_far = {largest, so_far.sum * before + stats[1] * now};
}

void divide(Range columns, const PartSum& sum, float* out) {
  for (uint32_t c = columns.begin; c < columns.end; ++c) out[c] /= sum.sum;
}

}  // namespace

bool Forward::parts_are_dealt_out(const AttentionSpec& spec) const {
  size_t rows = 0;
  for (const StepSequence& sequence : step_->sequences)
    rows += size_t{sequence.count} * parts_of(sequence) * spec.num_heads;
  return rows <= kPartRows;
}

void Forward::attend_parts(uint32_t rank, uint32_t layer) {
  const AttentionSpec& spec = spec_.layers[layer].attention;
  const bool dealt_out = parts_are_dealt_out(spec);
  RankScratch& scratch = dense_scratch(rank);
  uint32_t item = 0;
  size_t row = 0;
  for (const StepSequence& sequence : step_->sequences) {
    for (uint32_t head = 0; head < spec.num_kv_heads; ++head) {
      std::optional<AttentionArgs> args;
      for (uint32_t part = 0; part < (dealt_out ? parts_of(sequence) : 1); ++part, ++item) {
        const AttentionParts rows{buffers_.attention_parts.out + row * spec.head_dim,
                                  buffers_.attention_parts.stats + row * 2};
        if (dealt_out) row += size_t{sequence.count} * spec.heads_per_kv();
        if (item % topology_.dense_ranks != rank) continue;
        if (dealt_out) {
          if (!args) args = attention_args(layer, sequence, head, scratch);
          attend_part(layer, sequence, head, part, *args, rows, scratch);
        } else {
          attend_head_by_parts(layer, sequence, head, scratch);
        }
      }
    }
  }
}

void Forward::attend_part(uint32_t layer, const StepSequence& sequence, uint32_t kv_head, uint32_t part,
                          AttentionArgs args, const AttentionParts& rows, RankScratch& scratch) {
  const AttentionSpec& spec = spec_.layers[layer].attention;
  const size_t group = size_t{spec.heads_per_kv()} * spec.head_dim;
  store_key_value(layer, sequence, kv_head, tokens_in(sequence, part), scratch);
  args.q = scratch.part_query;
  args.q_stride = args.out_stride = group;
  args.first_key = part * kPartKeys;
  args.end_key = args.first_key + kPartKeys;
  if (part > 0) args.sinks = nullptr;
  for (uint32_t first = 0; first < sequence.count; first += kPartTokens) {
    const uint32_t count = std::min(kPartTokens, sequence.count - first);
    ready_query(layer, sequence, kv_head, {first, first + count}, scratch, scratch.part_query, group);
    scratch.clock.lap(TimedOp::Rope);
    args.tokens = count;
    args.first_position = sequence.first_position + first;
    args.out = rows.out + first * group;
    args.stats = rows.stats + size_t{first} * spec.heads_per_kv() * 2;
    ops_.attention(args);
    scratch.clock.lap(TimedOp::Attention);
  }
}

/// All parts of a head for all tokens, put together at once.
void Forward::attend_head_by_parts(uint32_t layer, const StepSequence& sequence, uint32_t kv_head,
                                   RankScratch& scratch) {
  const AttentionSpec& spec = spec_.layers[layer].attention;
  const size_t group = size_t{spec.heads_per_kv()} * spec.head_dim, stride = spec.q_size();
  const Range columns{0, spec.head_dim};
  store_key_value(layer, sequence, kv_head, {0, sequence.count}, scratch);
  AttentionArgs args = attention_args(layer, sequence, kv_head, scratch);
  args.q = scratch.part_query;
  args.out = scratch.part.out;
  args.stats = scratch.part.stats;
  args.q_stride = args.out_stride = group;
  const float* sinks = args.sinks;
  for (uint32_t first = 0; first < sequence.count; first += kPartTokens) {
    const uint32_t count = std::min(kPartTokens, sequence.count - first);
    ready_query(layer, sequence, kv_head, {first, first + count}, scratch, scratch.part_query, group);
    scratch.clock.lap(TimedOp::Rope);
    args.tokens = count;
    args.first_position = sequence.first_position + first;
    float* out = buffers_.attention + (sequence.first_token + first) * stride + kv_head * group;
    const auto row_out = [&](size_t row) {
      return out + row / spec.heads_per_kv() * stride + row % spec.heads_per_kv() * spec.head_dim;
    };
    scratch.part_sums.assign(size_t{count} * spec.heads_per_kv(), {});
    for (uint32_t part = 0; part * kPartKeys < args.first_position + count; ++part) {
      args.first_key = part * kPartKeys;
      args.end_key = args.first_key + kPartKeys;
      args.sinks = part == 0 ? sinks : nullptr;
      ops_.attention(args);
      for (size_t row = 0; row < scratch.part_sums.size(); ++row)
        add_part(args.stats + 2 * row, args.out + row * spec.head_dim, columns, scratch.part_sums[row],
                 row_out(row));
    }
    for (size_t row = 0; row < scratch.part_sums.size(); ++row)
      divide(columns, scratch.part_sums[row], row_out(row));
    const Range heads{static_cast<uint32_t>(kv_head * group), static_cast<uint32_t>((kv_head + 1) * group)};
    for (uint32_t i = 0; i < count; ++i) gate_attention(spec, sequence.first_token + first + i, heads);
    scratch.clock.lap(TimedOp::Attention);
  }
}

/// Where parts were dealt out: the columns of all tokens' attention that this rank's output projection reads.
void Forward::put_parts_together(uint32_t rank, uint32_t layer) {
  const AttentionSpec& spec = spec_.layers[layer].attention;
  const Range mine = weights_.layers[layer].output.ranges[rank];
  if (!parts_are_dealt_out(spec) || mine.size() == 0) return;
  const uint32_t shared = spec.heads_per_kv(), dim = spec.head_dim;
  const AttentionParts& parts = buffers_.attention_parts;
  size_t sequence_row = 0;
  for (const StepSequence& sequence : step_->sequences) {
    const uint32_t count = parts_of(sequence);
    const size_t part_rows = size_t{sequence.count} * shared;
    for (uint32_t token = 0; token < sequence.count; ++token) {
      float* attention = buffers_.attention + size_t{sequence.first_token + token} * spec.q_size();
      for (uint32_t head = mine.begin / dim; head * dim < mine.end; ++head) {
        const Range columns{std::max(mine.begin, head * dim) - head * dim,
                            std::min(mine.end, (head + 1) * dim) - head * dim};
        size_t row =
            sequence_row + head / shared * count * part_rows + size_t{token} * shared + head % shared;
        PartSum so_far;
        for (uint32_t part = 0; part < count; ++part, row += part_rows)
          add_part(parts.stats + 2 * row, parts.out + row * dim, columns, so_far,
                   attention + size_t{head} * dim);
        divide(columns, so_far, attention + size_t{head} * dim);
      }
      gate_attention(spec, sequence.first_token + token, mine);
    }
    sequence_row += count * part_rows * spec.num_kv_heads;
  }
  dense_scratch(rank).clock.lap(TimedOp::Attention);
}

}  // namespace nearmoe
