// The op `soft_cap`: keeps values, mostly logits, between -cap and cap without a corner.
// A plain value; what a device makes of it is in runtime/cpu/ops and runtime/cuda/ops.
#pragma once

#include "runtime/ops/activation_math.hpp"
#include "runtime/ops/shape.hpp"

namespace dtrain {

/// y = cap tanh(x / cap), element by element (Bello et al. 2016; Gemma 2 caps its logits at 30).
struct SoftCap {
  double cap = 30;

  std::string_view name() const { return "soft_cap"; }
  OpShape infer(std::span<const TensorDesc> in) const;
  static std::vector<OpKind<SoftCap>> kinds();
};

/// One element and its gradient, which follows from the output; shared by every device.
struct SoftCapMath {
  float cap, inverse;
  explicit SoftCapMath(const SoftCap& op)
      : cap(static_cast<float>(op.cap)), inverse(static_cast<float>(1.0 / op.cap)) {}
  DTRAIN_HOST_DEVICE float value(float x) const { return cap * tanh_of(x * inverse); }
  DTRAIN_HOST_DEVICE float gradient(float y, float gy) const {
    const float t = y * inverse;
    return gy * (1.0f - t * t);
  }
};

}  // namespace dtrain
