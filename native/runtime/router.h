// The routing rule: router logits -> the experts of a token and their weights. Scalar; E is at most a few
// hundred.
#pragma once

#include <cstdint>

#include "model_spec.h"
#include "weights.h"

namespace nearmoe {

/// Chooses `ffn.top_k` experts from `logits` [ffn.num_experts] (overwritten as scratch). Writes ids
/// ascending, each with its weight. Ties are won by the lower id. float32 as in the Hub's reference code.
/// `layer` gives the biases that `ffn.router` asks for.
void route_token(const FfnSpec& ffn, const LayerWeights& layer, float* logits, int32_t* ids, float* weights);

}  // namespace nearmoe
