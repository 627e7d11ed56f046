// The states of layers that have them in the place of keys and values: slots, each with the state of one
// sequence after some token, over all layers. A step reads one slot and writes another, so that an aborted
// step leaves no trace. Which slot holds what is decided in TypeScript (engine/sequence-cache.ts); here is
// only the memory.
#pragma once

#include <cstdint>
#include <vector>

#include "arena.h"
#include "model_spec.h"

namespace nearmoe {

class StateCache {
 public:
  explicit StateCache(const ModelSpec& spec) : spec_(spec) {
    for (const LayerSpec& layer : spec.layers) {
      const RecurrentSpec& recurrent = layer.recurrent;
      conv_offset_.push_back(slot_floats_);
      if (!recurrent.present()) continue;
      slot_floats_ += aligned(size_t{recurrent.conv_width - 1} * recurrent.conv_channels());
      slot_floats_ += recurrent.num_value_heads * delta_floats(recurrent);
    }
  }

  /// Reserves memory for `slots` slots; false where there is none. Pages are committed when first written.
  bool allocate(uint32_t slots) {
    if (!arena_.reserve(slots * slot_bytes(), -1)) return false;
    base_ = reinterpret_cast<float*>(arena_.allocate(slots * slot_bytes()));
    slots_ = base_ == nullptr ? 0 : slots;
    return base_ != nullptr;
  }

  /// Inputs of the convolution before the next token, [conv_width - 1][conv_channels], oldest first.
  float* conv(uint32_t slot, uint32_t layer) const {
    return base_ + slot * slot_floats_ + conv_offset_[layer];
  }
  /// A value head's state, delta_state_floats.
  float* delta(uint32_t slot, uint32_t layer, uint32_t value_head) const {
    const RecurrentSpec& recurrent = spec_.layers[layer].recurrent;
    return conv(slot, layer) + aligned(size_t{recurrent.conv_width - 1} * recurrent.conv_channels()) +
           value_head * delta_floats(recurrent);
  }
  uint32_t slots() const { return slots_; }
  size_t slot_bytes() const { return slot_floats_ * sizeof(float); }
  size_t bytes() const { return slots_ * slot_bytes(); }

 private:
  static size_t aligned(size_t floats) { return (floats + 15) / 16 * 16; }
  static size_t delta_floats(const RecurrentSpec& recurrent) {
    return delta_state_floats(recurrent.key_dim, recurrent.value_dim);
  }

  const ModelSpec& spec_;
  Arena arena_;
  float* base_ = nullptr;
  std::vector<size_t> conv_offset_;
  size_t slot_floats_ = 0;
  uint32_t slots_ = 0;
};

}  // namespace nearmoe
