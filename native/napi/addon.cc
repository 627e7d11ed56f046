// The addon's entry: what `binding.ts` sees of native code. Called by Node when the addon is loaded.
// Everything that computes lives below native/runtime and kernels and never includes napi.h.

#include <napi.h>

namespace nearmoe {
namespace {

// The version the addon was built for; binding.ts refuses an addon of another version.
Napi::Value version(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), NEARMOE_VERSION); }

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("version", Napi::Function::New(env, version, "version"));
  return exports;
}

}  // namespace
}  // namespace nearmoe

static Napi::Object init_addon(Napi::Env env, Napi::Object exports) { return nearmoe::init(env, exports); }

NODE_API_MODULE(nearmoe, init_addon)
