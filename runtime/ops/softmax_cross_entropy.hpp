// The loss `softmax_cross_entropy`: softmax and cross-entropy over classes, at each position.
// A plain value; what a device makes of it is in runtime/cpu/ops and runtime/cuda/ops.
#pragma once

#include <optional>

#include "runtime/ops/shape.hpp"

namespace dtrain {

/// in: logits [N, positions..., classes], labels i32, u16 or u8 [N, positions...], weight f32 [N] (of all positions of
/// a sample) or [N, positions...]. out: sums, f32 [loss_sum_count] (see LossSum). A loss is a sum and a weight: sum
/// over positions of weight * (log-sum-exp - (1 - s) * logit of the label - s * mean of the logits + z *
/// log-sum-exp^2), s the label smoothing and z the z-loss (Chowdhery et al. 2022), in float32 whatever the logits are,
/// but taken from the largest of them, so that neither large logits nor a small loss costs digits. Positions of weight
/// 0 or with the label `ignore` take part in nothing; another label that is no class makes the sum NaN. Gradients are
/// of the sum times StepState::loss_scale and loss_seed; the update divides by that scale and StepState::sum_weight.
struct SoftmaxCrossEntropy {
  double label_smoothing = 0;
  std::optional<std::int64_t> ignore = {};
  double z_loss = 0;

  std::string_view name() const { return "softmax_cross_entropy"; }
  OpShape infer(std::span<const TensorDesc> in) const;
};

}  // namespace dtrain
