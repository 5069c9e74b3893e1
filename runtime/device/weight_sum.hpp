// Sums of weights that are exact in any order: unsigned numbers of 64 bits, 32 of them behind the point, so that a
// step's weight does not depend on how ranks and micro batches share it, and no count is too large for it. Free
// functions that own nothing and run on any thread, on the host and in device code alike.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "runtime/random/rng.hpp"

namespace dtrain {

/// A weight in units of 2^-32, to nearest. Weights are finite and at least 0; those of 2^32 and more count as the most.
inline std::uint64_t weight_units(float weight) noexcept {
  if (!(weight > 0)) return 0;
  if (weight >= 0x1p32f) return ~std::uint64_t{0};
  return static_cast<std::uint64_t>(std::nearbyint(static_cast<double>(weight) * 0x1p32));
}
inline double weight_of(std::uint64_t units) noexcept {
  return static_cast<double>(units) * 0x1p-32;
}

/// How a sum travels: as floats of so many bits each, lowest first, whose sums over up to 8,192 ranks are exact.
inline constexpr std::size_t weight_limbs = 6, weight_limb_bits = 11;

DTRAIN_HOST_DEVICE inline void split_weight(std::uint64_t units, float* limbs) {
  for (std::size_t i = 0; i < weight_limbs; ++i)
    limbs[i] = static_cast<float>(units >> (i * weight_limb_bits) & ((std::uint64_t{1} << weight_limb_bits) - 1));
}
/// The weight that sums of limbs stand for, rounded once.
DTRAIN_HOST_DEVICE inline double join_weight(const float* limbs) {
  std::uint64_t low = 0, high = 0;  // both are exact in a double
  for (std::size_t i = 0; i < weight_limbs / 2; ++i) {
    low += static_cast<std::uint64_t>(limbs[i]) << (i * weight_limb_bits);
    high += static_cast<std::uint64_t>(limbs[i + weight_limbs / 2]) << (i * weight_limb_bits);
  }
  return static_cast<double>(high) * 2.0 + static_cast<double>(low) * (1.0 / 4294967296.0);
}

}  // namespace dtrain
