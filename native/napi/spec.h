// Reads a ModelSpec (src/model/model-spec.ts) from JavaScript.
#pragma once

#include <napi.h>

#include "../runtime/model_spec.h"

namespace nearmoe {

/// Throws a JavaScript error (pending on return) where the object is not a sound spec.
ModelSpec read_spec(Napi::Env env, const Napi::Value& value);

}  // namespace nearmoe
