// The op `batch_normalize`: batch normalization by moments that all ranks have summed.
// A plain value, made by the builder: SyncBatchNorm is BatchMoments -> SumOverRanks -> BatchNormalize.
#pragma once

#include "runtime/ops/batch_norm.hpp"

namespace dtrain {

/// in: x, moments. Otherwise as BatchNorm; backward gives gradients of x (moments held) and of the moments.
struct BatchNormalize {
  double epsilon = 1e-5, momentum = 0.1;
  Activation activation = Activation::none;
  double initial_weight = 1;

  BatchNorm settings() const { return {epsilon, momentum, activation, initial_weight}; }
  std::string_view name() const { return "batch_normalize"; }
  OpShape infer(std::span<const TensorDesc> in) const;
};

}  // namespace dtrain
