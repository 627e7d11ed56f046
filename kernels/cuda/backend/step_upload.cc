#include "step_upload.h"

namespace nearmoe::gpu {

/// Room for `count` values; null while sizes are only added up.
template <class T>
T* StepUpload::place(size_t count, const T** device) {
  const size_t at = used_;
  used_ += (count * sizeof(T) + 15) / 16 * 16;
  if (used_ > capacity_) return nullptr;
  *device = reinterpret_cast<const T*>(device_ + at);
  return reinterpret_cast<T*>(host_ + at);
}

void StepUpload::place_tokens(const NmGpuStep& step, bool decode_all) {
  int32_t* ids = place(step.num_tokens, &token_ids);
  uint32_t* position = place(step.num_tokens, &positions);
  uint32_t* offset = place(step.num_tokens, &block_offsets);
  uint32_t* decode = place(step.num_tokens, &decode_tokens);
  uint32_t* rows = place(step.num_tokens, &logit_rows);
  num_decode_tokens = longest_decode = 0;
  single_tokens = step.num_sequences == step.num_tokens;
  uint32_t token = 0, first_block = 0, logit = 0;
  for (uint32_t s = 0; s < step.num_sequences; ++s) {
    const NmGpuSequence& sequence = step.sequences[s];
    for (uint32_t i = 0; i < sequence.count; ++i, ++token) {
      const uint32_t at = sequence.first_position + i;
      const bool decodes = decode_all || sequence.count == 1;
      if (decodes && at + 1 > longest_decode) longest_decode = at + 1;
      if (!rows) continue;
      ids[token] = step.token_ids[token];
      position[token] = at;
      offset[token] = first_block;
      if (decodes) decode[num_decode_tokens++] = token;
      if (i >= sequence.count - sequence.logit_rows) rows[logit++] = token;
    }
    first_block += sequence.num_blocks;
  }
}

void StepUpload::place_states(const NmGpuStep& step) {
  num_sequences = step.num_sequences;
  if (!model_.any_state()) return;
  cuda::StateSequence* states = place(step.num_sequences, &sequences);
  uint32_t* indices = place(step.num_tokens, &sequence_of);
  if (!states || !indices) return;
  uint32_t token = 0;
  for (uint32_t s = 0; s < step.num_sequences; ++s) {
    const NmGpuSequence& sequence = step.sequences[s];
    const bool reads = sequence.first_position > 0;
    states[s] = {token, sequence.count, reads ? static_cast<int32_t>(sequence.state_source) : -1,
                 sequence.state_target};
    for (uint32_t i = 0; i < sequence.count; ++i) indices[token++] = s;
  }
}

const PrefillTiles& StepUpload::prefill_tiles(uint32_t layer) const {
  const uint32_t size = Model::prefill_tile_tokens(model_.layer(layer).attention);
  for (const PrefillTiles& tiles : prefill_) {
    if (tiles.tile_tokens == size) return tiles;
  }
  return prefill_.front();
}

void StepUpload::place_tiles(const NmGpuStep& step, bool decode_all) {
  const uint32_t dense_size = cuda::expert_gemm_tile_tokens();
  num_dense_tiles = (step.num_tokens + dense_size - 1) / dense_size;
  cuda::ExpertTile* dense = place(num_dense_tiles, &dense_tiles);
  for (uint32_t i = 0; dense && i < num_dense_tiles; ++i) {
    const uint32_t first = i * dense_size, rest = step.num_tokens - first;
    dense[i] = {0, first, rest < dense_size ? rest : dense_size, first};
  }
  for (PrefillTiles& tiles : prefill_) {
    const auto for_each_tile = [&](auto take) {
      uint32_t first = 0;
      for (uint32_t s = 0; s < step.num_sequences; first += step.sequences[s++].count) {
        const uint32_t count = step.sequences[s].count;
        if (decode_all || count == 1) continue;
        for (uint32_t at = 0; at < count; at += tiles.tile_tokens)
          take(first + at, count - at < tiles.tile_tokens ? count - at : tiles.tile_tokens);
      }
    };
    tiles.count = 0;
    for_each_tile([&](uint32_t, uint32_t) { ++tiles.count; });
    cuda::PrefillTile* out = place(tiles.count, &tiles.tiles);
    if (out) for_each_tile([&](uint32_t first, uint32_t count) { *out++ = {first, count}; });
  }
}

void StepUpload::place_rotary(const NmGpuStep& step) {
  for (uint32_t r = 0; r < rotary.size(); ++r) {
    const size_t n = size_t{step.num_tokens} * (model_.rope(r).rotary_dim / 2);
    float2* out = place(n, &rotary[r]);
    for (size_t i = 0; out && i < n; ++i) out[i] = {step.cos[r][i], step.sin[r][i]};
  }
}

void StepUpload::place_blocks(const NmGpuStep& step) {
  size_t total = 0;
  for (uint32_t s = 0; s < step.num_sequences; ++s) total += step.sequences[s].num_blocks;
  uint32_t* out = place(total, &block_table);
  for (uint32_t s = 0; out && s < step.num_sequences; ++s) {
    const NmGpuSequence& sequence = step.sequences[s];
    for (uint32_t b = 0; b < sequence.num_blocks; ++b) *out++ = sequence.blocks[b];
  }
}

/// Block tables last: they grow with the context, and what lies before them must not move while steps are
/// alike.
void StepUpload::lay_out(const NmGpuStep& step, bool decode_all) {
  used_ = 0;
  place_tokens(step, decode_all);
  place_states(step);
  place_tiles(step, decode_all);
  place_rotary(step);
  place_blocks(step);
}

NmGpuCode StepUpload::grow() {
  memory_.release(host_);
  memory_.release(device_);
  host_ = device_ = nullptr;
  capacity_ = 0;
  const size_t wanted = used_ + used_ / 2 + 4096;
  GPU_TRY(memory_.allocate(Purpose::Activations, wanted, "step", &device_));
  GPU_TRY(memory_.allocate_pinned(wanted, "step", &host_));
  capacity_ = wanted;
  return NM_GPU_OK;
}

NmGpuCode StepUpload::upload(const NmGpuStep& step, bool decode_all, cudaStream_t stream, bool* moved) {
  if (prefill_.empty()) {
    for (uint32_t i = 0; i < model_.num_layers(); ++i) {
      if (model_.layer(i).attention.num_heads == 0) continue;
      const uint32_t size = Model::prefill_tile_tokens(model_.layer(i).attention);
      bool known = false;
      for (const PrefillTiles& tiles : prefill_) known = known || tiles.tile_tokens == size;
      if (!known) prefill_.push_back({size, 0, nullptr});
    }
    rotary.resize(model_.spec().num_ropes);
  }
  lay_out(step, decode_all);
  *moved = used_ > capacity_;
  if (*moved) {
    GPU_TRY(grow());
    lay_out(step, decode_all);
  }
  return failure_.check(cudaMemcpyAsync(device_, host_, used_, cudaMemcpyHostToDevice, stream),
                        "cudaMemcpyAsync");
}

}  // namespace nearmoe::gpu
