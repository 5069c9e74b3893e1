// The op `global_avgpool`: the mean of each channel over all positions of a sample.
// A plain value; what a device makes of it is in runtime/cpu/ops and runtime/cuda/ops.
#pragma once

#include "runtime/ops/shape.hpp"

namespace dtrain {

/// x[N, positions..., C] -> [N, 1..., C].
struct GlobalAveragePool {
  std::string_view name() const { return "global_avgpool"; }
  OpShape infer(std::span<const TensorDesc> in) const;
  static std::vector<OpKind<GlobalAveragePool>> kinds();
};

}  // namespace dtrain
