#include "ceilings.h"

#include "../runtime/ceilings.h"
#include "args.h"

namespace nearmoe {

Napi::Value measure_ceiling_value(const Napi::CallbackInfo& info) {
  static constexpr const char* kKinds[] = {"read", "int8", "float"};
  const Napi::Env env = info.Env();
  const args::Fields fields(env, info[0], "options");
  const auto ceiling = static_cast<Ceiling>(fields.choice("kind", kKinds));
  CeilingOptions options;
  options.threads = fields.integer("threads", 1, 1024);
  options.pin_threads = fields.boolean("pinThreads");
  options.time_ms = fields.number("timeMs", 1, 60e3);
  options.buffer_bytes = static_cast<size_t>(fields.number("bufferBytes", 1, 1e12));
  options.isa = fields.text("isa");
  double rate = 0;
  if (!env.IsExceptionPending()) args::throw_if_error(env, measure_ceiling(ceiling, options, &rate));
  return Napi::Number::New(env, rate);
}

}  // namespace nearmoe
