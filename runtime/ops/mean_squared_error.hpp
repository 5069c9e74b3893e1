// The loss `mean_squared_error`: the mean of squared differences, at each position.
// A plain value; what a device makes of it is in runtime/cpu/ops and runtime/cuda/ops.
#pragma once

#include "runtime/ops/shape.hpp"

namespace dtrain {

/// in: prediction [N, positions..., D], target f32 of the same shape, weight f32 [N] or [N, positions...]. Sum over
/// positions of weight * mean over D of the squared difference, in float32 whatever the prediction is. out: as of
/// SoftmaxCrossEntropy.
struct MeanSquaredError {
  std::string_view name() const { return "mean_squared_error"; }
  OpShape infer(std::span<const TensorDesc> in) const;
};

}  // namespace dtrain
