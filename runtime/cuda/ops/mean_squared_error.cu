// Starts the kernels of the mean squared error.
#include "runtime/cuda/ops/mean_squared_error.hpp"

namespace dtrain::cuda {

void squared_error(const Launch& where, Element element, const SquaredErrorPlace& place, bool add, float* out,
                   void* workspace) {
  sum_losses<SquaredErrorBody>(where, element, place, add, out, workspace);
}

void squared_error_gradient(const Launch& where, Element element, const SquaredErrorPlace& place, const StepState* step,
                            int loss, Slot gradient) {
  for_loss_rows<SquaredErrorGradientBody>(where, element, place, step, loss, gradient);
}

}  // namespace dtrain::cuda
