// StepTail: what ranks tell each other with each step beside gradients and sums of losses, as floats that are added up.
// A plain value; it travels behind the sums of the losses in the last bucket, and each rank's host writes its own.
#pragma once

#include <cstddef>

#include "runtime/device/weight_sum.hpp"

namespace dtrain {

/// Losses of a graph, at most.
inline constexpr std::size_t max_losses = 8;

struct StepTail {
  float stop = 0;                                 // rank was asked to stop
  float joules = 0, joules_samples = 0;           // the rank's GPU has used so much energy for so many samples
  float weights[max_losses * weight_limbs] = {};  // of the next step, by counted loss: see split_weight

  /// What travels where so many losses are counted: the first floats of the struct.
  static constexpr std::size_t floats(std::size_t counted) noexcept { return 3 + counted * weight_limbs; }
};
static_assert(sizeof(StepTail) == StepTail::floats(max_losses) * sizeof(float));

}  // namespace dtrain
