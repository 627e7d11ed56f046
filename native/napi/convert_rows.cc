#include "convert_rows.h"

#include "../runtime/convert_rows.h"
#include "args.h"

namespace nearmoe {
namespace {

bool is_bytes(const Napi::Value& value) {
  return value.IsTypedArray() && value.As<Napi::TypedArray>().TypedArrayType() == napi_uint8_array;
}

/// Reads {encoding, bytes, firstRow} into `source`; fails where the bytes are not the scales of `rows` rows.
void read_scales(Napi::Env env, const Napi::Value& value, uint32_t rows, SourceRows& source) {
  if (value.IsUndefined()) return;
  if (!value.IsObject()) return args::fail(env, "`scales` is not an object");
  const auto scales = value.As<Napi::Object>();
  source.encoding =
      static_cast<Encoding>(args::integer(env, scales.Get("encoding"), "encoding", 1, kNumEncodings - 1));
  source.first_row = args::integer(env, scales.Get("firstRow"), "firstRow", 0, 1U << 30);
  const Napi::Value bytes = scales.Get("bytes");
  if (env.IsExceptionPending()) return;
  const size_t expected = scale_bytes(source.encoding, size_t{source.first_row} + rows, source.cols);
  if (!is_bytes(bytes) || bytes.As<Napi::Uint8Array>().ByteLength() != expected)
    return args::fail(env, "`scales.bytes` does not hold the rows' scales");
  source.scales = reinterpret_cast<const std::byte*>(bytes.As<Napi::Uint8Array>().Data());
}

}  // namespace

Napi::Value convert_rows_value(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  SourceRows source;
  source.dtype = static_cast<DType>(args::integer(env, info[0], "from", 0, kNumDTypes - 1));
  const auto to = static_cast<DType>(args::integer(env, info[2], "to", 0, kNumDTypes - 1));
  const uint32_t rows = args::integer(env, info[3], "rows", 1, 1U << 30);
  source.cols = args::integer(env, info[4], "cols", 1, 1U << 30);
  const uint32_t threads = args::integer(env, info[5], "threads", 1, 1024);
  if (!is_bytes(info[1])) args::fail(env, "`bytes` is not a Uint8Array");
  if (env.IsExceptionPending()) return env.Undefined();
  read_scales(env, info[6], rows, source);
  if (env.IsExceptionPending()) return env.Undefined();
  const auto bytes = info[1].As<Napi::Uint8Array>();
  if (bytes.ByteLength() != rows * stored_row_bytes(source.encoding, source.dtype, source.cols)) {
    args::fail(env, "`bytes` does not hold the rows");
    return env.Undefined();
  }
  source.data = reinterpret_cast<const std::byte*>(bytes.Data());
  auto out = Napi::Uint8Array::New(env, source_bytes(to, rows, source.cols));
  const Status status = convert_rows(source, to, rows, reinterpret_cast<std::byte*>(out.Data()), threads);
  if (args::throw_if_error(env, status)) return env.Undefined();
  return out;
}

}  // namespace nearmoe
