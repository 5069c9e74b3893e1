// One element of an optimizer update, shared by every device: PyTorch's formulas in float.
// Free functions that own nothing; constants are worked out once an update where the step's state lies, in double.
#pragma once

#include <cmath>
#include <cstdint>

#include "runtime/device/step_state.hpp"
#include "runtime/optim/rules.hpp"
#include "runtime/random/rng.hpp"

namespace dtrain {

/// What the raw sum of gradients is multiplied with: its mean over the global batch, clipped.
DTRAIN_HOST_DEVICE inline float gradient_factor(const StepState& s) {
  const double divisor = s.sum_weight * static_cast<double>(s.loss_scale);
  return divisor > 0 ? static_cast<float>(static_cast<double>(s.gradient_scale) / divisor) : 0.0f;
}

struct SgdConstants {
  float factor, learning_rate, momentum, decay;
  DTRAIN_HOST_DEVICE SgdConstants(const Sgd& o, const StepState& s, bool decayed)
      : factor(gradient_factor(s)),
        learning_rate(s.learning_rate),
        momentum(static_cast<float>(o.momentum)),
        decay(decayed ? static_cast<float>(o.weight_decay) : 0.0f) {}
};

DTRAIN_HOST_DEVICE inline void sgd_plain(const SgdConstants& c, float gradient, float& w) {
  w -= c.learning_rate * (gradient * c.factor + c.decay * w);
}
DTRAIN_HOST_DEVICE inline void sgd_momentum(const SgdConstants& c, float gradient, float& w, float& m) {
  m = c.momentum * m + (gradient * c.factor + c.decay * w);
  w -= c.learning_rate * m;
}
DTRAIN_HOST_DEVICE inline void sgd_nesterov(const SgdConstants& c, float gradient, float& w, float& m) {
  const float g = gradient * c.factor + c.decay * w;
  m = c.momentum * m + g;
  w -= c.learning_rate * (g + c.momentum * m);
}

/// A running statistic: r + momentum * (mean of the step's statistics - r).
DTRAIN_HOST_DEVICE inline void running_statistic(float momentum, float inverse_count, float sum, float& r) {
  r += momentum * (sum * inverse_count - r);
}

/// Adam and AdamW: the decay goes into the gradient (l2) or straight off the weight (shrink).
struct AdamConstants {
  float factor, l2, shrink, step_size, beta1_rest, beta2, beta2_rest, inverse_root, epsilon;
  template <class Rule>
  DTRAIN_HOST_DEVICE AdamConstants(const Rule& o, const StepState& s, double l2_decay, double decoupled_decay)
      : factor(gradient_factor(s)),
        l2(static_cast<float>(l2_decay)),
        shrink(static_cast<float>(1.0 - static_cast<double>(s.learning_rate) * decoupled_decay)),
        beta1_rest(static_cast<float>(1.0 - o.beta1)),
        beta2(static_cast<float>(o.beta2)),
        beta2_rest(static_cast<float>(1.0 - o.beta2)),
        epsilon(static_cast<float>(o.epsilon)) {
    const double t = static_cast<double>(s.applied_steps) + 1.0;
    step_size = static_cast<float>(static_cast<double>(s.learning_rate) / (1.0 - std::pow(o.beta1, t)));
    inverse_root = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(o.beta2, t)));
  }
};

DTRAIN_HOST_DEVICE inline void adam(const AdamConstants& c, float gradient, float& w, float& m, float& v) {
  const float g = gradient * c.factor + c.l2 * w;
  m += (g - m) * c.beta1_rest;
  v = c.beta2 * v + c.beta2_rest * g * g;
  w = c.shrink * w - c.step_size * m / (std::sqrt(v) * c.inverse_root + c.epsilon);
}

/// LARS for one parameter: `rate` is the learning rate with the parameter's ratio.
struct LarsConstants {
  float factor, rate, momentum, decay;
  DTRAIN_HOST_DEVICE LarsConstants(float factor_in, float rate_in, float momentum_in, float decay_in)
      : factor(factor_in), rate(rate_in), momentum(momentum_in), decay(decay_in) {}
  /// Norms of the parameter and of its gradient (not scaled yet).
  DTRAIN_HOST_DEVICE LarsConstants(const Lars& o, const StepState& s, bool decayed, double w_norm, double g_norm)
      : factor(gradient_factor(s)),
        rate(s.learning_rate),
        momentum(static_cast<float>(o.momentum)),
        decay(decayed ? static_cast<float>(o.weight_decay) : 0.0f) {
    const double g = g_norm * static_cast<double>(factor);
    if (decayed && w_norm > 0 && g > 0)
      rate = static_cast<float>(static_cast<double>(s.learning_rate) * o.trust_coefficient * w_norm /
                                (g + o.weight_decay * w_norm + o.epsilon));
  }
};
DTRAIN_HOST_DEVICE inline void lars_plain(const LarsConstants& c, float gradient, float& w) {
  w -= c.rate * (gradient * c.factor + c.decay * w);
}
DTRAIN_HOST_DEVICE inline void lars_momentum(const LarsConstants& c, float gradient, float& w, float& m) {
  m = c.momentum * m + c.rate * (gradient * c.factor + c.decay * w);
  w -= m;
}
DTRAIN_HOST_DEVICE inline void lars_nesterov(const LarsConstants& c, float gradient, float& w, float& m) {
  const float u = c.rate * (gradient * c.factor + c.decay * w);
  m = c.momentum * m + u;
  w -= c.momentum * m + u;
}

