// bfloat16 as its 16 bits: the upper half of a float. Conversions of one element, shared by every device and floor.
// Free functions that own nothing; loops over them vectorize.
#pragma once

#include <bit>
#include <cstdint>

#include "runtime/rng.hpp"

namespace dtrain {

/// To nearest, ties to even; what is not a number stays not a number.
DTRAIN_HOST_DEVICE inline std::uint16_t to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const std::uint32_t quiet = (bits >> 16) | 0x40u;
  return static_cast<std::uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

/// Exact.
DTRAIN_HOST_DEVICE inline float from_bfloat16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

}  // namespace dtrain
