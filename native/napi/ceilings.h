// binding.ts: measureCeiling.
#pragma once

#include <napi.h>

namespace nearmoe {

/// ({ kind: 'read' | 'int8' | 'float', threads, pinThreads, timeMs, bufferBytes, isa }) -> rate; blocks.
Napi::Value measure_ceiling_value(const Napi::CallbackInfo& info);

}  // namespace nearmoe
