// The op `gated`: half of the channels, through an activation, times the other half: GLU, SwiGLU, GeGLU (Shazeer 2020).
// A plain value; what a device makes of it is in runtime/cpu/ops and runtime/cuda/ops.
#pragma once

#include "runtime/ops/activation.hpp"
#include "runtime/ops/shape.hpp"

namespace dtrain {

/// x[..., 2 C] -> y[..., C]: y[c] = act(x[c]) * x[C + c]. The gate comes first, as in Llama's gate and up.
struct Gated {
  Activation gate = Activation::silu;

  std::string_view name() const { return "gated"; }
  OpShape infer(std::span<const TensorDesc> in) const;
  static std::vector<OpKind<Gated>> kinds();
};

}  // namespace dtrain
