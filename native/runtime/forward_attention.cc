// The attention half of a layer: q/k/v projection, norms, rotary embedding, KV cache, attention, output
// projection.
#include <algorithm>
#include <cmath>

#include "forward.h"

namespace nearmoe {
namespace {

/// project of forward.h and a bias.
void project(const OpTable& ops, const SlicedMatrix& matrix, uint32_t rank, const LayerInput& input,
             uint32_t tokens, const std::vector<float>& bias, float* out, size_t ld) {
  nearmoe::project(ops, matrix, rank, input, tokens, out, ld);
  if (bias.empty()) return;
  const Range rows = matrix.ranges[rank];
  for (uint32_t t = 0; t < tokens; ++t)
    ops.add(bias.data() + rows.begin, out + t * ld + rows.begin, rows.size());
}

/// Sum of squares with 16 running sums, so that the compiler can keep them in a vector.
float sum_of_squares(const float* x, uint32_t n) {
  float sums[16] = {};
  uint32_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (uint32_t j = 0; j < 16; ++j) sums[j] += x[i + j] * x[i + j];
  }
  float sum = 0;
  for (; i < n; ++i) sum += x[i] * x[i];
  for (const float part : sums) sum += part;
  return sum;
}

/// Keeps the softmax of long sequences sharp (Nakanishi 2025, arXiv 2501.19399, as Llama 4 has it).
float temperature(const AttentionSpec& spec, uint32_t position) {
  const float steps = std::floor((static_cast<float>(position) + 1.0F) / spec.temperature_floor);
  return std::log1p(steps) * spec.temperature_scale + 1.0F;
}

void clip(float* x, uint32_t n, float limit) {
  if (limit <= 0) return;
  for (uint32_t i = 0; i < n; ++i) x[i] = std::clamp(x[i], -limit, limit);
}

}  // namespace

void Forward::attention_part(uint32_t rank, uint32_t layer) {
  if (spec_.layers[layer].recurrent.present()) return recurrent_part(rank, layer);
  if (spec_.layers[layer].attention.is_latent) return latent_attention_part(rank, layer);
  prepare_input(rank, layer, Part::Attention);
  const bool aligned = store_.heads_aligned(layer);
  project_qkv(rank, layer);
  if (!aligned) meet(rank);
  attend(rank, layer);
  if (!aligned) {
    meet(rank);
    put_parts_together(rank, layer);
  }
  project_output(rank, layer);
  dense_scratch(rank).clock.lap(TimedOp::Output);
}

void Forward::project_qkv(uint32_t rank, uint32_t layer) {
  const LayerWeights& weights = weights_.layers[layer];
  const AttentionSpec& spec = spec_.layers[layer].attention;
  const LayerInput& input = input_of(rank);
  const size_t ld = spec.qkv_size();
  float* qkv = buffers_.qkv;
  OpClock& clock = dense_scratch(rank).clock;
  project(ops_, weights.query, rank, input, step_->tokens, weights.query_bias, qkv, ld);
  project(ops_, weights.key, rank, input, step_->tokens, weights.key_bias, qkv + spec.q_size(), ld);
  // A norm over the whole projection needs every rank's sum of squares. They are handed over while each rank
  // computes its values, so that hardly anyone waits.
  const bool full = spec.qk_norm == QkNorm::Full;
  if (full) add_squares(rank, layer);
  const uint32_t phase = full ? barrier_.arrive() : 0;
  if (!spec.keys_as_values) {
    project(ops_, weights.value, rank, input, step_->tokens, weights.value_bias, qkv + spec.value_offset(),
            ld);
  }
  if (spec.output_gate)
    nearmoe::project(ops_, weights.output_gate, rank, input, step_->tokens, qkv + spec.gate_offset(), ld);
  clock.lap(TimedOp::Qkv);
  if (!full) return;
  barrier_.wait(phase);
  clock.lap(TimedOp::Barrier);
}

void Forward::add_squares(uint32_t rank, uint32_t layer) {
  const AttentionSpec& spec = spec_.layers[layer].attention;
  const Range query = weights_.layers[layer].query.ranges[rank],
              key = weights_.layers[layer].key.ranges[rank];
  float* sums = buffers_.norm_sums[rank];
  for (uint32_t t = 0; t < step_->tokens; ++t) {
    const float* row = buffers_.qkv + size_t{t} * spec.qkv_size();
    sums[2 * t] = sum_of_squares(row + query.begin, query.size());
    sums[2 * t + 1] = sum_of_squares(row + spec.q_size() + key.begin, key.size());
  }
}

