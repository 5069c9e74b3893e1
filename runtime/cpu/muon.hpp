// Muon's update of one parameter on the CPU: its direction, made orthogonal by oneDNN's products, and the step.
// A function that owns nothing; runs on the calling thread with `threads` OpenMP threads, on whose number the bits of a
// product depend.
#pragma once

#include "runtime/device/step_state.hpp"
#include "runtime/optim/rules.hpp"
#include "runtime/plan/flat.hpp"

namespace dtrain::cpu {

/// A parameter with matrices: values, gradients and first moments from its first float on.
struct MuonParameter {
  const FlatParam& param;
  float* w;
  const float* g;
  float* m;
};
/// `scratch`: matrix_scratch() bytes; `norms`: a double for each norm block of the parameter.
void update_matrices(const Muon&, const StepState&, double decay, const MuonParameter&, void* scratch, double* norms,
                     int threads);

}  // namespace dtrain::cpu
