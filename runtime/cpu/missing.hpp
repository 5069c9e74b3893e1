#pragma once
#include <string>

#include "runtime/error.hpp"
namespace dtrain::cpu {
[[noreturn]] inline void throw_missing(std::string_view op) {
  throw DeviceError(std::string(op) + " is not there yet");
}
}  // namespace dtrain::cpu
