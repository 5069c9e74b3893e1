// Starts the kernels of softmax and cross-entropy.
#include "runtime/cuda/ops/softmax_cross_entropy.hpp"

namespace dtrain::cuda {

void cross_entropy(const Launch& where, Element element, const CrossEntropyPlace& place, bool add, float* out,
                   void* workspace) {
  sum_losses<CrossEntropyBody>(where, element, place, add, out, workspace);
}

void cross_entropy_gradient(const Launch& where, Element element, const CrossEntropyPlace& place, const StepState* step,
                            int loss, Slot gradient) {
  for_loss_rows<CrossEntropyGradientBody>(where, element, place, step, loss, gradient);
}

}  // namespace dtrain::cuda
