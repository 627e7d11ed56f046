#include "graphs.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace nearmoe::gpu {
namespace {

/// Shapes of steps (numbers of tokens, parts of a sequence) whose graphs are kept.
constexpr size_t kShapes = 8;

const char* name_of(GraphKey::Part part) {
  switch (part) {
    case GraphKey::Part::Attention:
      return "graph of attention and router";
    case GraphKey::Part::SharedExpert:
      return "graph of the shared expert";
    case GraphKey::Part::Experts:
      return "graph of the experts";
    case GraphKey::Part::Logits:
      return "graph of the logits";
  }
  return "graph";
}

}  // namespace

Graphs::~Graphs() { clear(); }

void Graphs::start(uint32_t step_parts) {
  step_parts_ = step_parts;
  const char* wanted = std::getenv("NEARMOE_GPU_GRAPHS");
  off_ = wanted && std::strcmp(wanted, "off") == 0 ? "NEARMOE_GPU_GRAPHS=off" : "";
}

bool Graphs::accepted(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return true;
  (void)cudaGetLastError();  // a refusal, no error of the device: a lost device says so again
  off_ = std::string(call) + ": " + cudaGetErrorString(error) + " (" +
         std::to_string(static_cast<int>(error)) + ")";
  return false;
}

/// The first time must not be captured: it may load the kernels, which no capture allows.
Graphs::Graph* Graphs::find(const GraphKey& key) {
  const auto [it, inserted] = graphs_.try_emplace(key);
  it->second.last_use = ++uses_;
  return inserted ? nullptr : &it->second;
}

bool Graphs::begin_capture(cudaStream_t stream) {
  return accepted(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
}

bool Graphs::end_capture(cudaStream_t stream, bool complete, Graph* graph) {
  cudaGraph_t captured = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream, &captured);
  // Where submitting failed, that failure is the one to tell of.
  bool ok = complete && accepted(ended, "cudaStreamEndCapture");
  if (ok) {
    ok = accepted(cudaGraphInstantiate(&graph->exec, captured, 0), "cudaGraphInstantiate");
    if (!ok) graph->exec = nullptr;
  }
  if (captured) (void)cudaGraphDestroy(captured);
  return ok;
}

bool Graphs::replay(const Graph& graph, GraphKey::Part part, cudaStream_t stream) {
  failure_.submitted(name_of(part));
  if (!accepted(cudaGraphLaunch(graph.exec, stream), "cudaGraphLaunch")) return false;
  ++replays_;
  return true;
}

void Graphs::make_room() {
  const size_t most = kShapes * step_parts_;
  while (!graphs_.empty() && graphs_.size() + step_parts_ > most) {
    const auto oldest = std::min_element(graphs_.begin(), graphs_.end(), [](const auto& a, const auto& b) {
      return a.second.last_use < b.second.last_use;
    });
    if (oldest->second.exec) (void)cudaGraphExecDestroy(oldest->second.exec);
    graphs_.erase(oldest);
  }
}

void Graphs::clear() {
  for (const auto& [key, graph] : graphs_) {
    if (graph.exec) (void)cudaGraphExecDestroy(graph.exec);
  }
  graphs_.clear();
}

void Graphs::report(NmGpuGraphs* out) const {
  *out = {};
  out->replays = replays_;
  for (const auto& [key, graph] : graphs_) out->held += graph.exec != nullptr;
  std::snprintf(out->off, sizeof out->off, "%s", off_.c_str());
}

}  // namespace nearmoe::gpu
