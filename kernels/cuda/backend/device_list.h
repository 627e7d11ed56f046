// Which devices this library can use, and a message that helps where there is none. Called by probe; needs no
// context.
#pragma once

#include "failure.h"

namespace nearmoe::gpu {

NmGpuCode probe(NmGpuDevice* devices, uint32_t capacity, uint32_t* count, NmGpuError* error);

}  // namespace nearmoe::gpu
