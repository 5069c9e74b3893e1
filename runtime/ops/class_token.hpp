// The op `class_token`: a trained row of channels in front of the positions, as in BERT's and ViT's classifiers.
// A plain value; what a device makes of it is in runtime/cpu/ops and runtime/cuda/ops.
#pragma once

#include "runtime/ops/shape.hpp"

namespace dtrain {

/// x[N, positions..., C] -> y[N, 1 + positions, C]: the weight, then the positions of x as a series. params: weight
/// [C]. Its gradient adds the samples in their order.
struct ClassToken {
  double standard_deviation = 0.02;  // of the row at the start

  std::string_view name() const { return "class_token"; }
  OpShape infer(std::span<const TensorDesc> in) const;
  static std::vector<OpKind<ClassToken>> kinds();
};

}  // namespace dtrain
