// Weights of layers with a state in attention's place: how they are cut over the dense ranks. See weights.h.
#include <algorithm>

#include "weights.h"

namespace nearmoe {

bool WeightStore::recurrent_aligned(const RecurrentSpec& spec) const {
  // Every channel of a short convolution stands for itself.
  if (spec.kind == RecurrentKind::ShortConv) return true;
  const uint32_t ranks = topology_.dense_ranks;
  return !spec.tiled && spec.num_key_heads % ranks == 0 && spec.values_size() / ranks % slice_cols_ == 0;
}

std::vector<Range> WeightStore::value_heads(uint32_t layer) const {
  const uint32_t heads = spec_.layers[layer].recurrent.num_value_heads, ranks = topology_.dense_ranks;
  return split(heads, ranks, heads_aligned(layer) ? heads / ranks : 1);
}

Status WeightStore::add_delta_matrix(const LoadRow& row, const SourceRows& src, int64_t table_row,
                                     std::vector<std::vector<PackTask>>& tasks) {
  const auto index = static_cast<uint32_t>(row.layer);
  LayerWeights& layer = weights_.layers[index];
  const RecurrentSpec& spec = spec_.layers[index].recurrent;
  const uint32_t ranks = topology_.dense_ranks, hidden = spec_.hidden_size;
  const bool aligned = heads_aligned(index);
  if (row.role == Role::Output) {
    const uint32_t cols = spec.values_size();
    if (Status s = check_shape(row, table_row, hidden, cols); !s.ok()) return s;
    const std::vector<Range> ranges =
        aligned ? split(cols, ranks, cols / ranks) : intermediate_ranges(cols, ranks);
    return add_matrix(row, src, table_row, {&layer.output, ranges, true, false, 0}, tasks);
  }
  const bool of_keys = row.role == Role::Query || row.role == Role::Key;
  const bool of_heads = row.role == Role::DeltaBeta || row.role == Role::DeltaDecay;
  SlicedMatrix* target = row.role == Role::Query        ? &layer.query
                         : row.role == Role::Key        ? &layer.key
                         : row.role == Role::Value      ? &layer.value
                         : row.role == Role::OutputGate ? &layer.output_gate
                         : row.role == Role::DeltaBeta  ? &layer.delta_beta
                         : row.role == Role::DeltaDecay ? &layer.delta_decay
                                                        : nullptr;
  if (target == nullptr)
    return Status::error(Code::InvalidArgument, describe(row) + " in a gated delta net", table_row);
  const uint32_t rows = of_keys ? spec.keys_size() : of_heads ? spec.num_value_heads : spec.values_size();
  if (Status s = check_shape(row, table_row, rows, hidden); !s.ok()) return s;
  const std::vector<Range> ranges =
      aligned ? split(rows, ranks, rows / ranks) : split_evenly(rows, ranks, kRowGroup, 1);
  return add_matrix(row, src, table_row, {target, ranges, false, false, 0}, tasks);
}

Status WeightStore::add_recurrent_weight(const LoadRow& row, const SourceRows& src, int64_t table_row,
                                         std::vector<std::vector<PackTask>>& tasks) {
  const auto index = static_cast<uint32_t>(row.layer);
  LayerWeights& layer = weights_.layers[index];
  const RecurrentSpec& spec = spec_.layers[index].recurrent;
  switch (row.role) {
    case Role::ConvKernel: {
      // Stored channel by channel; the convolution walks over channels.
      const uint32_t channels = spec.conv_channels(), width = spec.conv_width;
      if (Status s = check_shape(row, table_row, channels, width); !s.ok()) return s;
      std::vector<float> stored;
      if (Status s = add_vector(row, src, table_row, stored, size_t{channels} * width); !s.ok()) return s;
      layer.conv_kernel.resize(stored.size());
      for (uint32_t c = 0; c < channels; ++c) {
        for (uint32_t j = 0; j < width; ++j)
          layer.conv_kernel[size_t{j} * channels + c] = stored[size_t{c} * width + j];
      }
      return {};
    }
    case Role::DeltaDecayRate:
      return add_vector(row, src, table_row, layer.decay_rate, spec.num_value_heads);
    case Role::DeltaDecayBias:
      return add_vector(row, src, table_row, layer.decay_bias, spec.num_value_heads);
    case Role::DeltaNorm:
      return add_vector(row, src, table_row, layer.delta_norm, spec.value_dim);
    default:
      break;
  }
  if (spec.kind == RecurrentKind::GatedDelta) return add_delta_matrix(row, src, table_row, tasks);
  const uint32_t hidden = spec_.hidden_size;
  const std::vector<Range> ranges = intermediate_ranges(spec.channels, topology_.dense_ranks);
  const bool is_output = row.role == Role::Output;
  SlicedMatrix* target = is_output                      ? &layer.output
                         : row.role == Role::ConvGate   ? &layer.conv_gate
                         : row.role == Role::ConvInput  ? &layer.conv_input
                         : row.role == Role::OutputGate ? &layer.output_gate
                                                        : nullptr;
  if (target == nullptr)
    return Status::error(Code::InvalidArgument, describe(row) + " in a short convolution", table_row);
  if (Status s =
          check_shape(row, table_row, is_output ? hidden : spec.channels, is_output ? spec.channels : hidden);
      !s.ok())
    return s;
  return add_matrix(row, src, table_row, {target, ranges, is_output, false, 0}, tasks);
}

Status WeightStore::complete_recurrent(uint32_t index) const {
  const LayerWeights& layer = weights_.layers[index];
  const auto missing = [&](const char* what) {
    return Status::error(Code::WeightMissing,
                         std::string(what) + " of layer " + std::to_string(index) + " is missing");
  };
  if (!layer.output.present() || !layer.output_gate.present()) return missing("output or outputGate");
  if (layer.conv_kernel.empty()) return missing("convKernel");
  if (spec_.layers[index].recurrent.kind == RecurrentKind::ShortConv)
    return layer.conv_gate.present() && layer.conv_input.present() ? Status{}
                                                                   : missing("convGate or convInput");
  if (!layer.query.present() || !layer.key.present() || !layer.value.present() ||
      !layer.delta_beta.present() || !layer.delta_decay.present())
    return missing("a matrix of the delta net");
  return layer.decay_rate.empty() || layer.decay_bias.empty() || layer.delta_norm.empty()
             ? missing("deltaDecayRate, deltaDecayBias or deltaNorm")
             : Status{};
}

}  // namespace nearmoe
