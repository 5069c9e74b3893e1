// The op `layer_norm`: layer normalization over the channels of each position.
// A plain value; what a device makes of it is in runtime/cpu/ops and runtime/cuda/ops.
#pragma once

#include "runtime/ops/shape.hpp"

namespace dtrain {

/// params: weight, bias [C] (spared from decay). saved: mean and 1 / standard deviation of each row.
struct LayerNorm {
  double epsilon = 1e-5;

  std::string_view name() const { return "layer_norm"; }
  OpShape infer(std::span<const TensorDesc> in) const;
  static std::vector<OpKind<LayerNorm>> kinds();
};

}  // namespace dtrain
