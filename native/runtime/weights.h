// All weights of a model, packed and cut over ranks. Loading is a list of pack tasks, run by the units' own
// threads so that first touch puts each slice on its unit's memory. Used by the device; immutable once
// complete.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "arena.h"
#include "mapped_file.h"
#include "model_spec.h"
#include "pack_task.h"
#include "source_rows.h"
#include "split.h"
#include "status.h"

namespace nearmoe {

/// Bytes of a slice where it lies in an arena; 0 for an empty one.
inline size_t slice_bytes(const PackedMatrix& slice) {
  return slice.rows == 0 ? 0 : packed_bytes(slice.dtype, slice.rows, slice.cols, slice.col_begin);
}

/// A matrix cut over ranks: by rows (each rank computes its output rows) or by columns (each yields a partial
/// sum).
struct SlicedMatrix {
  std::vector<PackedMatrix> slices;  ///< one per rank; rows or cols 0 where a rank has none
  std::vector<Range> ranges;         ///< which rows (or columns) each slice holds
  bool present() const { return !slices.empty(); }
};

/// gate, up and down of a gated feed-forward block, cut at the same places of the intermediate dimension.
struct GatedFfn {
  SlicedMatrix gate, up, down;
  std::vector<float> gate_bias, up_bias, down_bias;  ///< whole; empty where the model has none
};

struct LayerWeights {
  std::vector<float> attention_norm, attention_norm_bias, ffn_norm, ffn_norm_bias;
  std::vector<float> query_bias, key_bias, value_bias, query_norm, key_norm, output_bias;
  SlicedMatrix query, key, value, output;
  // Latent attention; `query` projects from the compressed query where there is one, and query_norm and
  // key_norm are those of the compressed rows. A head's matrices lie with the rank that owns the head.
  SlicedMatrix query_down, latent_down;
  std::vector<PackedMatrix>
      key_up;  ///< per head [key_value_rank][nope_dim]: from a query part to the latents
  std::vector<PackedMatrix> value_up;  ///< per head [value_dim][key_value_rank]
  GatedFfn dense;                      ///< the dense block, or the shared expert
  std::vector<float> shared_expert_gate;
  PackedMatrix router;
  std::vector<float> router_bias, router_selection_bias, attention_sinks;
  std::vector<float> attention_post_norm, ffn_post_norm;  ///< on what the parts put out
  std::vector<float> shared_post_norm, expert_norm, expert_post_norm, router_norm;  ///< of branches
  std::vector<float> router_expert_scale;                                           ///< [experts]
  std::vector<float> layer_scale;                                                   ///< one value
  SlicedMatrix output_gate;  ///< of attention's heads, of a delta net's values, of a convolution's output
  SlicedMatrix conv_gate, conv_input;    ///< ShortConv
  std::vector<float> conv_kernel;        ///< [width][channels]
  SlicedMatrix delta_beta, delta_decay;  ///< [value heads][H]
  std::vector<float> decay_rate;         ///< per value head, negative
  std::vector<float> decay_bias;         ///< per value head
  std::vector<float> delta_norm;         ///< [value_dim]
  std::vector<GatedFfn> experts;         ///< slices over the ranks of the expert's NDP group
};

struct ModelWeights {
  SlicedMatrix embedding, lm_head;  ///< lm_head is empty where embeddings are tied
  std::vector<float> final_norm, final_norm_bias, lm_head_bias;
  std::vector<LayerWeights> layers;
};

/// How ranks are grouped: which own dense weights, which own expert slices.
struct Topology {
  uint32_t units = 1;
  uint32_t threads_per_unit = 1;
  uint32_t tp_degree = 1;
  uint32_t dense_ranks = 1;
  bool gpu_lane = false;

  uint32_t unit_ranks() const { return units * threads_per_unit; }
  uint32_t groups() const { return (units + tp_degree - 1) / tp_degree; }
  uint32_t group_of(uint32_t expert) const { return expert % groups(); }
  uint32_t group_first_rank(uint32_t group) const { return group * tp_degree * threads_per_unit; }
  uint32_t group_ranks(uint32_t group) const {
    const uint32_t first = group * tp_degree;
    const uint32_t last = first + tp_degree < units ? first + tp_degree : units;
    return (last - first) * threads_per_unit;
  }
  uint32_t max_group_ranks() const { return group_ranks(0); }
};

/// What becomes of a vector's values while they are loaded. Order = number in the load table.
enum class Transform : uint8_t { None, PlusOne, NegativeExp };
inline constexpr uint32_t kNumTransforms = 3;

/// One row of the load table: where a weight lies in a file and what it is.
struct LoadRow {
  Role role;
  int32_t layer;
  int32_t expert;
  uint32_t file;
  uint64_t offset;
  DType dtype;
  uint32_t rows;
  uint32_t cols;
  uint32_t row_stride = 1;  ///< source rows from the beginning of one run of rows to the next
  Encoding encoding = Encoding::Plain;
  uint32_t first_row = 0;    ///< of the tensor; `offset` is that row's
  uint32_t tensor_rows = 0;  ///< of the whole tensor, where the encoding has scales
  uint32_t scales_file = 0;
  uint64_t scales_offset = 0;
  bool transposed = false;              ///< the source is [cols][rows]
  uint32_t source_width = 0;            ///< transposed: values of a whole source row, where some are others'
  std::optional<DType> quantised = {};  ///< what the matrix is quantised to while it is packed
  uint32_t row_block = 1;               ///< neighbouring source rows of a run
  Transform transform = Transform::None;

