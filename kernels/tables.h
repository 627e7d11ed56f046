// The op tables that a build may contain; dispatch.cc picks among those compiled in (NEARMOE_HAVE_<ISA>).
#pragma once

#include "ops.h"

namespace nearmoe {

using MatmulFunction = decltype(OpTable::matmul);

extern const OpTable kScalarOps;
extern const OpTable kAvx2Ops;
extern const OpTable kAvx512Ops;
extern const OpTable kNeonOps;
extern const OpTable kDotprodOps;
/// What AVX-VNNI changes in kAvx2Ops, AMX in kAvx512Ops, and I8MM in kDotprodOps.
extern const MatmulFunction kAvxvnniMatmul;
extern const MatmulFunction kAmxMatmul;
extern const MatmulFunction kI8mmMatmul;

}  // namespace nearmoe
