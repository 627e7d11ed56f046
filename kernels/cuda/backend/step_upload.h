// What a step brings to the device, in one copy: token ids, positions, block tables, angles, and how tokens
// are divided among the attention kernels. Used by the context only.
#pragma once

#include <vector>

#include "model.h"

namespace nearmoe::gpu {

/// Tiles of attention_prefill for layers whose tiles have one size.
struct PrefillTiles {
  uint32_t tile_tokens = 0, count = 0;
  const cuda::PrefillTile* tiles = nullptr;  ///< device
};

class StepUpload {
 public:
  StepUpload(Failure& failure, Memory& memory, const Model& model)
      : failure_(failure), memory_(memory), model_(model) {}

  /// Checks nothing: the context has. `decode_all`: no tensor-core attention on this device.
  /// `moved`: device pointers of earlier steps are gone, also those of steps of the same shape.
  NmGpuCode upload(const NmGpuStep& step, bool decode_all, cudaStream_t stream, bool* moved);

  // Device pointers, valid until the next upload.
  const int32_t* token_ids = nullptr;
  const uint32_t *positions = nullptr, *block_offsets = nullptr, *block_table = nullptr;
  const uint32_t* logit_rows = nullptr;
  const uint32_t* decode_tokens = nullptr;
  /// Every sequence has one token: the pointers then depend on nothing but the number of tokens.
  bool single_tokens = false;
  // Where the model has states:
  const cuda::StateSequence* sequences = nullptr;
  const uint32_t* sequence_of = nullptr;
  uint32_t num_sequences = 0;
  uint32_t num_decode_tokens = 0;
  uint32_t longest_decode = 0;  ///< positions that the longest of them sees
  const cuda::ExpertTile* dense_tiles = nullptr;
  uint32_t num_dense_tiles = 0;
  std::vector<const float2*> rotary;  ///< per rope set
  const PrefillTiles& prefill_tiles(uint32_t layer) const;

 private:
  template <class T>
  T* place(size_t count, const T** device);
  void lay_out(const NmGpuStep& step, bool decode_all);
  void place_tokens(const NmGpuStep& step, bool decode_all);
  void place_states(const NmGpuStep& step);
  void place_tiles(const NmGpuStep& step, bool decode_all);
  void place_rotary(const NmGpuStep& step);
  void place_blocks(const NmGpuStep& step);
  NmGpuCode grow();

  Failure& failure_;
  Memory& memory_;
  const Model& model_;
  uint8_t *host_ = nullptr, *device_ = nullptr;
  size_t capacity_ = 0, used_ = 0;
  std::vector<PrefillTiles> prefill_;
};

}  // namespace nearmoe::gpu
