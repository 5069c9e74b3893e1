// What softmax and cross-entropy keep of a row of logits from forward to backward, and the loss that it gives: shared
// by every device. A plain value; a row of the op's saved tensor is one.
#pragma once

#include <cmath>
#include <cstdint>

#include "runtime/ops/activation_math.hpp"

namespace dtrain {

/// What makes the gradient of a row's logits of their e^(x - max).
struct SoftmaxGradient {
  float scale, shift;  // of a class that is not the label: scale * e^(x - max) - shift
  float label;         // of the label
};

/// The largest logit and the sum apart, as one number would lose the digits of the smaller one. The sum is without the
/// term of the label: next to that, it is what a loss near 0 and its gradient consist of.
struct SoftmaxRow {
  static constexpr int floats = 3;
  float max = 0, others = 0;  // others: sum of e^(x - max) of the classes that are not the label
  float own = 0;              // the label's logit; kept, as a gradient may be written over logits

  /// Of all classes.
  DTRAIN_HOST_DEVICE float sum() const { return others + exp_bounded(own - max); }
  DTRAIN_HOST_DEVICE double log_sum() const {
    const auto rest = static_cast<double>(others);
    // Where the label's logit is the largest its term is 1, and the others may be too small to be added to that.
    return own < max ? std::log(rest + static_cast<double>(exp_bounded(own - max))) : std::log1p(rest);
  }
  /// log(sum) - (1 - smoothing) * (own - max) - smoothing * mean + z_loss * (max + log(sum))^2; `mean` is that of
  /// x - max, of all classes.
  DTRAIN_HOST_DEVICE double loss(double smoothing, double mean, double z_loss) const {
    const double below = static_cast<double>(own) - static_cast<double>(max), log = log_sum();
    const double all = static_cast<double>(max) + log;
    const double loss = log - (1.0 - smoothing) * below - smoothing * mean;
    return z_loss > 0 ? loss + z_loss * all * all : loss;
  }
  /// Of `w` times that loss.
  DTRAIN_HOST_DEVICE SoftmaxGradient gradient(float w, double smoothing, double z_loss, std::int64_t classes) const {
    const auto share = static_cast<float>(smoothing / static_cast<double>(classes));
    const auto others_share = static_cast<float>(smoothing - smoothing / static_cast<double>(classes));
    const float scale = w / sum();
    SoftmaxGradient g{scale, w * share, w * others_share - scale * others};
    if (z_loss > 0) {
      const auto pull = static_cast<float>(2.0 * z_loss * (static_cast<double>(max) + log_sum()));
      g.scale += scale * pull;
      g.label += scale * pull * exp_bounded(own - max);
    }
    return g;
  }
};

}  // namespace dtrain
