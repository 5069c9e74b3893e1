// What changes between steps, in one small struct that lives in device memory.
// The trainer writes it before a step; kernels and updates read it; the host reads results back late.
#pragma once

#include <cstdint>

namespace dtrain {

struct StepState {
  std::uint64_t step = 0;            // index of this step, from 0
  std::uint64_t applied_steps = 0;   // updates applied so far (bias correction counts from 1 + this)
  std::uint64_t seed = 0;            // of the run: keys every draw
  std::uint64_t first_position = 0;  // stream position of the global batch's first sample
  float learning_rate = 0;
  float loss_scale = 1;
  float micro_batches = 1;   // of the step, over all ranks: how many statistics a kept state's sum holds
  float sum_weight = 0;      // over the global batch; gradients are divided by it
  float gradient_scale = 1;  // clipping: 1 or max_norm / norm
  float grad_norm = 0;
  std::uint32_t nonfinite = 0;
};

}  // namespace dtrain
