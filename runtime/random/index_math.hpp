// Division of indices, shared by every device.
// Free functions that own nothing, on any thread and device.
#pragma once

#include <cstdint>

#include "runtime/random/rng.hpp"

namespace dtrain {

struct Split {
  std::int64_t quotient, rest;
};
/// Of an index that is not negative. GPUs divide 32 bits several times faster than 64, which they do in a function that
/// is called, with registers saved around it: what needs more than 32 bits, next to nothing, is divided bit by bit.
DTRAIN_HOST_DEVICE inline Split split(std::int64_t i, std::int64_t by) {
  if (((i | by) >> 32) == 0) {
    const auto a = static_cast<std::uint32_t>(i), b = static_cast<std::uint32_t>(by);
    const std::uint32_t q = a / b;
    return {q, a - q * b};
  }
  Split s{0, 0};
  for (int bit = 62; bit >= 0; --bit) {
    s.rest = s.rest << 1 | (i >> bit & 1);
    if (s.rest < by) continue;
    s.rest -= by;
    s.quotient |= std::int64_t{1} << bit;
  }
  return s;
}

}  // namespace dtrain
