// Starts the kernels of the mean squared error.
#include "runtime/cuda/ops/mean_squared_error.hpp"

namespace dtrain::cuda {

void squared_error(const Launch& where, Element element, const SquaredErrorPlace& place, bool add, float* out,
                   void* workspace) {
  const std::int64_t parts = loss_parts(place.rows);
  with_element(element, [&](auto tag) {
    with_group(place.values, [&](auto g) {
      using Body = SquaredErrorBody<decltype(tag), g.value>;
      launch_groups(where, parts, Body{{}, place, parts, static_cast<RowLoss*>(workspace)});
    });
  });
  add_losses(where, place.rows, add, out, workspace);
}

void squared_error_gradient(const Launch& where, Element element, const SquaredErrorPlace& place, const StepState* step,
                            int loss, Slot gradient) {
  with_element(element, [&](auto tag) {
    with_group(place.values, [&](auto g) {
      using Body = SquaredErrorGradientBody<decltype(tag), g.value>;
      launch_groups(where, place.rows, Body{{}, place, step, loss, gradient});
    });
  });
}

}  // namespace dtrain::cuda