/// LAMB in two passes: moments, whose direction gives a norm; then the step along it.
struct LambConstants {
  float factor, beta1_rest, beta2, beta2_rest, inverse_rest, inverse_root, epsilon, decay;
  DTRAIN_HOST_DEVICE LambConstants(const Lamb& o, const StepState& s, bool decayed)
      : factor(gradient_factor(s)),
        beta1_rest(static_cast<float>(1.0 - o.beta1)),
        beta2(static_cast<float>(o.beta2)),
        beta2_rest(static_cast<float>(1.0 - o.beta2)),
        epsilon(static_cast<float>(o.epsilon)),
        decay(decayed ? static_cast<float>(o.weight_decay) : 0.0f) {
    const double t = static_cast<double>(s.applied_steps) + 1.0;
    inverse_rest = static_cast<float>(1.0 / (1.0 - std::pow(o.beta1, t)));
    inverse_root = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(o.beta2, t)));
  }
};
DTRAIN_HOST_DEVICE inline void lamb_moments(const LambConstants& c, float gradient, float& m, float& v) {
  const float g = gradient * c.factor;
  m += (g - m) * c.beta1_rest;
  v = c.beta2 * v + c.beta2_rest * g * g;
}
DTRAIN_HOST_DEVICE inline float lamb_direction(const LambConstants& c, float w, float m, float v) {
  return m * c.inverse_rest / (std::sqrt(v) * c.inverse_root + c.epsilon) + c.decay * w;
}

/// Muon in steps: the direction, whose matrix is made orthogonal (newton_schulz); then the step along it.
struct MuonDirection {
  float factor, momentum, rest;
  bool nesterov;
  DTRAIN_HOST_DEVICE MuonDirection(const Muon& o, const StepState& s)
      : factor(gradient_factor(s)),
        momentum(static_cast<float>(o.momentum)),
        rest(static_cast<float>(1.0 - o.momentum)),
        nesterov(o.nesterov) {}
  DTRAIN_HOST_DEVICE float operator()(float gradient, float& m) const {
    const float g = gradient * factor;
    m += (g - m) * rest;
    return nesterov ? g + momentum * (m - g) : m;
  }
};
/// What the direction is multiplied with before the first product.
DTRAIN_HOST_DEVICE inline float muon_norm_factor(const Muon& o, double norm) {
  return static_cast<float>(1.0 / (norm > o.epsilon ? norm : o.epsilon));
}
/// An element of a I + b g + c g g.
DTRAIN_HOST_DEVICE inline float newton_schulz_factor(bool diagonal, float g, float square) {
  return (diagonal ? newton_schulz::a : 0.0f) + newton_schulz::b * g + newton_schulz::c * square;
}
struct MuonStep {
  float shrink, rate;
  DTRAIN_HOST_DEVICE MuonStep(const Muon& o, const StepState& s, double decay, std::int64_t rows,
                              std::int64_t columns) {
    const auto learning_rate = static_cast<double>(s.learning_rate);
    const auto r = static_cast<double>(rows), c = static_cast<double>(columns);
    const double scale =
        o.scale == Muon::Scale::original ? std::sqrt(r > c ? r / c : 1.0) : 0.2 * std::sqrt(r > c ? r : c);
    shrink = static_cast<float>(1.0 - learning_rate * decay);
    rate = static_cast<float>(learning_rate * scale);
  }
  DTRAIN_HOST_DEVICE void operator()(float orthogonal, float& w) const { w = shrink * w - rate * orthogonal; }
};
/// The rate of what goes by AdamW, as a multiple of the matrices'.
DTRAIN_HOST_DEVICE inline float muon_adamw_factor(const Muon& o) {
  return static_cast<float>(o.adamw.learning_rate / o.learning_rate);
}

/// One element of a moving average, as PyTorch's lerp.
DTRAIN_HOST_DEVICE inline void move_average(float rate, float w, float& average) {
  average += rate * (w - average);
}

}  // namespace dtrain
