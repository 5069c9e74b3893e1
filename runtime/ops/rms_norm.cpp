#include "runtime/ops/rms_norm.hpp"

#include <fmt/format.h>

#include "runtime/ops/inference.hpp"
#include "runtime/ops/kinds.hpp"

namespace dtrain {

using namespace inference;

OpShape RmsNorm::infer(std::span<const TensorDesc> in) const {
  expect_inputs(name(), in, 1);
  const TensorDesc& x = in[0];
  expect_channels(x);
  if (!(epsilon > 0)) throw ShapeError(fmt::format("epsilon {}; expected more than 0", epsilon));
  OpShape shape;
  shape.out = {x};
  shape.params = {{"weight", f32(Shape{x.channels()}), {Init::Kind::ones, 0}, false}};
  shape.saved = {f32(Shape{x.rows()})};
  shape.backward_reads = {1, 0};
  shape.may_share = {{Alias::Kind::grad_over_grad, 0, 0}};
  shape.backward_at_once = true;
  shape.cheap = true;
  shape.flops = 4.0 * static_cast<double>(x.elements());
  shape.bounds = line_bounds(x, false);
  return shape;
}

std::vector<OpKind<RmsNorm>> RmsNorm::kinds() {
  Table<RmsNorm> table("Divides the features, or the channels of each position, by the root of their mean square.");
  table.add("epsilon", &RmsNorm::epsilon, number({0, 1, true}), "added to the mean square");
  return {{"rms_norm", std::move(table)}};
}

}  // namespace dtrain
