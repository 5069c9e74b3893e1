// The op `multiply`: the product of two values, or of a value and one factor a channel.
// A plain value; what a device makes of it is in runtime/cpu/ops and runtime/cuda/ops.
#pragma once

#include "runtime/ops/shape.hpp"

namespace dtrain {

/// y = a * b: equal shapes, or b [N, 1..., C], which is broadcast over the positions (squeeze and excitation).
struct Multiply {
  std::string_view name() const { return "multiply"; }
  OpShape infer(std::span<const TensorDesc> in) const;
  static std::vector<OpKind<Multiply>> kinds();
};

}  // namespace dtrain
