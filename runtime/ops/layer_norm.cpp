#include "runtime/ops/layer_norm.hpp"

#include <fmt/format.h>

#include "runtime/ops/inference.hpp"
#include "runtime/ops/kinds.hpp"

namespace dtrain {

using namespace inference;

OpShape LayerNorm::infer(std::span<const TensorDesc> in) const {
  expect_inputs(name(), in, 1);
  const TensorDesc& x = in[0];
  expect_channels(x);
  if (!(epsilon > 0)) throw ShapeError(fmt::format("epsilon {}; expected more than 0", epsilon));
  const TensorDesc row = f32(Shape{x.rows()}), channel = f32(Shape{x.channels()});
  OpShape shape;
  shape.out = {x};
  shape.params = {{"weight", channel, {Init::Kind::ones, 0}, false}, {"bias", channel, {}, false}};
  shape.saved = {row, row};
  shape.backward_reads = {1, 0};
  shape.may_share = {{Alias::Kind::grad_over_grad, 0, 0}};
  shape.backward_at_once = true;
  shape.cheap = true;
  shape.flops = 6.0 * static_cast<double>(x.elements());
  shape.bounds = line_bounds(x, true);
  return shape;
}

std::vector<OpKind<LayerNorm>> LayerNorm::kinds() {
  Table<LayerNorm> table("Layer normalization over the features, or over the channels of each position.");
  table.add("epsilon", &LayerNorm::epsilon, number({0, 1, true}), "added to the variance");
  return {{"layer_norm", std::move(table)}};
}

}  // namespace dtrain
