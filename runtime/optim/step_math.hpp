// What a step's update hangs on, decided from the sums of squares: shared by every device.
// Free functions that own nothing; a device runs each once a step, in one thread.
#pragma once

#include <cmath>

#include "runtime/device/step_state.hpp"
#include "runtime/random/rng.hpp"

namespace dtrain {

/// `squares`: of the raw sums of gradients. A square of a float does not overflow in double, so that the sum is finite
/// if and only if all gradients are. `nonfinite_block`: the last block whose sum is not, where there is one.
DTRAIN_HOST_DEVICE inline void judge_gradients(StepState& s, double squares, std::uint32_t nonfinite_block,
                                               double max_norm) {
  s.nonfinite = squares - squares == 0 ? 0 : 1;
  s.nonfinite_block = nonfinite_block;
  s.grad_norm = static_cast<float>(std::sqrt(squares) / (s.sum_weight * static_cast<double>(s.loss_scale)));
  s.gradient_scale = max_norm > 0 && static_cast<double>(s.grad_norm) > max_norm
                         ? static_cast<float>(max_norm / static_cast<double>(s.grad_norm))
                         : 1.0f;
}
/// Where no norm is wanted.
DTRAIN_HOST_DEVICE inline void trust_gradients(StepState& s) {
  s.nonfinite = 0;
  s.gradient_scale = 1;
}

/// What the gradients of each loss are multiplied with, and what all are divided by in the update, from the weights of
/// the step: so loss k gives factor * its gradient / its weight. One loss of factor 1 is multiplied with 1.
DTRAIN_HOST_DEVICE inline void weigh_losses(StepState& s, const LossRule& rule) {
  s.sum_weight = 1;
  for (std::uint32_t k = rule.losses; k-- > 0;)
    if (s.loss_weight[k] > 0) s.sum_weight = s.loss_weight[k];
  for (std::uint32_t k = 0; k < rule.losses; ++k)
    s.loss_seed[k] =
        s.loss_weight[k] > 0 ? static_cast<float>(rule.factors[k] * (s.sum_weight / s.loss_weight[k])) : 0.0f;
}

/// After everything that reads the step's state: counts the update, moves the loss scale, keeps the sums for the host
/// and takes the weights of the next step from the tail, or from the number of its samples.
DTRAIN_HOST_DEVICE inline void close_step(StepState& s, const float* sums, const LossScaling& scaling,
                                          const LossRule& losses) {
  for (std::uint32_t i = 0; i < losses.losses * sums_per_loss; ++i) s.sums[i] = sums[i];
  const float* tail = sums + losses.losses * sums_per_loss;
  s.tail.stop = tail[0];
  s.tail.joules = tail[1];
  s.tail.joules_samples = tail[2];
  const float* next = tail + StepTail::floats(0);
  for (std::uint32_t k = 0; k < losses.losses; ++k) {
    s.ended_weight[k] = s.loss_weight[k];
    if ((losses.counted >> k & 1u) == 0) {
      if (s.next_samples > 0) s.loss_weight[k] = static_cast<double>(s.next_samples) * losses.positions[k];
      continue;
    }
    s.loss_weight[k] = join_weight(next);
    next += weight_limbs;
  }
  if (losses.counted != 0 || s.next_samples > 0) weigh_losses(s, losses);
  if (s.nonfinite == 0) ++s.applied_steps;
  if (!scaling.dynamic) return;
  if (s.nonfinite != 0) {
    const float lower = s.loss_scale * 0.5f;
    s.loss_scale = lower < scaling.minimum ? scaling.minimum : lower;
    s.good_steps = 0;
  } else if (++s.good_steps >= scaling.growth_steps) {
    const float higher = s.loss_scale * 2.0f;
    s.loss_scale = higher > scaling.maximum ? scaling.maximum : higher;
    s.good_steps = 0;
  }
}

/// What a step came to: the sum over the losses of factor * sum / weight; without any weight 0.
inline double step_loss(const StepState& done, const LossRule& rule) {
  double loss = 0;
  for (std::uint32_t k = 0; k < rule.losses; ++k)
    if (done.ended_weight[k] > 0)
      loss += rule.factors[k] * (static_cast<double>(done.sums[k * sums_per_loss]) / done.ended_weight[k]);
  return loss;
}

/// By how much of the distance a moving average of the parameters goes towards them. The first update takes them as
/// they are, as PyTorch's AveragedModel does; after t updates the decay is at most (1 + t) / (10 + t), so that the
/// average of a short run is not of its first steps.
DTRAIN_HOST_DEVICE inline float average_rate(double decay, const StepState& s) {
  if (s.applied_steps == 0) return 1.0f;
  const auto t = static_cast<double>(s.applied_steps);
  const double most = (1.0 + t) / (10.0 + t);
  return static_cast<float>(1.0 - (decay < most ? decay : most));
}

}  // namespace dtrain
