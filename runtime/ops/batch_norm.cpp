#include "runtime/ops/batch_norm.hpp"

#include <fmt/format.h>

#include "runtime/ops/inference.hpp"
#include "runtime/ops/kinds.hpp"

namespace dtrain {

using namespace inference;

OpShape BatchNorm::shape_of(const TensorDesc& x) const {
  expect_channels(x);
  expect_epilogue(activation);
  if (!(epsilon > 0) || !(momentum >= 0 && momentum <= 1))
    throw ShapeError(
        fmt::format("epsilon {} and momentum {}; expected epsilon > 0 and 0 <= momentum <= 1", epsilon, momentum));
  const TensorDesc row = f32(Shape{x.channels()});
  OpShape shape;
  shape.out = {x};
  Init weight{Init::Kind::ones, 0};
  if (initial_weight == 0) weight.kind = Init::Kind::zeros;
  shape.params = {{"weight", row, weight, false}, {"bias", row, {}, false}};
  const double moved = frozen_statistics ? 0 : momentum;
  shape.state = {{"running_mean", row, 0.0f, moved}, {"running_variance", row, 1.0f, moved}};
  shape.saved = {row, row};
  shape.backward_reads = {1, activation == Activation::none ? 0u : 1u};
  // Data gradients are made element by element from the sums that the parameters' gradients are.
  shape.may_share = {{Alias::Kind::grad_over_grad, 0, 0}};
  shape.backward_at_once = true;
  shape.cheap = true;
  shape.flops = 4.0 * static_cast<double>(x.elements());
  return shape;
}

OpShape BatchNorm::infer(std::span<const TensorDesc> in) const {
  expect_inputs(name(), in, 1);
  OpShape shape = shape_of(in[0]);
  if (in[0].rows() < 2 && !frozen_statistics) {
    throw ShapeError(
        fmt::format("its input {} has one value a channel, which has no variance; expected a micro batch "
                    "of at least 2",
                    in[0].sample_str()));
  }
  shape.bounds = line_bounds(in[0], true);
  return shape;
}

std::vector<OpKind<BatchNorm>> BatchNorm::kinds() {
  Table<BatchNorm> table(
      "Batch normalization of each channel or feature; evaluation uses running statistics. See model.batch_norm.");
  table.add("epsilon", &BatchNorm::epsilon, number({0, 1, true}), "added to the variance");
  table.add("momentum", &BatchNorm::momentum, number({0, 1}), "weight of a step's in running statistics");
  table.add("activation", &BatchNorm::activation, activation_type(), "applied to the result");
  return {{"batch_norm", std::move(table)}};
}

}  // namespace dtrain
