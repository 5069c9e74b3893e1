// The op `rms_norm`: each position divided by the root of the mean square of its channels (Zhang and Sennrich 2019).
// A plain value; what a device makes of it is in runtime/cpu/ops and runtime/cuda/ops.
#pragma once

#include "runtime/ops/shape.hpp"

namespace dtrain {

/// y = x / sqrt(mean(x^2) + epsilon) * weight. params: weight [C] (spared from decay). saved: 1 / root of each row.
struct RmsNorm {
  double epsilon = 1e-5;

  std::string_view name() const { return "rms_norm"; }
  OpShape infer(std::span<const TensorDesc> in) const;
  static std::vector<OpKind<RmsNorm>> kinds();
};

}  // namespace dtrain
