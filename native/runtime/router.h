// The routing rule: router logits -> the experts of a token and their weights. Scalar; E is at most a few
// hundred.
#pragma once

#include <cstdint>

#include "model_spec.h"

namespace nearmoe {

/// Chooses `ffn.top_k` experts from `logits` [ffn.num_experts] (overwritten as scratch). Writes ids
/// ascending, each with its weight. Ties are won by the lower id. float32 as in the Hub's reference code.
void route_token(const FfnSpec& ffn, float* logits, int32_t* ids, float* weights);

}  // namespace nearmoe
