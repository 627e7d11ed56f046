// The SIMD ops of one ISA. CMake compiles this file once for each (flags and NEARMOE_ISA in CMakeLists.txt);
// the ops are in <op>.inl.h, and everything here has internal linkage but what ../tables.h declares. AMX,
// AVX-VNNI and I8MM change matmul alone, so their builds export only that and dispatch.cc puts it into the
// table of the base ISA.
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12's own AVX-512 intrinsics pass an undefined vector on purpose and warn about it.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include "../ops.h"
#include "../tables.h"

#define NEARMOE_STRING(name) #name
#define NEARMOE_NAME(name) NEARMOE_STRING(name)

#if defined(__AMX_INT8__)

#include "gemm_amx.h"
#include "matmul_tiles.h"

namespace nearmoe {
static void matmul(const PackedMatrix& w, const ActView& x, float* y, size_t ldy) {
  matmul_tiles<AmxGemm>(kAvx512Ops, w, x, y, ldy);
}
const MatmulFunction kAmxMatmul = matmul;
}  // namespace nearmoe

#elif defined(__AVXVNNI__) && !defined(__AVX512F__)

#include "matmul.inl.h"

namespace nearmoe {
const MatmulFunction kAvxvnniMatmul = matmul;
}  // namespace nearmoe

#elif defined(__ARM_FEATURE_MATMUL_INT8)

#include "gemm_neon.h"
#include "matmul_tiles.h"

namespace nearmoe {
static void matmul(const PackedMatrix& w, const ActView& x, float* y, size_t ldy) {
  matmul_tiles<NeonGemm>(kDotprodOps, w, x, y, ldy);
}
const MatmulFunction kI8mmMatmul = matmul;
}  // namespace nearmoe

#else

#include "../reference/reference.h"
#include "accumulate.inl.h"
#include "add.inl.h"
#include "argmax.inl.h"
#include "gated_activation.inl.h"
#include "gated_delta.inl.h"
#include "layer_norm.inl.h"
#include "matmul.inl.h"
#include "prepare_activations.inl.h"
#include "rms_norm.inl.h"
#include "rope.inl.h"
#include "unpack_row.inl.h"
// This needs the SiLU of gated_activation.
#include "causal_conv.inl.h"
// These need quantise_block of prepare_activations.
#include "attention.inl.h"
#include "kv_store.inl.h"
#include "latent_attention.inl.h"
#include "latent_store.inl.h"

namespace nearmoe {

#if defined(__AVX512F__)
#define NEARMOE_TABLE kAvx512Ops
#elif defined(__AVX2__)
#define NEARMOE_TABLE kAvx2Ops
#elif defined(__ARM_FEATURE_DOTPROD)
#define NEARMOE_TABLE kDotprodOps
#else
#define NEARMOE_TABLE kNeonOps
#endif

const OpTable NEARMOE_TABLE = {
    NEARMOE_NAME(NEARMOE_ISA),
    prepare_activations,
    matmul,
    unpack_row,
    rms_norm,
    layer_norm,
    rope,
    gated_activation,
    accumulate,
    add,
    kv_store,
    attention,
    latent_store,
    latent_attention,
    causal_conv,
    gated_delta,
    argmax,
};

}  // namespace nearmoe

#endif
