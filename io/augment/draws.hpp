// Random bits -> the numbers that augmentations draw.
// Pure functions that own nothing, for any thread; in double, so that every machine draws the same.
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>

#include "runtime/random/rng.hpp"

namespace dtrain::io {

/// Uniform in [0, 1).
inline double unit(std::uint32_t r) {
  return static_cast<double>(r) * 0x1p-32;
}
inline double between(std::uint32_t r, double low, double high) {
  return low + (high - low) * unit(r);
}
/// Uniform among 0 ... n - 1.
inline std::int64_t whole(std::uint32_t r, std::int64_t n) {
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(r) * static_cast<std::uint64_t>(n) >> 32);
}
/// Uniform in (0, 1): for logarithms.
inline double open_unit(std::uint32_t r) {
  return (static_cast<double>(r) + 0.5) * 0x1p-32;
}
/// Of the standard normal distribution (Box and Muller, 1958).
inline double normal(std::uint32_t a, std::uint32_t b) {
  return std::sqrt(-2 * std::log(open_unit(a))) * std::cos(2 * std::numbers::pi * unit(b));
}

}  // namespace dtrain::io
