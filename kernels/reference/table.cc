// The "scalar" op table: runs on any CPU.
#include "../tables.h"
#include "reference.h"

namespace nearmoe {

const OpTable kScalarOps = {
    "scalar",
    reference::prepare_activations,
    reference::matmul,
    reference::unpack_row,
    reference::rms_norm,
    reference::layer_norm,
    reference::rope,
    reference::gated_activation,
    reference::accumulate,
    reference::add,
    reference::kv_store,
    reference::attention,
    reference::latent_store,
    reference::latent_attention,
    reference::causal_conv,
    reference::gated_delta,
    reference::argmax,
};

}  // namespace nearmoe