  DType held() const { return quantised.value_or(dtype); }
  uint32_t source_cols() const { return transposed ? rows : cols; }
  size_t source_rows() const {
    if (transposed) return cols;
    return size_t{rows - 1} / row_block * row_stride + (rows - 1) % row_block + 1;
  }
  /// Values from one source row to the next.
  uint32_t row_pitch() const { return source_width > 0 ? source_width : source_cols(); }
  /// Bytes from `offset` on that the row of the table covers, without scales.
  size_t stored_bytes() const {
    return (source_rows() - 1) * stored_row_bytes(encoding, dtype, row_pitch()) +
           stored_row_bytes(encoding, dtype, source_cols());
  }
};

/// A weight as messages name it.
std::string describe(const LoadRow& row);

class WeightStore {
 public:
  /// `slice_cols`: where column slices may be cut (the coarsest need of the checkpoint's formats; 1 for
  /// floats).
  WeightStore(const ModelSpec& spec, const Topology& topology, uint32_t slice_cols);

  /// Reserves address space: `unit_bytes` for each unit, `dense_bytes` for the dense arena of a GPU lane.
  Status reserve(const std::vector<int>& unit_nodes, size_t unit_bytes, size_t dense_bytes);

  /// Takes arenas that hold all packed weights already (one for each unit, then the dense one of a GPU lane):
  /// weights added from now on only learn their places. Before the first weight.
  Status replace_arenas(std::vector<std::unique_ptr<Arena>> arenas);
  /// The arenas in the order of replace_arenas.
  std::vector<const Arena*> arenas() const;
  /// Whether the arenas came filled.
  bool filled() const { return filled_; }
  /// Allocates slices for one table row and appends its pack tasks, per unit rank. Vectors are converted at
  /// once.
  Status add(const LoadRow& row, const MappedFile& file, const MappedFile* scales, int64_t table_row,
             std::vector<std::vector<PackTask>>& tasks);
  /// Ok when every weight the spec needs is there.
  Status complete();

  const ModelWeights& weights() const { return weights_; }
  const Topology& topology() const { return topology_; }
  /// True where q/k/v/output are cut at whole KV heads (of a delta net: key heads with their value heads), so
  /// that a rank's attention needs only its own rows.
  bool heads_aligned(uint32_t layer) const;
  /// Query heads of each dense rank (latent attention).
  std::vector<Range> latent_heads(uint32_t layer) const;
  /// Value heads of each dense rank (delta net).
  std::vector<Range> value_heads(uint32_t layer) const;
  /// KV heads [begin, end) of a dense rank.
  Range kv_heads(uint32_t layer, uint32_t rank) const;

  size_t dense_bytes() const { return dense_bytes_; }
  size_t expert_bytes() const { return expert_bytes_; }
  /// Bytes of the largest expert's slab.
  size_t slab_bytes() const;
  const Arena& unit_arena(uint32_t unit) const { return *unit_arenas_[unit]; }
  /// Frees the dense matrices of a GPU lane once they were copied elsewhere; their slices dangle then.
  void release_dense() { dense_arena_.reset(); }

 private:
  /// Where a matrix goes: how it is cut and who owns the slices.
  struct SliceRequest {
    SlicedMatrix* target;
    std::vector<Range> ranges;
    bool by_columns;
    bool expert;          ///< owned by unit ranks from first_rank on, else by dense ranks
    uint32_t first_rank;  ///< unit rank of slice 0
  };
  Status add_vector(const LoadRow& row, const SourceRows& src, int64_t table_row, std::vector<float>& out,
                    size_t size);
  Status add_matrix(const LoadRow& row, const SourceRows& src, int64_t table_row, const SliceRequest& request,
                    std::vector<std::vector<PackTask>>& tasks);
  Status check_shape(const LoadRow& row, int64_t table_row, uint32_t rows, uint32_t cols) const;
  Status add_expert_bias(const LoadRow& row, const SourceRows& src, int64_t table_row);
  Status add_layer_weight(const LoadRow& row, const SourceRows& src, int64_t table_row,
                          std::vector<std::vector<PackTask>>& tasks);
  Status add_attention_weight(const LoadRow& row, const SourceRows& src, int64_t table_row,
                              std::vector<std::vector<PackTask>>& tasks);
  Status add_latent_weight(const LoadRow& row, const SourceRows& src, int64_t table_row,
                           std::vector<std::vector<PackTask>>& tasks);
  Status add_recurrent_weight(const LoadRow& row, const SourceRows& src, int64_t table_row,
                              std::vector<std::vector<PackTask>>& tasks);
  Status add_delta_matrix(const LoadRow& row, const SourceRows& src, int64_t table_row,
                          std::vector<std::vector<PackTask>>& tasks);
  bool recurrent_aligned(const RecurrentSpec& spec) const;
  Status complete_attention(uint32_t layer) const;
  Status complete_recurrent(uint32_t layer) const;
  Status add_ffn_weight(const LoadRow& row, const SourceRows& src, int64_t table_row,
                        std::vector<std::vector<PackTask>>& tasks);
  std::vector<Range> intermediate_ranges(uint32_t size, uint32_t parts) const;
  std::vector<Range> head_rows(uint32_t layer, uint32_t heads) const;

  const ModelSpec& spec_;
  Topology topology_;
  uint32_t slice_cols_;
  ModelWeights weights_;
  std::vector<std::unique_ptr<Arena>> unit_arenas_;
  std::unique_ptr<Arena> dense_arena_;
  size_t dense_bytes_ = 0;
  size_t expert_bytes_ = 0;
  bool filled_ = false;
};

}  // namespace nearmoe
