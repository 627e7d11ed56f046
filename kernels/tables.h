// The op tables that a build may contain; dispatch.cc picks among those compiled in (NEARMOE_HAVE_<ISA>).
#pragma once

#include "ops.h"

namespace nearmoe {

extern const OpTable kScalarOps;
extern const OpTable kAvx2Ops;
extern const OpTable kAvxvnniOps;
extern const OpTable kAvx512Ops;
extern const OpTable kAmxOps;
extern const OpTable kNeonOps;

}  // namespace nearmoe
