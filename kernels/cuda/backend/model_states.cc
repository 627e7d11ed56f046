// Layers with a state in attention's place: what their description allows and which weights it demands.
#include "model.h"

namespace nearmoe::gpu {

bool Model::any_state() const {
  return largest([](const NmGpuLayer& layer) { return layer.recurrent.kind; }) > 0;
}

NmGpuCode Model::check_recurrent(uint32_t layer) const {
  const NmGpuRecurrent& r = layers_[layer].recurrent;
  if (r.kind > NM_GPU_RECURRENT_SHORT_CONV) return bad_field(layer, "recurrent.kind", "a known kind", r.kind);
  if (layers_[layer].attention.num_heads != 0)
    return bad_field(layer, "num_heads", "0 beside a state", layers_[layer].attention.num_heads);
  if (r.conv_width == 0 || r.conv_width > cuda::kMaxConvWidth)
    return bad_field(layer, "conv_width", "in 1 .. 16", r.conv_width);
  if (r.kind == NM_GPU_RECURRENT_SHORT_CONV)
    return r.channels > 0 ? NM_GPU_OK : bad_field(layer, "channels", "above 0", 0);
  if (r.num_key_heads == 0 || r.num_value_heads == 0 || r.num_value_heads % r.num_key_heads != 0)
    return bad_field(layer, "num_value_heads", "to be a multiple of num_key_heads", r.num_value_heads);
  if (r.key_dim == 0 || r.key_dim > cuda::kMaxDeltaKeyDim)
    return bad_field(layer, "key_dim", "in 1 .. 256", r.key_dim);
  return r.value_dim > 0 ? NM_GPU_OK : bad_field(layer, "value_dim", "above 0", 0);
}

bool Model::state_shape_of(Role role, const RecurrentSpec& spec, uint32_t* rows) {
  const bool delta = spec.kind == RecurrentKind::GatedDelta;
  switch (role) {
    case Role::OutputGate:
      *rows = spec.out_size();
      return true;
    case Role::ConvGate:
    case Role::ConvInput:
      *rows = spec.channels;
      return !delta;
    case Role::Query:
    case Role::Key:
      *rows = spec.keys_size();
      return delta;
    case Role::Value:
      *rows = spec.values_size();
      return delta;
    case Role::DeltaBeta:
    case Role::DeltaDecay:
      *rows = spec.num_value_heads;
      return delta;
    default:
      return false;
  }
}

uint32_t Model::state_vector_size(Role role, const RecurrentSpec& spec) {
  const bool delta = spec.kind == RecurrentKind::GatedDelta;
  switch (role) {
    case Role::ConvKernel:
      return spec.conv_width * spec.conv_channels();
    case Role::DeltaDecayRate:
    case Role::DeltaDecayBias:
      return delta ? spec.num_value_heads : 0;
    case Role::DeltaNorm:
      return delta ? spec.value_dim : 0;
    default:
      return 0;
  }
}

NmGpuCode Model::require_recurrent(uint32_t index) const {
  const bool delta = layers_[index].recurrent.kind == NM_GPU_RECURRENT_GATED_DELTA;
  GPU_TRY(require_all(index, true, {Role::Output, Role::OutputGate}, {Role::ConvKernel}));
  GPU_TRY(require_all(index, !delta, {Role::ConvGate, Role::ConvInput}, {}));
  return require_all(index, delta, {Role::Query, Role::Key, Role::Value, Role::DeltaBeta, Role::DeltaDecay},
                     {Role::DeltaDecayRate, Role::DeltaDecayBias, Role::DeltaNorm});
}

}  // namespace nearmoe::gpu
