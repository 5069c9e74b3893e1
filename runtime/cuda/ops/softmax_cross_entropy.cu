// Starts the kernels of softmax and cross-entropy.
#include "runtime/cuda/ops/softmax_cross_entropy.hpp"

namespace dtrain::cuda {

void cross_entropy(const Launch& where, Element element, const CrossEntropyPlace& place, bool add, float* out,
                   void* workspace) {
  const std::int64_t parts = loss_parts(place.rows);
  with_element(element, [&](auto tag) {
    with_group(place.classes, [&](auto g) {
      using Body = CrossEntropyBody<decltype(tag), g.value>;
      launch_groups(where, parts, Body{{}, place, parts, static_cast<RowLoss*>(workspace)});
    });
  });
  add_losses(where, place.rows, add, out, workspace);
}

void cross_entropy_gradient(const Launch& where, Element element, const CrossEntropyPlace& place, const StepState* step,
                            int loss, Slot gradient) {
  with_element(element, [&](auto tag) {
    with_group(place.classes, [&](auto g) {
      using Body = CrossEntropyGradientBody<decltype(tag), g.value>;
      launch_groups(where, place.rows, Body{{}, place, step, loss, gradient});
    });
  });
}

}  // namespace dtrain::cuda
