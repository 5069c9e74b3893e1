#include "runtime/ops/global_average_pool.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "runtime/ops/inference.hpp"
#include "runtime/ops/kinds.hpp"

namespace dtrain {

using namespace inference;

OpShape GlobalAveragePool::infer(std::span<const TensorDesc> in) const {
  expect_inputs(name(), in, 1);
  const TensorDesc& x = in[0];
  expect_channels(x);
  if (x.shape.rank() < 3)
    throw ShapeError(
        fmt::format("its input has shape {}; expected [channels, height, width], [length, channels] or "
                    "[channels, depth, height, width]",
                    x.sample_str()));
  OpShape shape;
  shape.out = {with_positions(x, Extents::all(positions_of(x).size(), 1))};
  shape.cheap = true;
  shape.flops = static_cast<double>(x.elements());
  shape.bounds = sample_line_bounds(x);
  shape.bounds.workspace = std::max(shape.bounds.workspace, library_workspace(x.bytes()));
  return shape;
}

std::vector<OpKind<GlobalAveragePool>> GlobalAveragePool::kinds() {
  return {{"global_avgpool", Table<GlobalAveragePool>("Mean of each channel: [C, H, W] to [C, 1, 1].")}};
}

}  // namespace dtrain
