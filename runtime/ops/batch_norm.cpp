#include "runtime/ops/batch_norm.hpp"

#include <fmt/format.h>

#include "runtime/ops/inference.hpp"
#include "runtime/ops/kinds.hpp"

namespace dtrain {

using namespace inference;

OpShape BatchNorm::infer(std::span<const TensorDesc> in) const {
  expect_inputs(name(), in, 1);
  OpShape shape = inference::batch_norm({epsilon, momentum, activation, initial_weight}, in[0]);
  if (in[0].rows() < 2) {
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
