// bfloat16: the upper half of a float, as tensors of DType::bf16 hold it.
// Plain values and conversions, on any thread and device; arithmetic happens in float.
#pragma once

#include <bit>
#include <cstdint>

#include "runtime/random/rng.hpp"

namespace dtrain {

struct Bf16 {
  std::uint16_t bits;
};

DTRAIN_HOST_DEVICE inline float to_float(float v) {
  return v;
}
DTRAIN_HOST_DEVICE inline float to_float(Bf16 v) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(v.bits) << 16);
}

/// Rounds to the nearest, ties to even; NaN stays NaN. No branches: loops over it become vector code.
DTRAIN_HOST_DEVICE inline Bf16 to_bf16(float v) {
#if defined(__CUDA_ARCH__)
  Bf16 rounded;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(rounded.bits) : "f"(v));
  return rounded;
#else
  const auto bits = std::bit_cast<std::uint32_t>(v);
  const std::uint32_t rounded = (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
  const std::uint32_t quiet = bits >> 16 | 0x40u;
  return {static_cast<std::uint16_t>((bits & 0x7FFFFFFFu) > 0x7F800000u ? quiet : rounded)};
#endif
}

/// `v` as an element of T, float or Bf16.
template <class T>
DTRAIN_HOST_DEVICE inline T from_float(float v);
template <>
DTRAIN_HOST_DEVICE inline float from_float<float>(float v) {
  return v;
}
template <>
DTRAIN_HOST_DEVICE inline Bf16 from_float<Bf16>(float v) {
  return to_bf16(v);
}

}  // namespace dtrain
