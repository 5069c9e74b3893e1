// The op `concat`: the channels of several values, one behind the other.
// A plain value; what a device makes of it is in runtime/cpu/ops and runtime/cuda/ops.
#pragma once

#include "runtime/ops/shape.hpp"

namespace dtrain {

/// Two to 32 inputs of the same batch and positions.
struct Concat {
  std::string_view name() const { return "concat"; }
  OpShape infer(std::span<const TensorDesc> in) const;
  static std::vector<OpKind<Concat>> kinds();
};

}  // namespace dtrain