/// 1 / rms of every token's whole q and k projection, from the ranks' sums in rank order.
void Forward::full_norms(const AttentionSpec& spec, RankScratch& scratch) const {
  const auto inverse = [this](float sum, uint32_t n) {
    return 1.0F / std::sqrt(sum / static_cast<float>(n) + spec_.norm_eps);
  };
  for (uint32_t t = 0; t < step_->tokens; ++t) {
    float query = 0, key = 0;
    for (const float* sums : buffers_.norm_sums) {
      query += sums[2 * t];
      key += sums[2 * t + 1];
    }
    scratch.query_inverse[t] = inverse(query, spec.q_size());
    scratch.key_inverse[t] = inverse(key, spec.kv_size());
  }
}

void Forward::attend(uint32_t rank, uint32_t layer) {
  const AttentionSpec& spec = spec_.layers[layer].attention;
  if (spec.qk_norm == QkNorm::Full) full_norms(spec, dense_scratch(rank));
  if (store_.heads_aligned(layer)) {
    const Range heads = store_.kv_heads(layer, rank);
    for (const StepSequence& sequence : step_->sequences) {
      for (uint32_t head = heads.begin; head < heads.end; ++head) {
        attend_head(rank, layer, sequence, head, head + 1 < heads.end);
      }
    }
    return;
  }
  attend_parts(rank, layer);
}

void Forward::normalise_head(const AttentionSpec& spec, const float* row, float inverse,
                             const std::vector<float>& weight, uint32_t first, float* head) const {
  const float* x = row + first;
  if (spec.qk_norm == QkNorm::Head || spec.qk_norm == QkNorm::HeadUnit) {
    const float* factors = spec.qk_norm == QkNorm::Head ? weight.data() : ones_.data();
    ops_.rms_norm(x, factors, spec_.norm_eps, head, spec.head_dim);
  } else if (spec.qk_norm == QkNorm::Full) {
    for (uint32_t i = 0; i < spec.head_dim; ++i) head[i] = x[i] * inverse * weight[first + i];
  } else {
    std::copy(x, x + spec.head_dim, head);
  }
  clip(head, spec.head_dim, spec.clip_qkv);
}

void Forward::rotate(const AttentionSpec& spec, uint32_t token, float* heads, uint32_t count) const {
  if (spec.rope < 0) return;
  const auto set = static_cast<size_t>(spec.rope);
  const RopeSpec& rope = spec_.ropes[set];
  const size_t at = size_t{token} * (rope.rotary_dim / 2);
  ops_.rope(heads, count, spec.head_dim, rope.rotary_dim, step_->cos[set].data() + at,
            step_->sin[set].data() + at, rope.style);
}

void Forward::store_key_value(uint32_t layer, const StepSequence& sequence, uint32_t kv_head, Range tokens,
                              RankScratch& scratch) {
  const AttentionSpec& spec = spec_.layers[layer].attention;
  const LayerWeights& weights = weights_.layers[layer];
  float* key = scratch.head;
  float* value = scratch.head + spec.head_dim;
  for (uint32_t i = tokens.begin; i < tokens.end; ++i) {
    const uint32_t token = sequence.first_token + i;
    const float* row = buffers_.qkv + size_t{token} * spec.qkv_size();
    const uint32_t first = kv_head * spec.head_dim;
    normalise_head(spec, row + spec.q_size(), scratch.key_inverse[token], weights.key_norm, first, key);
    rotate(spec, token, key, 1);
    const float* values = row + spec.value_offset() + first;
    if (spec.value_norm) {
      ops_.rms_norm(values, ones_.data(), spec_.norm_eps, value, spec.head_dim);
    } else {
      std::copy(values, values + spec.head_dim, value);
    }
    clip(value, spec.head_dim, spec.clip_qkv);
    const uint32_t position = sequence.first_position + i;
    std::byte* block =
        kv_.block(layer, step_->blocks[sequence.first_block + position / kKvBlockTokens], kv_head);
    ops_.kv_store(kv_.dtype(), key, value, spec.head_dim, position % kKvBlockTokens, block);
  }
}

