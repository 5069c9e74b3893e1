// The op `batch_norm`: batch normalization over a micro batch and its positions, with an activation inside.
// A plain value; what a device makes of it is in runtime/cpu/ops and runtime/cuda/ops.
#pragma once

#include "runtime/ops/activation.hpp"
#include "runtime/ops/shape.hpp"

namespace dtrain {

/// params: weight, bias [C] (both spared from decay). state: running mean and variance (the unbiased one), as PyTorch
/// keeps them; evaluation reads them. Training adds the micro batch's statistics to OpArgs::state_sums: the mean over
/// micro batches and ranks moves the running ones once an update. saved: mean and 1 / standard deviation.
struct BatchNorm {
  double epsilon = 1e-5, momentum = 0.1;
  Activation activation = Activation::none;  // one whose derivative_of_output
  double initial_weight = 1;                 // 0 or 1
  bool frozen_statistics = false;            // training reads the running ones, too, and leaves them as they are

  std::string_view name() const { return "batch_norm"; }
  OpShape infer(std::span<const TensorDesc> in) const;
  /// Without bounds; of BatchNormalize, too.
  OpShape shape_of(const TensorDesc& in) const;
  static std::vector<OpKind<BatchNorm>> kinds();
};

}  // namespace dtrain
