// Where a rank's time goes inside a step, by op. Every rank laps its own clock, so that each moment of a
// stage belongs to exactly one op; `bench` adds the ranks up. One clock read per lap, some 30 ns.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "clock.h"

namespace nearmoe {

/// What a stretch of time was spent on. Order and number are those of kTimedOpNames.
enum class TimedOp : uint8_t {
  Input,       ///< residual sum, embedding, norm and preparation of a layer's input
  Qkv,         ///< q, k and v projections
  Rope,        ///< q/k norms, rotary embedding, KV cache store; convolution of q, k and v
  Attention,   ///< attention over the KV cache; what layers with a state do in its place
  Output,      ///< output projection and the preparation of its input
  Router,      ///< router logits and the choice of experts
  GateUp,      ///< gate and up matrices of experts and dense blocks
  Activation,  ///< act(gate) * up and its preparation for down
  Down,        ///< down matrix
  Combine,     ///< weighting and adding experts' outputs
  LmHead,      ///< lm_head; the final norm counts as Input
  Barrier,     ///< waiting for other ranks
};
inline constexpr size_t kTimedOps = 12;
inline constexpr const char* kTimedOpNames[kTimedOps] = {"input",  "qkv",     "rope",   "attention",
                                                         "output", "router",  "gateUp", "activation",
                                                         "down",   "combine", "lmHead", "barrier"};

/// One rank's times since the step began. Written by that rank alone, read while no job runs.
class alignas(64) OpClock {
 public:
  void reset() { us_.fill(0); }
  /// A stage begins: what passed since the last lap belongs to no op.
  void start() { last_ = now_us(); }
  /// What passed since the last lap was `op`.
  void lap(TimedOp op) {
    const double now = now_us();
    us_[static_cast<size_t>(op)] += now - last_;
    last_ = now;
  }
  const std::array<double, kTimedOps>& us() const { return us_; }

 private:
  std::array<double, kTimedOps> us_ = {};
  double last_ = 0;
};

}  // namespace nearmoe
