// What changes between steps, in one small struct that lives in device memory.
// Before a step the trainer writes the first part; the device keeps the second from step to step and finds the third;
// kernels and updates read it in device memory, and the host reads a copy some steps later: see StepMemory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/device/step_tail.hpp"

namespace dtrain {

/// Floats a block of a norm: what a sum of squares is made of.
inline constexpr std::size_t norm_block = 1024;

/// Floats of the sums of a loss: see LossSum.
inline constexpr std::size_t sums_per_loss = 5;

struct StepState {
  // ---- written by the host before each step
  std::uint64_t step = 0;            // index of this step, from 0
  std::uint64_t seed = 0;            // of the run: keys every draw
  std::uint64_t first_position = 0;  // stream position of the global batch's first sample
  float learning_rate = 0;
  float micro_batches = 1;         // of the step, over all ranks: how many statistics a kept state's sum holds
  std::uint64_t next_samples = 0;  // that the step after this one takes, over all ranks; 0: as many as this one

  // ---- kept by the device; written by the host at the start of a run
  std::uint64_t applied_steps = 0;      // updates applied so far (bias correction counts from 1 + this)
  float loss_scale = 1;                 // gradients of losses are multiplied with it, and divided by it in the update
  std::uint32_t good_steps = 0;         // updates in a row since the loss scale was changed
  double sum_weight = 1;                // gradients are divided by it: see weigh_losses
  double loss_weight[max_losses] = {};  // by loss: the sum of weights over the global batch of this step
  float loss_seed[max_losses] = {1, 1, 1, 1, 1, 1, 1, 1};  // by loss: what its gradients are multiplied with

  // ---- found by the device in this step
  float gradient_scale = 1;                     // clipping: 1 or max_norm / norm
  float grad_norm = 0;                          // of the mean gradient, before clipping
  std::uint32_t nonfinite = 0;                  // a gradient is not finite: the update is skipped
  std::uint32_t nonfinite_block = 0;            // the last block of norm_block gradients with such a one
  double ended_weight[max_losses] = {};         // loss_weight of the step that `sums` are of
  float sums[max_losses * sums_per_loss] = {};  // by loss, over all ranks: LossSums
  StepTail tail = {};                           // summed over all ranks

  /// Bytes of the first part, and of the first two.
  static constexpr std::size_t host_bytes = 40, kept_bytes = 160;
};
static_assert(offsetof(StepState, applied_steps) == StepState::host_bytes &&
              offsetof(StepState, gradient_scale) == StepState::kept_bytes);

/// How the losses of a graph are put together; constant over a run.
struct LossRule {
  std::uint32_t losses = 1;
  std::uint32_t counted = 0;                              // bit k: the tail tells the weight of loss k in the next step
  double factors[max_losses] = {1, 1, 1, 1, 1, 1, 1, 1};  // by loss
  double positions[max_losses] = {};                      // of a sample, by loss: its weight where it is not counted
};

/// The rule of a dynamic loss scale; constant over a run.
struct LossScaling {
  bool dynamic = false;
  std::uint32_t growth_steps = 2000;  // good steps in a row before the scale is doubled
  float initial = 65536, minimum = 1, maximum = 16777216;
};

/// For Kernels::finish_gradients; all pointers are device memory.
struct GradientArgs {
  StepState* step = nullptr;
  const double* squares = nullptr;  // complete Optimizer::block_squares; null: no norm is wanted
  std::size_t blocks = 0;
  double max_norm = 0;  // clip to it; 0: never
};
/// For Kernels::finish_step; all pointers are device memory.
struct FinishArgs {
  StepState* step = nullptr;
  const float* sums = nullptr;  // what lies behind the states, summed over all ranks: LossSums by loss, then StepTail
  LossScaling scaling = {};
  LossRule losses = {};
};

}  // namespace dtrain
