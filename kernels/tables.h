// The op tables that a build may contain; dispatch.cc picks among those compiled in (NEARMOE_HAVE_<ISA>).
#pragma once

#include "ops.h"

namespace nearmoe {

using MatmulFunction = decltype(OpTable::matmul);

extern const OpTable kScalarOps;
extern const OpTable kAvx2Ops;
extern const OpTable kAvx512Ops;
extern const OpTable kNeonOps;
/// What AVX-VNNI changes in kAvx2Ops, and AMX in kAvx512Ops.
extern const MatmulFunction kAvxvnniMatmul;
extern const MatmulFunction kAmxMatmul;

}  // namespace nearmoe
