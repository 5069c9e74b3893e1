// What a step's update hangs on, decided from the sums of squares: shared by every device.
// Free functions that own nothing; a device runs each once a step, in one thread.
#pragma once

#include <cmath>
#include <cstddef>

#include "runtime/device/step_state.hpp"
#include "runtime/random/rng.hpp"

namespace dtrain {

/// `squares`: of the raw sums of gradients. A square of a float does not overflow in double, so that the sum is finite
/// if and only if all gradients are. `nonfinite_block`: the last block whose sum is not, where there is one.
DTRAIN_HOST_DEVICE inline void judge_gradients(StepState& s, double squares, std::uint32_t nonfinite_block,
                                               double max_norm) {
  s.nonfinite = squares - squares == 0 ? 0 : 1;
  s.nonfinite_block = nonfinite_block;
  s.grad_norm =
      static_cast<float>(std::sqrt(squares) / (static_cast<double>(s.sum_weight) * static_cast<double>(s.loss_scale)));
  s.gradient_scale = max_norm > 0 && static_cast<double>(s.grad_norm) > max_norm
                         ? static_cast<float>(max_norm / static_cast<double>(s.grad_norm))
                         : 1.0f;
}
/// Where no norm is wanted.
DTRAIN_HOST_DEVICE inline void trust_gradients(StepState& s) {
  s.nonfinite = 0;
  s.gradient_scale = 1;
}

/// After everything that reads the step's state: counts the update, moves the loss scale, keeps the sums for the host.
DTRAIN_HOST_DEVICE inline void close_step(StepState& s, const float* sums, const LossScaling& rule) {
  for (std::size_t i = 0; i < StepState::sum_count; ++i) s.sums[i] = sums[i];
  if (s.nonfinite == 0) ++s.applied_steps;
  if (!rule.dynamic) return;
  if (s.nonfinite != 0) {
    const float lower = s.loss_scale * 0.5f;
    s.loss_scale = lower < rule.minimum ? rule.minimum : lower;
    s.good_steps = 0;
  } else if (++s.good_steps >= rule.growth_steps) {
    const float higher = s.loss_scale * 2.0f;
    s.loss_scale = higher > rule.maximum ? rule.maximum : higher;
    s.good_steps = 0;
  }
}

/// By how much of the distance a moving average of the parameters goes towards them. The first update takes them as
/// they are, as PyTorch's AveragedModel does.
DTRAIN_HOST_DEVICE inline float average_rate(double decay, const StepState& s) {
  return s.applied_steps == 0 ? 1.0f : static_cast<float>(1.0 - decay);
}

}  // namespace dtrain
