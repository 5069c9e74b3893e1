// IEEE half precision, as tensors of DType::f16 hold it.
// Plain values and conversions, on any thread and device; arithmetic happens in float.
#pragma once

#include <bit>
#include <cstdint>

#include "runtime/tensor/bf16.hpp"

namespace dtrain {

struct F16 {
  std::uint16_t bits;
};

DTRAIN_HOST_DEVICE inline float to_float(F16 v) {
#if defined(__CUDA_ARCH__)
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(v.bits));
  return value;
#else
  const std::uint32_t sign = static_cast<std::uint32_t>(v.bits & 0x8000u) << 16, rest = v.bits & 0x7FFFu;
  std::uint32_t magnitude = (rest << 13) + 0x38000000u;
  if (rest >= 0x7C00u) magnitude = 0x7F800000u | (rest & 0x3FFu) << 13;  // infinity or NaN
  if (rest < 0x400u) magnitude = std::bit_cast<std::uint32_t>(static_cast<float>(rest) * 0x1p-24f);
  return std::bit_cast<float>(sign | magnitude);
#endif
}

/// Rounds to the nearest, ties to even; beyond 65504 (and half a unit) to infinity; NaN stays NaN.
DTRAIN_HOST_DEVICE inline F16 to_f16(float v) {
#if defined(__CUDA_ARCH__)
  F16 half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half.bits) : "f"(v));
  return half;
#else
  const auto bits = std::bit_cast<std::uint32_t>(v);
  const std::uint32_t sign = bits >> 16 & 0x8000u, rest = bits & 0x7FFFFFFFu;
  if (rest > 0x7F800000u) return {static_cast<std::uint16_t>(sign | 0x7E00u)};
  if (rest >= 0x477FF000u) return {static_cast<std::uint16_t>(sign | 0x7C00u)};
  if (rest < 0x38800000u) {  // below 2^-14: a multiple of 2^-24, which adding 0.5 rounds to
    const float shifted = std::bit_cast<float>(rest) + 0.5f;
    return {static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3F000000u))};
  }
  const std::uint32_t rounded = rest + 0xFFFu + (rest >> 13 & 1u) - 0x38000000u;
  return {static_cast<std::uint16_t>(sign | rounded >> 13)};
#endif
}

template <>
DTRAIN_HOST_DEVICE inline F16 from_float<F16>(float v) {
  return to_f16(v);
}

}  // namespace dtrain
