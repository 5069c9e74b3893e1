// What softmax and cross-entropy keep of a row of logits from forward to backward, and the loss that it gives: shared
// by every device. A plain value; a row of the op's saved tensor is one.
#pragma once

#include <cmath>

#include "runtime/ops/activation_math.hpp"

namespace dtrain {

/// The largest logit and the sum apart, as one number would lose the digits of the smaller one. The sum is without the
/// term of the label: next to that, it is what a loss near 0 and its gradient consist of.
struct SoftmaxRow {
  float max = 0, others = 0;  // others: sum of e^(x - max) of the classes that are not the label

  /// Of all classes; `own` is the label's logit.
  DTRAIN_HOST_DEVICE float sum(float own) const { return others + exp_bounded(own - max); }
  /// log(sum) - (1 - smoothing) * (own - max) - smoothing * mean; `mean` is that of x - max, of all classes.
  DTRAIN_HOST_DEVICE double loss(float own, double smoothing, double mean) const {
    const auto rest = static_cast<double>(others);
    const double below = static_cast<double>(own) - static_cast<double>(max);
    // Where the label's logit is the largest its term is 1, and the others may be too small to be added to that.
    const double log_sum = below < 0 ? std::log(rest + static_cast<double>(exp_bounded(own - max))) : std::log1p(rest);
    return log_sum - (1.0 - smoothing) * below - smoothing * mean;
  }
};

}  // namespace dtrain
