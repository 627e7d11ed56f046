// Outcome of a native operation. Codes are the strings that src/errors.ts knows; no exception crosses the
// N-API wall.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

namespace nearmoe {

enum class Code : uint8_t { Ok, InvalidArgument, OutOfMemory, Io, WeightValue, WeightMissing, Gpu, Internal };

/// The error code as JavaScript sees it.
constexpr const char* code_name(Code code) {
  switch (code) {
    case Code::Ok:
      return "OK";
    case Code::InvalidArgument:
      return "ERR_INVALID_ARGUMENT";
    case Code::OutOfMemory:
      return "ERR_OUT_OF_MEMORY";
    case Code::Io:
      return "ERR_IO";
    case Code::WeightValue:
      return "ERR_WEIGHT_VALUE";
    case Code::WeightMissing:
      return "ERR_WEIGHT_MISSING";
    case Code::Gpu:
      return "ERR_GPU";
    case Code::Internal:
      return "ERR_INTERNAL";
  }
  return "ERR_INTERNAL";
}

struct Status {
  Code code = Code::Ok;
  std::string message;
  int64_t row = -1;  ///< row of the load table that failed, or -1

  bool ok() const { return code == Code::Ok; }
  static Status error(Code code, std::string message, int64_t row = -1) {
    return {code, std::move(message), row};
  }
};

}  // namespace nearmoe
