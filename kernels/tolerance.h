// How far SIMD ops may be from the scalar reference, in parts of the largest magnitude of the expected
// output. Every op that is not named here equals it bit for bit. The tests read these numbers from here.
#pragma once

namespace nearmoe {

/// gated_activation: vector exp and erf within 1 ulp, one division.
inline constexpr float kActivationTolerance = 1e-6f;
/// attention: online softmax against two passes, vector exp, tanh of soft-capped scores.
/// latent_attention: besides, dot products in 16 lanes.
inline constexpr float kAttentionTolerance = 4e-6f;

}  // namespace nearmoe
