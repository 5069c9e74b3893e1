#include "runtime/ops/dense.hpp"

#include <fmt/format.h>

#include "runtime/ops/inference.hpp"
#include "runtime/ops/kinds.hpp"

namespace dtrain {

using namespace inference;

OpShape Dense::infer(std::span<const TensorDesc> in) const {
  expect_inputs(name(), in, 1);
  const TensorDesc& x = in[0];
  expect_float(x);
  expect_epilogue(activation);
  if (units < 1) throw ShapeError(fmt::format("{} units; expected at least 1", units));
  if (x.shape.rank() < 2 || (x.shape.rank() > 3 && !per_position)) {
    throw ShapeError(
        fmt::format("its input has shape {}; expected [features] or [length, channels]: put `- flatten` "
                    "before it, or say per_position: true",
                    x.sample_str()));
  }
  OpShape shape;
  shape.out = {with_channels(x, units)};
  add_affine_params(shape, Shape{units, x.channels()}, x.channels(), units, bias, init);
  shape.backward_reads = {1, activation == Activation::none ? 0u : 1u};
  shape.epilogue = activation != Activation::none;
  shape.flops = 2.0 * static_cast<double>(x.elements()) * static_cast<double>(units);
  shape.bounds.workspace = 2 * parameter_bytes(shape);
  return shape;
}

std::vector<OpKind<Dense>> Dense::kinds() {
  Table<Dense> table("Fully connected: [features] to [units], of a series at each position.");
  table.add("units", &Dense::units, at_least(1), "outputs").required();
  table.add("bias", &Dense::bias, boolean(), "add a trained constant a unit");
  table.add("activation", &Dense::activation, activation_type(), "applied to the result");
  table.add("per_position", &Dense::per_position, boolean(), "of an image or volume: at each pixel")
      .shown_if([](const Dense& op) { return op.per_position; });
  return {{"dense", std::move(table)}};
}

}  // namespace dtrain
