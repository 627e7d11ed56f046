// Checks at the JS/native wall. src/options.ts checks for people; these check for safety and are never
// skipped: each getter throws a JavaScript TypeError with code ERR_INVALID_ARGUMENT and returns a harmless
// value. The caller looks at env.IsExceptionPending() once after reading all it needs.
#pragma once

#include <napi.h>

#include <cmath>
#include <cstdint>
#include <string>

#include "../runtime/status.h"

namespace nearmoe::args {

inline void fail(Napi::Env env, const std::string& what) {
  if (env.IsExceptionPending()) return;
  Napi::TypeError error = Napi::TypeError::New(env, what);
  error.Set("code", Napi::String::New(env, code_name(Code::InvalidArgument)));
  error.ThrowAsJavaScriptException();
}

/// Throws a JavaScript error with `code` and, where known, `row`. True if the status was an error.
inline bool throw_if_error(Napi::Env env, const Status& status) {
  if (status.ok()) return false;
  Napi::Error error = Napi::Error::New(env, status.message);
  error.Set("code", Napi::String::New(env, code_name(status.code)));
  if (status.row >= 0) error.Set("row", Napi::Number::New(env, static_cast<double>(status.row)));
  error.ThrowAsJavaScriptException();
  return true;
}

inline double number(Napi::Env env, const Napi::Value& value, const char* name, double low, double high) {
  const double got = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : std::nan("");
  if (got >= low && got <= high) return got;
  fail(env, std::string("`") + name + "` is not a number from " + std::to_string(low) + " to " +
                std::to_string(high));
  return low;
}

inline uint32_t integer(Napi::Env env, const Napi::Value& value, const char* name, uint32_t low,
                        uint32_t high) {
  const double got = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : std::nan("");
  if (got >= low && got <= high && std::floor(got) == got) return static_cast<uint32_t>(got);
  fail(env, std::string("`") + name + "` is not an integer from " + std::to_string(low) + " to " +
                std::to_string(high));
  return low;
}

/// Reads the properties of one object; `where` names it in messages.
class Fields {
 public:
  Fields(Napi::Env env, const Napi::Value& value, std::string where) : env_(env), where_(std::move(where)) {
    if (value.IsObject()) {
      object_ = value.As<Napi::Object>();
    } else {
      fail(env, "`" + where_ + "` is not an object");
      object_ = Napi::Object::New(env);
    }
  }

  Napi::Value get(const char* name) const { return object_.Get(name); }
  bool has(const char* name) const { return !object_.Get(name).IsUndefined(); }
  uint32_t integer(const char* name, uint32_t low, uint32_t high) const {
    return args::integer(env_, get(name), path(name).c_str(), low, high);
  }
  double number(const char* name, double low, double high) const {
    return args::number(env_, get(name), path(name).c_str(), low, high);
  }
  float real(const char* name) const { return static_cast<float>(number(name, -1e30, 1e30)); }
  bool boolean(const char* name) const {
    const Napi::Value value = get(name);
    if (value.IsBoolean()) return value.As<Napi::Boolean>().Value();
    fail(env_, "`" + path(name) + "` is not a boolean");
    return false;
  }
  std::string text(const char* name) const {
    const Napi::Value value = get(name);
    if (value.IsString()) return value.As<Napi::String>().Utf8Value();
    fail(env_, "`" + path(name) + "` is not a string");
    return "";
  }
  /// Index of the string among `names`.
  template <size_t N>
  uint32_t choice(const char* name, const char* const (&names)[N]) const {
    const std::string got = text(name);
    for (uint32_t i = 0; i < N; ++i) {
      if (got == names[i]) return i;
    }
    fail(env_, "`" + path(name) + "` is not a known value: '" + got + "'");
    return 0;
  }
  Fields object(const char* name) const { return {env_, get(name), path(name)}; }
  Napi::Array array(const char* name) const {
    const Napi::Value value = get(name);
    if (value.IsArray()) return value.As<Napi::Array>();
    fail(env_, "`" + path(name) + "` is not an array");
    return Napi::Array::New(env_);
  }
  std::string path(const char* name) const { return where_ + "." + name; }

 private:
  Napi::Env env_;
  std::string where_;
  Napi::Object object_;
};

}  // namespace nearmoe::args
