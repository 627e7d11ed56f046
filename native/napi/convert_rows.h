// binding.ts: convertRows.
#pragma once

#include <napi.h>

namespace nearmoe {

/// (from: number, bytes: Uint8Array, to: number, rows, cols, threads, scales?) -> Uint8Array; blocks.
Napi::Value convert_rows_value(const Napi::CallbackInfo& info);

}  // namespace nearmoe
