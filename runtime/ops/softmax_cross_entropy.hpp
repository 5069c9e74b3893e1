// The loss `softmax_cross_entropy`: softmax and cross-entropy over classes.
// A plain value; what a device makes of it is in runtime/cpu/ops and runtime/cuda/ops.
#pragma once

#include <span>
#include <string_view>

#include "runtime/ops/shape.hpp"

namespace dtrain {

/// in: f32 logits [N, classes], labels i32 [N], weight f32 [N]. out: sums, f32 [loss_sum_count] (see LossSum). A loss
/// is a sum and a weight: sum over samples of weight * (log-sum-exp - (1 - s) * logit of the label - s * mean of the
/// logits), s the label smoothing. Gradients are of the sum times StepState::loss_scale; the update divides by that and
/// the sum of weights.
struct SoftmaxCrossEntropy {
  double label_smoothing = 0;

  std::string_view name() const { return "softmax_cross_entropy"; }
  OpShape infer(std::span<const TensorDesc> in) const;
};

}  // namespace dtrain
