// The op of an activation by itself, named after it: `relu`, `gelu`, ...
// A plain value; what a device makes of it is in runtime/cpu/ops and runtime/cuda/ops.
#pragma once

#include "runtime/ops/activation.hpp"
#include "runtime/ops/shape.hpp"

namespace dtrain {

/// y = act(x), element by element.
struct Activate {
  Activation kind = Activation::relu;

  std::string_view name() const { return name_of(kind); }
  OpShape infer(std::span<const TensorDesc> in) const;
  static std::vector<OpKind<Activate>> kinds();
};

}  // namespace dtrain
