// The op `add`: the sum of two values, with an activation inside.
// A plain value; what a device makes of it is in runtime/cpu/ops and runtime/cuda/ops.
#pragma once

#include "runtime/ops/activation.hpp"
#include "runtime/ops/shape.hpp"

namespace dtrain {

/// y = act(a + factor * b) of two equal shapes.
struct Add {
  Activation activation = Activation::none;  // one whose derivative_of_output
  double factor = 1;                         // of low-rank adapters; users write none

  std::string_view name() const { return "add"; }
  OpShape infer(std::span<const TensorDesc> in) const;
  static std::vector<OpKind<Add>> kinds();
};

}  // namespace dtrain
