// CUDA graphs for the parts of a decode step that are the same step after step: captured when they come the
// second time, replayed from then on. What differs between such steps (token ids, positions, block tables,
// routing, slot tables) lies in device or pinned memory that the kernels read. A driver that refuses a graph
// costs nothing but the graphs: the work is submitted call by call, and report() says why. Used by the
// context.
#pragma once

#include <compare>
#include <map>
#include <string>

#include "failure.h"

namespace nearmoe::gpu {

/// What submits the same calls with the same arguments whenever it is equal.
struct GraphKey {
  enum class Part : uint8_t { Attention, SharedExpert, Experts, Logits };
  Part part;
  uint32_t layer;
  uint32_t tokens;  ///< of the step
  uint32_t shape;   ///< attention: parts of a sequence; experts: experts per token; logits: rows
  auto operator<=>(const GraphKey&) const = default;
};

class Graphs {
 public:
  explicit Graphs(Failure& failure) : failure_(failure) {}
  ~Graphs();
  Graphs(const Graphs&) = delete;
  Graphs& operator=(const Graphs&) = delete;

  /// `step_parts`: parts that one step may have; as many graphs as kShapes such steps have are kept. Off
  /// where the environment says NEARMOE_GPU_GRAPHS=off.
  void start(uint32_t step_parts);
  /// Submits to `stream` what `body`, which returns an NmGpuCode, submits: by itself, or as the graph of an
  /// earlier time with this key.
  template <class Body>
  NmGpuCode run(const GraphKey& key, cudaStream_t stream, Body body) {
    Graph* graph = off_.empty() ? find(key) : nullptr;
    if (graph == nullptr) return body();
    if (graph->exec == nullptr) {
      if (!begin_capture(stream)) return body();
      const NmGpuCode code = body();
      const bool captured = end_capture(stream, code == NM_GPU_OK, graph);
      if (code != NM_GPU_OK) return code;
      if (!captured) return body();
    }
    return replay(*graph, key.part, stream) ? NM_GPU_OK : body();
  }
  /// Makes room for the graphs of one more step, those used longest ago going first. No graph may be running.
  void make_room();
  /// Forgets all graphs: memory that they name has moved. No graph may be running.
  void clear();

  void report(NmGpuGraphs* out) const;

 private:
  struct Graph {
    cudaGraphExec_t exec = nullptr;  ///< null: seen once
    uint64_t last_use = 0;
  };

  /// The graph to capture or replay; null at the first time.
  Graph* find(const GraphKey& key);
  bool begin_capture(cudaStream_t stream);
  bool end_capture(cudaStream_t stream, bool complete, Graph* graph);
  bool replay(const Graph& graph, GraphKey::Part part, cudaStream_t stream);
  /// True for success; else there are no graphs from now on.
  bool accepted(cudaError_t error, const char* call);

  Failure& failure_;
  std::map<GraphKey, Graph> graphs_;
  std::string off_ = "not started";  ///< why there are no graphs
  size_t step_parts_ = 0;
  uint64_t uses_ = 0, replays_ = 0;
};

}  // namespace nearmoe::gpu
