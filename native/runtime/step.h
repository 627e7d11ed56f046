// One engine step as native sees it: the tokens of all sequences, their positions and KV blocks, the routing
// that comes out, and the buffers in which activations live. Written by the control thread before a step's
// first job.
#pragma once

#include <cstdint>
#include <vector>

#include "model_spec.h"
#include "status.h"

namespace nearmoe {

struct StepSequence {
  uint32_t first_token = 0;  ///< row in the step's activations
  uint32_t count = 0;
  uint32_t first_position = 0;
  uint32_t logit_rows = 0;  ///< of the last tokens
  uint32_t cancel_slot = 0;
  uint32_t first_block = 0;  ///< index into Step::blocks
  uint32_t num_blocks = 0;
  uint32_t state_source = 0;  ///< slot with the state before the first token; none at position 0
  uint32_t state_target = 0;  ///< slot for the state after the last token; where the model has states
};

struct Step {
  uint32_t tokens = 0;
  std::vector<int32_t> token_ids;  ///< [tokens]
  std::vector<StepSequence> sequences;
  std::vector<uint32_t> blocks;              ///< KV block ids of all sequences
  std::vector<uint32_t> logit_tokens;        ///< rows that need logits
  std::vector<std::vector<float>> cos, sin;  ///< per rope set [tokens][rotary_dim / 2]

  /// Reads the step's wire form (src/device/native.ts encodeStep) and checks every number in it. `ropes`
  /// holds per sequence and rope set the attention factor and rotary_dim / 2 inverse frequencies.
  Status decode(const ModelSpec& spec, const int32_t* wire, size_t wire_size, const float* ropes,
                size_t ropes_size, uint32_t max_tokens, uint32_t max_logit_rows, uint32_t num_kv_blocks,
                uint32_t num_cancel_slots, uint32_t num_state_slots);

 private:
  Status take_states(StepSequence& sequence, const int32_t* columns, std::vector<bool>& written,
                     uint32_t num_state_slots) const;
};

}  // namespace nearmoe
