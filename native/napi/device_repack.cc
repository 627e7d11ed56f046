// The part of the device object that the cache of repacked files uses: see src/engine/repack-cache.ts.
#include <algorithm>
#include <cstdio>
#include <string>

#include "../runtime/repack_cache.h"
#include "args.h"
#include "device.h"

namespace nearmoe {
namespace {

constexpr uint32_t kMaxArenas = 1025;  // units and a GPU lane

/// 64 bits do not fit a JavaScript number.
std::string hex_of(uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

bool read_hex(const std::string& text, uint64_t* value) {
  *value = 0;
  for (const char c : text) {
    const bool digit = c >= '0' && c <= '9';
    if (!digit && !(c >= 'a' && c <= 'f')) return false;
    *value = *value * 16 + static_cast<uint64_t>(digit ? c - '0' : c - 'a' + 10);
  }
  return text.size() == 16;
}

}  // namespace

Napi::Value packed_layout_value(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), hex_of(packed_layout_checksum()));
}

Napi::Value DeviceObject::arena_segments(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  ComputeDevice* d = device(info);
  if (d == nullptr) return env.Undefined();
  const std::vector<const Arena*> arenas = d->store().arenas();
  Napi::Array result = Napi::Array::New(env, arenas.size());
  for (uint32_t i = 0; i < arenas.size(); ++i) {
    Napi::Object entry = Napi::Object::New(env);
    const size_t bytes = arenas[i]->content_bytes();
    entry.Set("sizeBytes", static_cast<double>(bytes));
    entry.Set("checksum",
              hex_of(checksum_bytes(arenas[i]->content(), bytes, d->store().topology().unit_ranks())));
    result.Set(i, entry);
  }
  return result;
}

Napi::Value DeviceObject::write_arena(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  ComputeDevice* d = device(info);
  if (d == nullptr) return env.Undefined();
  const uint32_t index = args::integer(env, info[1], "arena", 0, kMaxArenas);
  const double begin = args::number(env, info[2], "beginBytes", 0, 1e15);
  const double bytes = args::number(env, info[3], "sizeBytes", 0, 1e15);
  const double offset = args::number(env, info[4], "offsetBytes", 0, 1e15);
  const std::vector<const Arena*> arenas = d->store().arenas();
  if (!info[0].IsString() || index >= arenas.size()) args::fail(env, "expected (path, arena, ...)");
  if (env.IsExceptionPending()) return env.Undefined();
  args::throw_if_error(env, nearmoe::write_arena(*arenas[index], info[0].As<Napi::String>().Utf8Value(),
                                                 static_cast<size_t>(begin), static_cast<size_t>(bytes),
                                                 static_cast<uint64_t>(offset)));
  return env.Undefined();
}

Napi::Value DeviceObject::map_arenas(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  ComputeDevice* d = device(info);
  if (d == nullptr) return env.Undefined();
  if (!info[0].IsString() || !info[1].IsArray()) args::fail(env, "expected (path, segments)");
  std::vector<ArenaSegment> segments;
  if (!env.IsExceptionPending()) {
    const Napi::Array list = info[1].As<Napi::Array>();
    for (uint32_t i = 0; i < std::min(list.Length(), kMaxArenas); ++i) {
      const args::Fields fields(env, list.Get(i), "segments");
      ArenaSegment segment;
      segment.offset = static_cast<uint64_t>(fields.number("offsetBytes", 0, 1e15));
      segment.size = static_cast<uint64_t>(fields.number("sizeBytes", 0, 1e15));
      if (!read_hex(fields.text("checksum"), &segment.checksum))
        args::fail(env, "`checksum` is no 64-bit hex");
      segments.push_back(segment);
    }
  }
  if (env.IsExceptionPending()) return env.Undefined();
  args::throw_if_error(env, d->map_arenas(info[0].As<Napi::String>().Utf8Value(), segments));
  return env.Undefined();
}

}  // namespace nearmoe
