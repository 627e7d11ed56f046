#include "step.h"

#include <cmath>
#include <string>

namespace nearmoe {
namespace {

constexpr size_t kHead = 2;  // sequences, tokens
// Count, first position, logit rows, cancel slot, KV blocks, one more than the state slots read and written.
constexpr size_t kSequenceColumns = 7;

Status bad(const char* what) { return Status::error(Code::InvalidArgument, std::string("step: ") + what); }

/// Angles in float32, as the Hub's reference code computes them.
void fill_rope_tables(const StepSequence& sequence, const float* inverse, size_t half, float factor,
                      std::vector<float>& cos, std::vector<float>& sin) {
  for (uint32_t i = 0; i < sequence.count; ++i) {
    const auto position = static_cast<float>(sequence.first_position + i);
    for (size_t j = 0; j < half; ++j) {
      const float angle = position * inverse[j];
      cos.push_back(std::cos(angle) * factor);
      sin.push_back(std::sin(angle) * factor);
    }
  }
}

}  // namespace

/// The slots of a sequence's state: one to read, unless it begins, and one to write that no other has to do
/// with.
Status Step::take_states(StepSequence& sequence, const int32_t* columns, std::vector<bool>& written,
                         uint32_t num_state_slots) const {
  const auto source = static_cast<uint32_t>(columns[0]), target = static_cast<uint32_t>(columns[1]);
  if (num_state_slots == 0) return source + target == 0 ? Status{} : bad("state slots of a model without");
  if (target == 0 || target > num_state_slots || source > num_state_slots) return bad("no such state slot");
  if ((source == 0) != (sequence.first_position == 0)) return bad("no state to go on from, or one too many");
  if (written[target - 1]) return bad("two sequences write one state slot");
  written[target - 1] = true;
  sequence.state_source = source == 0 ? 0 : source - 1;
  sequence.state_target = target - 1;
  return {};
}

Status Step::decode(const ModelSpec& spec, const int32_t* wire, size_t wire_size, const float* ropes,
                    size_t ropes_size, uint32_t max_tokens, uint32_t max_logit_rows, uint32_t num_kv_blocks,
                    uint32_t num_cancel_slots, uint32_t num_state_slots) {
  if (wire_size < kHead || wire[0] < 1 || wire[1] < 1) return bad("no sequences");
  const auto count = static_cast<size_t>(wire[0]);
  tokens = static_cast<uint32_t>(wire[1]);
  if (tokens > max_tokens) return bad("more tokens than maxStepTokens");
  if (count > tokens || wire_size < kHead + count * kSequenceColumns + tokens) return bad("too short");
  sequences.clear();
  blocks.clear();
  logit_tokens.clear();
  const int32_t* row = wire + kHead;
  std::vector<bool> written(num_state_slots);
  uint32_t first_token = 0;
  for (size_t s = 0; s < count; ++s, row += kSequenceColumns) {
    for (size_t c = 0; c < kSequenceColumns; ++c) {
      if (row[c] < 0) return bad("negative number");
    }
    StepSequence sequence{first_token,
                          static_cast<uint32_t>(row[0]),
                          static_cast<uint32_t>(row[1]),
                          static_cast<uint32_t>(row[2]),
                          static_cast<uint32_t>(row[3]),
                          0,
                          static_cast<uint32_t>(row[4])};
    if (sequence.count < 1 || sequence.count > tokens - first_token) return bad("token counts do not add up");
    if (sequence.logit_rows > sequence.count) return bad("more logit rows than tokens");
    if (sequence.cancel_slot >= num_cancel_slots) return bad("no such cancel slot");
    const uint64_t positions = uint64_t{sequence.first_position} + sequence.count;
    if (positions > uint64_t{sequence.num_blocks} * kKvBlockTokens)
      return bad("KV blocks do not cover the positions");
    if (Status s = take_states(sequence, row + 5, written, num_state_slots); !s.ok()) return s;
    first_token += sequence.count;
    sequences.push_back(sequence);
  }
  if (first_token != tokens) return bad("token counts do not add up");
  for (const StepSequence& sequence : sequences) {
    if (num_state_slots > 0 && sequence.first_position > 0 && written[sequence.state_source])
      return bad("a state slot is read and written");
  }
  const int32_t* end = wire + wire_size;
  for (StepSequence& sequence : sequences) {
    sequence.first_block = static_cast<uint32_t>(blocks.size());
    if (static_cast<size_t>(end - row) < sequence.num_blocks) return bad("too short");
    for (uint32_t b = 0; b < sequence.num_blocks; ++b, ++row) {
      if (*row < 0 || static_cast<uint32_t>(*row) >= num_kv_blocks) return bad("no such KV block");
      blocks.push_back(static_cast<uint32_t>(*row));
    }
    for (uint32_t i = sequence.count - sequence.logit_rows; i < sequence.count; ++i) {
      logit_tokens.push_back(sequence.first_token + i);
    }
  }
  if (logit_tokens.size() > max_logit_rows) return bad("more logit rows than maxLogitRows");
  if (static_cast<size_t>(end - row) != tokens) return bad("token ids do not match their count");
  token_ids.assign(row, end);
  for (const int32_t id : token_ids) {
    if (id < 0 || static_cast<uint32_t>(id) >= spec.vocab_size) return bad("token id outside the vocabulary");
  }
  cos.assign(spec.ropes.size(), {});
  sin.assign(spec.ropes.size(), {});
  size_t at = 0;
  for (const StepSequence& sequence : sequences) {
    for (size_t r = 0; r < spec.ropes.size(); ++r) {
      const size_t half = spec.ropes[r].rotary_dim / 2;
      if (ropes_size - at < half + 1) return bad("rope frequencies do not match the model");
      fill_rope_tables(sequence, ropes + at + 1, half, ropes[at], cos[r], sin[r]);
      at += half + 1;
    }
  }
  if (at != ropes_size) return bad("rope frequencies do not match the model");
  return {};
}

}  // namespace nearmoe
