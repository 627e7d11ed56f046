// CUDA C++ kernels and the runtime API on the CPU: one fiber per CUDA thread, blocks one after the other,
// streams as queues whose operations run as late and as mixed up as events and synchronisation allow. A test
// tool: exact, checked, slow. Included through gpu_rt.h; nothing here knows a kernel of this project.
#pragma once

#include "cpu_types.h"
// (types first)
#include "cpu_collectives.h"
#include "cpu_host_api.h"
#include "cpu_intrinsics.h"
