// The KV cache: blocks of kKvBlockTokens positions for every layer and KV head. Which sequence owns which
// block is decided in TypeScript (engine/kv-blocks.ts); here is only the memory.
#pragma once

#include <cstdint>
#include <vector>

#include "arena.h"
#include "model_spec.h"

namespace nearmoe {

class KvCache {
 public:
  KvCache(const ModelSpec& spec, KvDType dtype) : spec_(spec), dtype_(dtype) {}

  /// Reserves memory for `blocks` blocks; false where there is none. Pages are committed when first written.
  bool allocate(uint32_t blocks) {
    blocks_ = blocks;
    size_t bytes = 0;
    layer_offset_.clear();
    for (const LayerSpec& layer : spec_.layers) {
      layer_offset_.push_back(bytes);
      bytes += size_t{blocks} * layer.attention.num_kv_heads * head_bytes(layer.attention);
    }
    bytes_ = bytes;
    if (!arena_.reserve(bytes, -1)) return false;
    base_ = arena_.allocate(bytes);
    return base_ != nullptr;
  }

  std::byte* block(uint32_t layer, uint32_t block, uint32_t kv_head) const {
    const AttentionSpec& attention = spec_.layers[layer].attention;
    const size_t index = size_t{block} * attention.num_kv_heads + kv_head;
    return base_ + layer_offset_[layer] + index * head_bytes(attention);
  }
  uint32_t blocks() const { return blocks_; }
  size_t bytes() const { return bytes_; }
  KvDType dtype() const { return dtype_; }

 private:
  size_t head_bytes(const AttentionSpec& attention) const {
    return attention.is_latent ? latent_block_bytes(dtype_, attention.latent.row_size())
                               : kv_block_bytes(dtype_, attention.head_dim);
  }

  const ModelSpec& spec_;
  KvDType dtype_;
  Arena arena_;
  std::byte* base_ = nullptr;
  std::vector<size_t> layer_offset_;
  uint32_t blocks_ = 0;
  size_t bytes_ = 0;
};

}  // namespace nearmoe
