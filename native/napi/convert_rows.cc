#include "convert_rows.h"

#include "../runtime/convert_rows.h"
#include "args.h"

namespace nearmoe {

Napi::Value convert_rows_value(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto from = static_cast<DType>(args::integer(env, info[0], "from", 0, kNumDTypes - 1));
  const auto to = static_cast<DType>(args::integer(env, info[2], "to", 0, kNumDTypes - 1));
  const uint32_t rows = args::integer(env, info[3], "rows", 1, 1U << 30);
  const uint32_t cols = args::integer(env, info[4], "cols", 1, 1U << 30);
  const uint32_t threads = args::integer(env, info[5], "threads", 1, 1024);
  const bool typed =
      info[1].IsTypedArray() && info[1].As<Napi::TypedArray>().TypedArrayType() == napi_uint8_array;
  if (!typed) args::fail(env, "`bytes` is not a Uint8Array");
  if (env.IsExceptionPending()) return env.Undefined();
  const auto bytes = info[1].As<Napi::Uint8Array>();
  if (bytes.ByteLength() != source_bytes(from, rows, cols)) {
    args::fail(env, "`bytes` does not hold the rows");
    return env.Undefined();
  }
  auto out = Napi::Uint8Array::New(env, source_bytes(to, rows, cols));
  const Status status = convert_rows(from, reinterpret_cast<const std::byte*>(bytes.Data()), to, rows, cols,
                                     reinterpret_cast<std::byte*>(out.Data()), threads);
  if (args::throw_if_error(env, status)) return env.Undefined();
  return out;
}

}  // namespace nearmoe
