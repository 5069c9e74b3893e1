// The loss `mean_squared_error`: the mean of squared differences.
// A plain value; what a device makes of it is in runtime/cpu/ops and runtime/cuda/ops.
#pragma once

#include <span>
#include <string_view>

#include "runtime/ops/shape.hpp"

namespace dtrain {

/// in: f32 prediction [N, D], target f32 [N, D], weight f32 [N]. Sum over samples of weight * mean over D of the
/// squared difference. out: as of SoftmaxCrossEntropy.
struct MeanSquaredError {
  std::string_view name() const { return "mean_squared_error"; }
  OpShape infer(std::span<const TensorDesc> in) const;
};

}  // namespace dtrain
