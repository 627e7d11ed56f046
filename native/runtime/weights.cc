#include "weights.h"

#include <algorithm>
#include <cmath>
#include <string>

namespace nearmoe {

std::string describe(const LoadRow& row) {
  std::string text = role_name(row.role);
  if (row.layer >= 0) text += " of layer " + std::to_string(row.layer);
  if (row.expert >= 0) text += ", expert " + std::to_string(row.expert);
  return text;
}

WeightStore::WeightStore(const ModelSpec& spec, const Topology& topology, uint32_t slice_cols)
    : spec_(spec), topology_(topology), slice_cols_(slice_cols == 0 ? 1 : slice_cols) {
  weights_.layers.resize(spec.layers.size());
  for (size_t i = 0; i < spec.layers.size(); ++i)
    weights_.layers[i].experts.resize(spec.layers[i].ffn.num_experts);
}

Status WeightStore::reserve(const std::vector<int>& unit_nodes, size_t unit_bytes, size_t dense_bytes) {
  for (uint32_t unit = 0; unit < topology_.units; ++unit) {
    auto arena = std::make_unique<Arena>();
    if (!arena->reserve(unit_bytes, unit < unit_nodes.size() ? unit_nodes[unit] : -1)) {
      return Status::error(Code::OutOfMemory, "cannot reserve the arena of unit " + std::to_string(unit));
    }
    unit_arenas_.push_back(std::move(arena));
  }
  if (topology_.gpu_lane) {
    dense_arena_ = std::make_unique<Arena>();
    if (!dense_arena_->reserve(dense_bytes, -1)) {
      return Status::error(Code::OutOfMemory, "cannot reserve the GPU lane's memory");
    }
  }
  return {};
}

Status WeightStore::replace_arenas(std::vector<std::unique_ptr<Arena>> arenas) {
  const size_t expected = unit_arenas_.size() + (dense_arena_ ? 1 : 0);
  if (arenas.size() != expected || dense_bytes_ + expert_bytes_ > 0)
    return Status::error(Code::InvalidArgument, "arenas that do not fit the store");
  if (dense_arena_) {
    dense_arena_ = std::move(arenas.back());
    arenas.pop_back();
  }
  unit_arenas_ = std::move(arenas);
  filled_ = true;
  return {};
}

std::vector<const Arena*> WeightStore::arenas() const {
  std::vector<const Arena*> all;
  for (const auto& arena : unit_arenas_) all.push_back(arena.get());
  if (dense_arena_) all.push_back(dense_arena_.get());
  return all;
}

std::vector<Range> WeightStore::intermediate_ranges(uint32_t size, uint32_t parts) const {
  const uint32_t preferred = slice_cols_ > kRowGroup ? slice_cols_ : kRowGroup;
  return split_evenly(size, parts, preferred, slice_cols_);
}

std::vector<Range> WeightStore::latent_heads(uint32_t layer) const {
  return split(spec_.layers[layer].attention.num_heads, topology_.dense_ranks, 1);
}

bool WeightStore::heads_aligned(uint32_t layer) const {
  const RecurrentSpec& recurrent = spec_.layers[layer].recurrent;
  if (recurrent.present()) return recurrent_aligned(recurrent);
  const AttentionSpec& attention = spec_.layers[layer].attention;
  if (attention.is_latent) {
    for (const Range heads : latent_heads(layer)) {
      if (heads.begin * attention.latent.value_dim % slice_cols_ != 0) return false;
    }
    return true;
  }
  // Whole heads where the rank with most of them has at most a quarter more than the mean: two barriers less
  // are worth that.
  const uint32_t ranks = topology_.dense_ranks, heads = attention.num_kv_heads;
  const uint32_t most = (heads + ranks - 1) / ranks;
  return 4 * most * ranks <= 5 * heads && attention.heads_per_kv() * attention.head_dim % slice_cols_ == 0;
}

Range WeightStore::kv_heads(uint32_t layer, uint32_t rank) const {
  return split(spec_.layers[layer].attention.num_kv_heads, topology_.dense_ranks, 1)[rank];
}

/// Row ranges of a projection with `heads` heads: those of whole KV heads where ranks have such, else even
/// row groups.
std::vector<Range> WeightStore::head_rows(uint32_t layer, uint32_t heads) const {
  const uint32_t head_dim = spec_.layers[layer].attention.head_dim;
  if (heads_aligned(layer)) {
    const uint32_t kv_heads = spec_.layers[layer].attention.num_kv_heads;
    return split(heads * head_dim, topology_.dense_ranks, heads / kv_heads * head_dim);
  }
  return split_evenly(heads * head_dim, topology_.dense_ranks, kRowGroup, 1);
}

Status WeightStore::check_shape(const LoadRow& row, int64_t table_row, uint32_t rows, uint32_t cols) const {
  if (row.rows == rows && row.cols == cols) return {};
  return Status::error(Code::InvalidArgument,
                       describe(row) + ": expected [" + std::to_string(rows) + ", " + std::to_string(cols) +
                           "], got [" + std::to_string(row.rows) + ", " + std::to_string(row.cols) + "]",
                       table_row);
}

Status WeightStore::add_vector(const LoadRow& row, const SourceRows& src, int64_t table_row,
                               std::vector<float>& out, size_t size) {
  if (static_cast<size_t>(row.rows) * row.cols != size) {
    return Status::error(Code::InvalidArgument,
                         describe(row) + ": expected " + std::to_string(size) + " values, got " +
                             std::to_string(static_cast<size_t>(row.rows) * row.cols),
                         table_row);
  }
  out.resize(size);
  for (uint32_t i = 0; i < row.rows; ++i) src.read(i, 0, row.cols, out.data() + size_t{i} * row.cols);
  for (float& value : out) {
    if (row.transform == Transform::PlusOne) value += 1;
    if (row.transform == Transform::NegativeExp) value = -std::exp(value);
    if (!std::isfinite(value))
      return Status::error(Code::WeightValue, describe(row) + " holds NaN or infinity", table_row);
  }
  dense_bytes_ += size * sizeof(float);
  return {};
}

Status WeightStore::add_matrix(const LoadRow& row, const SourceRows& src, int64_t table_row,
                               const SliceRequest& request, std::vector<std::vector<PackTask>>& tasks) {
  if (row.transform != Transform::None)
    return Status::error(Code::InvalidArgument, describe(row) + ": no transform for matrices", table_row);
  if (request.target->present()) {
    return Status::error(Code::InvalidArgument, describe(row) + " was given twice", table_row);
  }
  SlicedMatrix sliced;
  sliced.ranges = request.ranges;
  for (uint32_t i = 0; i < request.ranges.size(); ++i) {
    const Range range = request.ranges[i];
    const uint32_t rows = request.by_columns ? row.rows : range.size();
    const uint32_t cols = request.by_columns ? range.size() : row.cols;
    if (range.size() == 0) {
      sliced.slices.push_back({nullptr, 0, 0, row.held(), 0});
      continue;
    }
    const bool dense_of_gpu = !request.expert && topology_.gpu_lane;
    const uint32_t rank = (request.first_rank + i) % topology_.unit_ranks();
    Arena& arena = dense_of_gpu ? *dense_arena_ : *unit_arenas_[rank / topology_.threads_per_unit];
    const uint32_t col_begin = request.by_columns ? range.begin : 0;
    const size_t bytes = packed_bytes(row.held(), rows, cols, col_begin);
    std::byte* dst = arena.allocate(bytes);
    if (dst == nullptr)
      return Status::error(Code::OutOfMemory, describe(row) + " does not fit its arena", table_row);
    (request.expert ? expert_bytes_ : dense_bytes_) += bytes;
    const SourceRows from = request.by_columns || row.transposed ? src : src.from(range.begin);
    const uint32_t row_begin = request.by_columns ? 0 : range.begin;
    if (row.transposed && row_begin % traits(row.dtype).block_cols != 0)
      return Status::error(Code::InvalidArgument, describe(row) + " is cut inside a block", table_row);
    if (!filled_) {
      tasks[rank].push_back(
          {from, row.held(), rows, col_begin, cols, dst, table_row, row.transposed, row_begin, row.cols});
    }
    sliced.slices.push_back({dst, rows, cols, row.held(), col_begin});
  }
  *request.target = std::move(sliced);
  return {};
}

Status WeightStore::add(const LoadRow& row, const MappedFile& file, const MappedFile* scales,
                        int64_t table_row, std::vector<std::vector<PackTask>>& tasks) {
  const FormatTraits& format = traits(row.dtype);
  if (row.rows == 0 || row.cols == 0 || row.source_cols() % format.block_cols != 0) {
    return Status::error(Code::InvalidArgument, describe(row) + ": shape does not fit " + format.name,
                         table_row);
  }
  if (row.quantised.has_value() &&
      (!can_quantize(*row.quantised) || row.cols % traits(*row.quantised).slice_cols != 0)) {
    return Status::error(Code::InvalidArgument,
                         describe(row) + " cannot be quantised to " + traits(*row.quantised).name, table_row);
  }
  const bool part_of_row = row.source_width > 0;
  if (part_of_row && (!row.transposed || row.encoding != Encoding::Plain || format.block_cols > 1 ||
                      row.source_width < row.source_cols())) {
    return Status::error(Code::InvalidArgument, describe(row) + ": only columns of floats can be a part",
                         table_row);
  }
  const size_t bytes = row.stored_bytes();
  if (row.offset > file.size() || bytes > file.size() - row.offset) {
    return Status::error(Code::InvalidArgument, describe(row) + " lies beyond the end of its file",
                         table_row);
  }
  SourceRows src{row.encoding,    row.dtype,     file.data() + row.offset, nullptr,
                 row.row_pitch(), row.first_row, row.row_stride,           row.row_block};
  if (row.encoding != Encoding::Plain) {
    const size_t needed = scale_bytes(row.encoding, row.tensor_rows, row.source_cols());
    const bool rows_fit = row.first_row + row.source_rows() <= row.tensor_rows;
    if (scales == nullptr || !rows_fit || row.scales_offset > scales->size() ||
        needed > scales->size() - row.scales_offset) {
      return Status::error(Code::InvalidArgument,
                           describe(row) + ": its scales lie beyond the end of their file", table_row);
    }
    src.scales = scales->data() + row.scales_offset;
  }
  const uint32_t hidden = spec_.hidden_size;
  const uint32_t vocab = spec_.vocab_size;
  const uint32_t ranks = topology_.dense_ranks;
  switch (row.role) {
    case Role::Embedding:
    case Role::LmHead: {
      SlicedMatrix* target = row.role == Role::Embedding ? &weights_.embedding : &weights_.lm_head;
      if (Status s = check_shape(row, table_row, vocab, hidden); !s.ok()) return s;
      return add_matrix(row, src, table_row,
                        {target, split_evenly(vocab, ranks, kRowGroup, 1), false, false, 0}, tasks);
    }
    case Role::FinalNorm:
      return add_vector(row, src, table_row, weights_.final_norm, hidden);
    case Role::FinalNormBias:
      return add_vector(row, src, table_row, weights_.final_norm_bias, hidden);
    case Role::LmHeadBias:
      return add_vector(row, src, table_row, weights_.lm_head_bias, vocab);
    default:
      break;
  }
  if (row.layer < 0 || static_cast<size_t>(row.layer) >= weights_.layers.size()) {
    return Status::error(Code::InvalidArgument, describe(row) + ": no such layer", table_row);
  }
  return add_layer_weight(row, src, table_row, tasks);
}

Status WeightStore::add_layer_weight(const LoadRow& row, const SourceRows& src, int64_t table_row,
                                     std::vector<std::vector<PackTask>>& tasks) {
  LayerWeights& layer = weights_.layers[static_cast<size_t>(row.layer)];
  const AttentionSpec& attention = spec_.layers[static_cast<size_t>(row.layer)].attention;
  const uint32_t hidden = spec_.hidden_size;
  const uint32_t num_experts = spec_.layers[static_cast<size_t>(row.layer)].ffn.num_experts;
  const bool full = attention.qk_norm == QkNorm::Full;
  switch (row.role) {
    case Role::AttentionNorm:
      return add_vector(row, src, table_row, layer.attention_norm, hidden);
    case Role::AttentionNormBias:
      return add_vector(row, src, table_row, layer.attention_norm_bias, hidden);
    case Role::FfnNorm:
      return add_vector(row, src, table_row, layer.ffn_norm, hidden);
    case Role::FfnNormBias:
      return add_vector(row, src, table_row, layer.ffn_norm_bias, hidden);
    case Role::QueryBias:
      return add_vector(row, src, table_row, layer.query_bias, attention.q_size());
    case Role::KeyBias:
      return add_vector(row, src, table_row, layer.key_bias, attention.kv_size());
    case Role::ValueBias:
      return add_vector(row, src, table_row, layer.value_bias, attention.kv_size());
    case Role::QueryNorm:
      return add_vector(row, src, table_row, layer.query_norm,
                        attention.is_latent ? attention.latent.query_rank
                        : full              ? attention.q_size()
                                            : attention.head_dim);
    case Role::KeyNorm:
      return add_vector(row, src, table_row, layer.key_norm,
                        attention.is_latent ? attention.latent.key_value_rank
                        : full              ? attention.kv_size()
                                            : attention.head_dim);
    case Role::OutputBias:
      return add_vector(row, src, table_row, layer.output_bias, hidden);
    case Role::SharedExpertGate:
      return add_vector(row, src, table_row, layer.shared_expert_gate, hidden);
    case Role::AttentionSinks:
      return add_vector(row, src, table_row, layer.attention_sinks, attention.num_heads);
    case Role::ExpertGateBias:
    case Role::ExpertUpBias:
    case Role::ExpertDownBias:
      return add_expert_bias(row, src, table_row);
    case Role::RouterBias:
      return add_vector(row, src, table_row, layer.router_bias, num_experts);
    case Role::RouterSelectionBias:
      return add_vector(row, src, table_row, layer.router_selection_bias, num_experts);
    case Role::AttentionPostNorm:
      return add_vector(row, src, table_row, layer.attention_post_norm, hidden);
    case Role::FfnPostNorm:
      return add_vector(row, src, table_row, layer.ffn_post_norm, hidden);
    case Role::SharedPostNorm:
      return add_vector(row, src, table_row, layer.shared_post_norm, hidden);
    case Role::ExpertNorm:
      return add_vector(row, src, table_row, layer.expert_norm, hidden);
    case Role::ExpertPostNorm:
      return add_vector(row, src, table_row, layer.expert_post_norm, hidden);
    case Role::RouterNorm:
      return add_vector(row, src, table_row, layer.router_norm, hidden);
    case Role::RouterExpertScale:
      return add_vector(row, src, table_row, layer.router_expert_scale, num_experts);
    case Role::LayerScale:
      return add_vector(row, src, table_row, layer.layer_scale, 1);
    case Role::Query:
    case Role::Key:
    case Role::Value:
    case Role::Output:
    case Role::QueryDown:
    case Role::LatentDown:
    case Role::KeyUp:
    case Role::ValueUp:
    case Role::OutputGate:
    case Role::ConvKernel:
    case Role::ConvGate:
    case Role::ConvInput:
    case Role::DeltaBeta:
    case Role::DeltaDecay:
    case Role::DeltaDecayRate:
    case Role::DeltaDecayBias:
    case Role::DeltaNorm:
      if (spec_.layers[static_cast<size_t>(row.layer)].recurrent.present())
        return add_recurrent_weight(row, src, table_row, tasks);
      if (attention.is_latent) return add_latent_weight(row, src, table_row, tasks);
      return add_attention_weight(row, src, table_row, tasks);
    default:
      return add_ffn_weight(row, src, table_row, tasks);
  }
}

Status WeightStore::add_attention_weight(const LoadRow& row, const SourceRows& src, int64_t table_row,
                                         std::vector<std::vector<PackTask>>& tasks) {
  const auto index = static_cast<uint32_t>(row.layer);
  LayerWeights& layer = weights_.layers[index];
  const AttentionSpec& attention = spec_.layers[index].attention;
  const uint32_t hidden = spec_.hidden_size;
  if (row.role == Role::Output) {
    if (Status s = check_shape(row, table_row, hidden, attention.q_size()); !s.ok()) return s;
    const std::vector<Range> ranges = heads_aligned(index)
                                          ? head_rows(index, attention.num_heads)
                                          : intermediate_ranges(attention.q_size(), topology_.dense_ranks);
    return add_matrix(row, src, table_row, {&layer.output, ranges, true, false, 0}, tasks);
  }
  const bool of_queries = row.role == Role::Query || row.role == Role::OutputGate;
  const uint32_t heads = of_queries ? attention.num_heads : attention.num_kv_heads;
  SlicedMatrix* target = row.role == Role::Query        ? &layer.query
                         : row.role == Role::OutputGate ? &layer.output_gate
                         : row.role == Role::Key        ? &layer.key
                         : row.role == Role::Value      ? &layer.value
                                                        : nullptr;
  if (target == nullptr)
    return Status::error(Code::InvalidArgument, describe(row) + " in a layer of attention", table_row);
  if (Status s = check_shape(row, table_row, heads * attention.head_dim, hidden); !s.ok()) return s;
  return add_matrix(row, src, table_row, {target, head_rows(index, heads), false, false, 0}, tasks);
}

Status WeightStore::add_latent_weight(const LoadRow& row, const SourceRows& src, int64_t table_row,
                                      std::vector<std::vector<PackTask>>& tasks) {
  const auto index = static_cast<uint32_t>(row.layer);
  LayerWeights& layer = weights_.layers[index];
  const AttentionSpec& attention = spec_.layers[index].attention;
  const LatentSpec& latent = attention.latent;
  const uint32_t hidden = spec_.hidden_size, ranks = topology_.dense_ranks;
  std::vector<Range> heads = latent_heads(index);
  const auto scaled = [&](uint32_t width) {
    std::vector<Range> ranges = heads;
    for (Range& range : ranges) range = {range.begin * width, range.end * width};
    return ranges;
  };
  if (row.role == Role::Query) {
    const uint32_t cols = latent.query_rank > 0 ? latent.query_rank : hidden;
    if (Status s = check_shape(row, table_row, attention.q_size(), cols); !s.ok()) return s;
    return add_matrix(row, src, table_row, {&layer.query, scaled(attention.head_dim), false, false, 0},
                      tasks);
  }
  if (row.role == Role::Output) {
    if (Status s = check_shape(row, table_row, hidden, attention.out_size()); !s.ok()) return s;
    const std::vector<Range> ranges =
        heads_aligned(index) ? scaled(latent.value_dim) : intermediate_ranges(attention.out_size(), ranks);
    return add_matrix(row, src, table_row, {&layer.output, ranges, true, false, 0}, tasks);
  }
  if (row.role == Role::QueryDown || row.role == Role::LatentDown) {
    const bool is_query = row.role == Role::QueryDown;
    const uint32_t rows = is_query ? latent.query_rank : latent.row_size();
    if (Status s = check_shape(row, table_row, rows, hidden); !s.ok()) return s;
    return add_matrix(row, src, table_row,
                      {is_query ? &layer.query_down : &layer.latent_down,
                       split_evenly(rows, ranks, kRowGroup, 1), false, false, 0},
                      tasks);
  }
  if (row.expert < 0 || static_cast<uint32_t>(row.expert) >= attention.num_heads)
    return Status::error(Code::InvalidArgument, describe(row) + ": no such head", table_row);
  const auto head = static_cast<uint32_t>(row.expert);
  const bool is_key = row.role == Role::KeyUp;
  const uint32_t rows = is_key ? latent.key_value_rank : latent.value_dim;
  const uint32_t cols = is_key ? latent.nope_dim : latent.key_value_rank;
  if (Status s = check_shape(row, table_row, rows, cols); !s.ok()) return s;
  uint32_t owner = 0;
  while (head >= heads[owner].end) ++owner;
  SlicedMatrix whole;
  const Status status = add_matrix(row, src, table_row, {&whole, {{0, rows}}, false, false, owner}, tasks);
  if (!status.ok()) return status;
  std::vector<PackedMatrix>& matrices = is_key ? layer.key_up : layer.value_up;
  matrices.resize(attention.num_heads);
  matrices[head] = whole.slices[0];
  return {};
}

Status WeightStore::add_ffn_weight(const LoadRow& row, const SourceRows& src, int64_t table_row,
                                   std::vector<std::vector<PackTask>>& tasks) {
  LayerWeights& layer = weights_.layers[static_cast<size_t>(row.layer)];
  const FfnSpec& ffn = spec_.layers[static_cast<size_t>(row.layer)].ffn;
  const uint32_t hidden = spec_.hidden_size;
  if (row.role == Role::Router) {
    if (Status s = check_shape(row, table_row, ffn.num_experts, hidden); !s.ok()) return s;
    SlicedMatrix whole;
    const Status status =
        add_matrix(row, src, table_row, {&whole, {{0, ffn.num_experts}}, false, false, 0}, tasks);
    if (status.ok()) layer.router = whole.slices[0];
    return status;
  }
  const bool is_expert =
      row.role == Role::ExpertGate || row.role == Role::ExpertUp || row.role == Role::ExpertDown;
  const bool is_down = row.role == Role::ExpertDown || row.role == Role::SharedDown || row.role == Role::Down;
  const bool is_gate = row.role == Role::ExpertGate || row.role == Role::SharedGate || row.role == Role::Gate;
  if (is_expert && (row.expert < 0 || static_cast<uint32_t>(row.expert) >= ffn.num_experts)) {
    return Status::error(Code::InvalidArgument, describe(row) + ": no such expert", table_row);
  }
  GatedFfn& block = is_expert ? layer.experts[static_cast<size_t>(row.expert)] : layer.dense;
  const uint32_t size = is_expert ? ffn.intermediate_size : ffn.dense_intermediate_size();
  if (Status s = check_shape(row, table_row, is_down ? hidden : size, is_down ? size : hidden); !s.ok())
    return s;
  const uint32_t group = is_expert ? topology_.group_of(static_cast<uint32_t>(row.expert)) : 0;
  const uint32_t parts = is_expert ? topology_.group_ranks(group) : topology_.dense_ranks;
  SlicedMatrix* target = is_down ? &block.down : is_gate ? &block.gate : &block.up;
  const uint32_t first = is_expert ? topology_.group_first_rank(group) : 0;
  return add_matrix(row, src, table_row,
                    {target, intermediate_ranges(size, parts), is_down, is_expert, first}, tasks);
}

Status WeightStore::add_expert_bias(const LoadRow& row, const SourceRows& src, int64_t table_row) {
  const auto layer = static_cast<size_t>(row.layer);
  std::vector<GatedFfn>& experts = weights_.layers[layer].experts;
  if (row.expert < 0 || static_cast<size_t>(row.expert) >= experts.size())
    return Status::error(Code::InvalidArgument, describe(row) + ": no such expert", table_row);
  GatedFfn& expert = experts[static_cast<size_t>(row.expert)];
  const uint32_t width = spec_.layers[layer].ffn.intermediate_size;
  if (row.role == Role::ExpertDownBias)
    return add_vector(row, src, table_row, expert.down_bias, spec_.hidden_size);
  return add_vector(row, src, table_row, row.role == Role::ExpertGateBias ? expert.gate_bias : expert.up_bias,
                    width);
}

size_t WeightStore::slab_bytes() const {
  size_t largest = 0;
  for (const LayerWeights& layer : weights_.layers) {
    for (const GatedFfn& expert : layer.experts) {
      size_t bytes = 0;
      for (const SlicedMatrix* m : {&expert.gate, &expert.up, &expert.down}) {
        for (const PackedMatrix& s : m->slices) bytes += slice_bytes(s);
      }
      largest = largest > bytes ? largest : bytes;
    }
  }
  return largest;
}

}  // namespace nearmoe
