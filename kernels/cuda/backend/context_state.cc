// Layers with a state for each sequence in attention's place (the CPU's are
// native/runtime/forward_recurrent.cc). States lie in slots of device memory; which slot a sequence reads and
// which it writes comes with the step, in device memory, so launches of steps alike are alike. Slot layout:
// for each such layer the convolution's rows [width - 1][channels], then the value heads' matrices.
#include "context.h"

namespace nearmoe::gpu {
namespace {

/// Of a layer's convolution, whole sectors.
size_t conv_floats(const RecurrentSpec& spec) {
  return (size_t{spec.conv_width - 1} * spec.conv_channels() + 31) / 32 * 32;
}

}  // namespace

NmGpuCode Context::allocate_state_rows() {
  if (!model_.any_state()) return NM_GPU_OK;
  state_stride_ = model_.largest([](const NmGpuLayer& l) {
    const RecurrentSpec spec = Model::recurrent(l);
    return spec.present() ? round_up_32(spec.projected_size()) : 0;
  });
  const size_t rows = size_t{options_.max_step_tokens} * state_stride_;
  GPU_TRY(memory_.allocate(Purpose::Activations, rows, "activations", &state_rows_));
  return memory_.allocate(Purpose::Activations, rows, "activations", &convolved_);
}

NmGpuCode Context::allocate_states(uint32_t slots) {
  if (slots == 0 || states_ || !model_.any_state()) {
    return failure_.fail(NM_GPU_WRONG_ORDER, "allocate_states",
                         "states need slots, a model that has them, and to be asked for once");
  }
  size_t floats = 0;
  std::vector<size_t> offsets;
  for (uint32_t i = 0; i < model_.num_layers(); ++i) {
    const RecurrentSpec spec = Model::recurrent(model_.layer(i));
    offsets.push_back(floats);
    if (!spec.present()) continue;
    const size_t matrices = size_t{spec.values_size()} * spec.key_dim;
    floats += conv_floats(spec) + (matrices + 31) / 32 * 32;
  }
  GPU_TRY(memory_.allocate(Purpose::States, slots * floats, "states of sequences", &states_));
  state_offsets_ = std::move(offsets);
  slot_floats_ = floats;
  num_states_ = slots;
  return NM_GPU_OK;
}

/// What is wrong with the sequence's slots, or an empty text.
std::string Context::check_states(const NmGpuSequence& sequence) const {
  if (num_states_ == 0) return {};
  const bool reads = sequence.first_position > 0;
  if (sequence.state_target >= num_states_) return "no state slot " + std::to_string(sequence.state_target);
  if (reads && sequence.state_source >= num_states_)
    return "no state slot " + std::to_string(sequence.state_source);
  return reads && sequence.state_source == sequence.state_target ? "one state slot is read and written" : "";
}

cuda::StateStep Context::state_step(uint32_t layer, bool matrices) const {
  const size_t skipped = matrices ? conv_floats(Model::recurrent(model_.layer(layer))) : 0;
  return {upload_.sequences,
          upload_.num_sequences,
          upload_.sequence_of,
          {states_ + state_offsets_[layer] + skipped, slot_floats_}};
}

/// Norm and projections, side by side in a row of state_rows_ in the order of `roles`.
NmGpuCode Context::project_states(uint32_t layer, std::initializer_list<Role> roles) {
  const WeightSet& set = model_.weights(layer);
  // A delta rule's outputs are normalised, however small they are, which can make much of small errors.
  const bool exact = model_.layer(layer).recurrent.kind == NM_GPU_RECURRENT_GATED_DELTA;
  uint32_t forms = 0, column = 0;
  std::vector<Segment> segments;
  for (const Role role : roles) {
    const DType dtype = set.matrix(role).dtype;
    forms |= exact && dtype == DType::F32 ? kFloat : form_of(dtype, tokens_);
    segments.push_back({role, kNoBias, state_rows_ + column, state_stride_});
    column += set.matrix(role).view.rows;
  }
  GPU_TRY(run_norm(set.vector(Role::AttentionNorm), set.vector(Role::AttentionNormBias), nullptr, tokens_, x_,
                   forms));
  return matmul({&set, &x_, tokens_, 1.0F, false, exact}, segments);
}

NmGpuCode Context::short_conv(uint32_t layer) {
  const uint32_t channels = model_.layer(layer).recurrent.channels;
  GPU_TRY(project_states(layer, {Role::ConvInput, Role::ConvGate, Role::OutputGate}));
  cuda::CausalConvArgs args{};
  args.x = state_rows_;
  args.gate = state_rows_ + channels;
  args.output_gate = state_rows_ + 2 * channels;
  args.x_stride = state_stride_;
  args.kernel = model_.weights(layer).vector(Role::ConvKernel);
  args.y = attention_;
  args.y_stride = q_stride_;
  args.tokens = tokens_;
  args.channels = channels;
  args.width = model_.layer(layer).recurrent.conv_width;
  args.step = state_step(layer, false);
  return launched(cuda::causal_conv(args, stream_), "causal_conv");
}

NmGpuCode Context::delta_rule(uint32_t layer) {
  const WeightSet& set = model_.weights(layer);
  const RecurrentSpec spec = Model::recurrent(model_.layer(layer));
  const uint32_t keys = spec.keys_size(), convolved = spec.conv_channels();
  GPU_TRY(project_states(
      layer, {Role::Query, Role::Key, Role::Value, Role::OutputGate, Role::DeltaBeta, Role::DeltaDecay}));
  const float* gate = state_rows_ + convolved;
  const float* beta = gate + spec.values_size();
  cuda::CausalConvArgs conv{};
  conv.x = state_rows_;
  conv.x_stride = conv.y_stride = state_stride_;
  conv.kernel = set.vector(Role::ConvKernel);
  conv.y = convolved_;
  conv.tokens = tokens_;
  conv.channels = convolved;
  conv.width = spec.conv_width;
  conv.silu = true;
  conv.step = state_step(layer, false);
  GPU_TRY(launched(cuda::causal_conv(conv, stream_), "causal_conv"));
  cuda::GatedDeltaArgs args{};
  args.q = convolved_;
  args.k = convolved_ + keys;
  args.v = convolved_ + 2 * keys;
  args.stride = args.gate_stride = state_stride_;
  args.beta = beta;
  args.decay = beta + spec.num_value_heads;
  args.decay_rate = set.vector(Role::DeltaDecayRate);
  args.decay_bias = set.vector(Role::DeltaDecayBias);
  args.num_key_heads = spec.num_key_heads;
  args.num_value_heads = spec.num_value_heads;
  args.key_dim = spec.key_dim;
  args.value_dim = spec.value_dim;
  args.tiled = spec.tiled;
  args.out = attention_;
  args.out_stride = q_stride_;
  args.step = state_step(layer, true);
  GPU_TRY(launched(cuda::gated_delta(args, stream_), "gated_delta"));
  return launched(cuda::gated_norm({attention_, q_stride_, gate, state_stride_, set.vector(Role::DeltaNorm),
                                    tokens_, spec.num_value_heads, spec.value_dim, model_.spec().norm_eps},
                                   stream_),
                  "gated_norm");
}

NmGpuCode Context::state_layer(uint32_t layer) {
  return model_.layer(layer).recurrent.kind == NM_GPU_RECURRENT_SHORT_CONV ? short_conv(layer)
                                                                           : delta_rule(layer);
}

}  // namespace nearmoe::gpu