void Forward::ready_query(uint32_t layer, const StepSequence& sequence, uint32_t kv_head, Range tokens,
                          RankScratch& scratch, float* ready, size_t stride) {
  const AttentionSpec& spec = spec_.layers[layer].attention;
  const uint32_t shared = spec.heads_per_kv();
  for (uint32_t i = tokens.begin; i < tokens.end; ++i, ready += stride) {
    const uint32_t token = sequence.first_token + i;
    const float* queries = buffers_.qkv + size_t{token} * spec.qkv_size();
    const uint32_t first = kv_head * shared * spec.head_dim;
    for (uint32_t h = 0; h < shared; ++h) {
      normalise_head(spec, queries, scratch.query_inverse[token], weights_.layers[layer].query_norm,
                     first + h * spec.head_dim, ready + h * spec.head_dim);
    }
    rotate(spec, token, ready, shared);
    if (spec.temperature_scale == 0) continue;
    const float factor = temperature(spec, sequence.first_position + i);
    for (uint32_t j = 0; j < shared * spec.head_dim; ++j) ready[j] *= factor;
  }
}

AttentionArgs Forward::attention_args(uint32_t layer, const StepSequence& sequence, uint32_t kv_head,
                                      RankScratch& scratch) const {
  const AttentionSpec& spec = spec_.layers[layer].attention;
  scratch.kv_blocks.clear();
  for (uint32_t b = 0; b < sequence.num_blocks; ++b) {
    scratch.kv_blocks.push_back(kv_.block(layer, step_->blocks[sequence.first_block + b], kv_head));
  }
  AttentionArgs args;
  args.q_heads = spec.heads_per_kv();
  args.tokens = sequence.count;
  args.first_position = sequence.first_position;
  args.head_dim = spec.head_dim;
  args.blocks = scratch.kv_blocks.data();
  args.kv_dtype = kv_.dtype();
  args.scale = spec.scale;
  args.sliding_window = spec.sliding_window;
  args.chunk_size = spec.chunk_size;
  if (spec.sinks) args.sinks = weights_.layers[layer].attention_sinks.data() + kv_head * spec.heads_per_kv();
  return args;
}

void Forward::attend_head(uint32_t rank, uint32_t layer, const StepSequence& sequence, uint32_t kv_head,
                          bool next_follows) {
  const AttentionSpec& spec = spec_.layers[layer].attention;
  RankScratch& scratch = dense_scratch(rank);
  const size_t stride = spec.q_size();
  const size_t first = sequence.first_token * stride + size_t{kv_head} * spec.heads_per_kv() * spec.head_dim;
  const Range all{0, sequence.count};
  store_key_value(layer, sequence, kv_head, all, scratch);
  ready_query(layer, sequence, kv_head, all, scratch, buffers_.query + first, stride);
  AttentionArgs args = attention_args(layer, sequence, kv_head, scratch);
  args.q = buffers_.query + first;
  args.out = buffers_.attention + first;
  args.q_stride = args.out_stride = stride;
  if (next_follows) args.next_head_bytes = kv_block_bytes(kv_.dtype(), spec.head_dim);
  scratch.clock.lap(TimedOp::Rope);
  ops_.attention(args);
  const Range columns{kv_head * spec.heads_per_kv() * spec.head_dim,
                      (kv_head + 1) * spec.heads_per_kv() * spec.head_dim};
  for (uint32_t i = 0; i < sequence.count; ++i) gate_attention(spec, sequence.first_token + i, columns);
  scratch.clock.lap(TimedOp::Attention);
}

void Forward::gate_attention(const AttentionSpec& spec, uint32_t token, Range columns) {
  if (!spec.output_gate) return;
  const float* gate = buffers_.qkv + size_t{token} * spec.qkv_size() + spec.gate_offset() + columns.begin;
  float* out = buffers_.attention + size_t{token} * spec.q_size() + columns.begin;
  ops_.gated_activation(Activation::Sigmoid, gate, out, out, columns.size());
}

void Forward::project_output(uint32_t rank, uint32_t layer) {
  const SlicedMatrix& output = weights_.layers[layer].output;
  const PackedMatrix& slice = output.slices[rank];
  float* partial = buffers_.attention_partials[rank];
  if (slice.rows == 0) {
    std::fill(partial, partial + size_t{step_->tokens} * spec_.hidden_size, 0.0F);
    return;
  }
  const ActFormat format = traits(slice.dtype).activation;
  const size_t out_size = spec_.layers[layer].out_size();
  std::byte* prepared = dense_scratch(rank).output_in;
  ops_.prepare_activations(format, buffers_.attention + output.ranges[rank].begin, out_size, step_->tokens,
                           slice.cols, prepared);
  ops_.matmul(slice, {prepared, activation_stride(format, slice.cols), nullptr, step_->tokens}, partial,
              spec_.hidden_size);
}

}  // namespace nearmoe
