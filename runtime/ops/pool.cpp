#include "runtime/ops/pool.hpp"

#include <fmt/format.h>

namespace dtrain {

Extents pool_steps(const Extents& size, const Extents& stride) {
  Extents steps = stride;
  for (std::size_t d = 0; d < steps.size(); ++d)
    if (steps[d] == 0) steps[d] = size[d];
  return steps;
}

OpShape pooled(const TensorDesc& in, const Extents& size, const Extents& steps, const Extents& padding) {
  const inference::WindowSizes windows{"window", size, steps, padding, Extents::all(size.size(), 1)};
  OpShape shape;
  shape.out = {inference::with_positions(in, windows.count(in))};
  for (std::size_t d = 0; d < size.size(); ++d)
    if (2 * padding[d] > size[d])
      throw ShapeError(fmt::format("padding {} is more than half of the window {}", padding[d], size[d]));
  shape.cheap = true;
  shape.flops = static_cast<double>(shape.out[0].elements() * size.product());
  shape.bounds.workspace = inference::library_workspace(in.bytes());
  return shape;
}

}  // namespace dtrain
