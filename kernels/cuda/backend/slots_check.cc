// What a transfer must fit before anything of it is submitted: the model, the layer's formats, the slot.
#include <string>

#include "slots.h"

namespace nearmoe::gpu {

NmGpuCode Slots::check(const NmGpuExpert& expert, uint64_t* bytes) const {
  constexpr const char* kCall = "transfer";
  const auto bad = [&](NmGpuCode code, const std::string& text) {
    return failure_.fail(
        code, kCall,
        "layer " + std::to_string(expert.layer) + ", expert " + std::to_string(expert.expert) + ": " + text);
  };
  if (expert.layer >= model_.num_layers() || !model_.layer(expert.layer).ffn.is_moe ||
      expert.expert >= model_.layer(expert.layer).ffn.num_experts) {
    return bad(NM_GPU_INVALID_ARGUMENT, "no such expert in this model");
  }
  if (expert.num_slices == 0 || expert.num_slices > cuda::kMaxSlices) {
    return bad(NM_GPU_INVALID_ARGUMENT, "expected 1 to 64 slices, got " + std::to_string(expert.num_slices));
  }
  const uint32_t hidden = model_.spec().hidden_size;
  const NmGpuFfn& ffn = model_.layer(expert.layer).ffn;
  uint32_t hidden_cols = 0;
  uint64_t covered = 0;
  *bytes = 0;
  for (uint32_t s = 0; s < expert.num_slices; ++s) {
    const NmGpuExpertSlice& slice = expert.slices[s];
    const uint32_t rows = slice.gate.rows;
    const std::string which = "slice " + std::to_string(s);
    const bool shapes = rows > 0 && slice.gate.cols == hidden && slice.up.rows == rows &&
                        slice.up.cols == hidden && slice.down.rows == hidden && slice.down.cols == rows;
    if (!shapes)
      return bad(NM_GPU_INVALID_ARGUMENT, which + " does not fit hidden size " + std::to_string(hidden));
    for (const NmGpuMatrix* m : {&slice.gate, &slice.up, &slice.down}) {
      if (m->dtype >= kNumDTypes || !cuda::supports(static_cast<DType>(m->dtype)))
        return bad(NM_GPU_UNSUPPORTED, which + ": the GPU has no kernels for its format");
      size_t size = 0;
      make_view(static_cast<DType>(m->dtype), m->rows, m->cols, m->col_begin, &size);
      if (m->size_bytes != size || !m->data)
        return bad(NM_GPU_INVALID_ARGUMENT, which + ": expected " + std::to_string(size) +
                                                " packed bytes, got " + std::to_string(m->size_bytes));
      *bytes += size;
    }
    if (slice.gate.dtype != ffn.gate_dtype || slice.up.dtype != ffn.gate_dtype ||
        slice.down.dtype != ffn.down_dtype || slice.gate.col_begin != 0 || slice.up.col_begin != 0) {
      return bad(NM_GPU_UNSUPPORTED,
                 which + ": expected the formats of the layer's experts, gate and up alike");
    }
    hidden_cols += round_up_32(rows);
    covered += rows;
  }
  if (covered != model_.layer(expert.layer).ffn.intermediate_size) {
    return bad(NM_GPU_INVALID_ARGUMENT, "the slices cover " + std::to_string(covered) + " of " +
                                            std::to_string(model_.layer(expert.layer).ffn.intermediate_size) +
                                            " rows");
  }
  if (hidden_cols > ffn.hidden_cols) {
    return bad(NM_GPU_INVALID_ARGUMENT, "expected slices of at most " + std::to_string(ffn.hidden_cols) +
                                            " hidden columns, got " + std::to_string(hidden_cols));
  }
  if (!unified_ && *bytes > slot_bytes_)
    return bad(NM_GPU_INVALID_ARGUMENT,
               std::to_string(*bytes) + " bytes do not fit a slot of " + std::to_string(slot_bytes_));
  return NM_GPU_OK;
}

}  // namespace nearmoe::gpu
