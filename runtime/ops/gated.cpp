#include "runtime/ops/gated.hpp"

#include <fmt/format.h>

#include "runtime/ops/inference.hpp"
#include "runtime/ops/kinds.hpp"

namespace dtrain {

using namespace inference;

OpShape Gated::infer(std::span<const TensorDesc> in) const {
  expect_inputs(name(), in, 1);
  const TensorDesc& x = in[0];
  expect_channels(x);
  if (x.channels() % 2 != 0) {
    throw ShapeError(fmt::format("its input of shape {} has {} channels; expected an even number: gates, then values",
                                 x.sample_str(), x.channels()));
  }
  OpShape shape;
  shape.out = {with_channels(x, x.channels() / 2)};
  shape.backward_reads = {1, 0};
  shape.cheap = true;
  shape.flops = static_cast<double>(x.elements());
  return shape;
}

std::vector<OpKind<Gated>> Gated::kinds() {
  Table<Gated> table("First half of the channels, through an activation, times the second half: SwiGLU with silu.");
  table.add("activation", &Gated::gate, activation_type(), "of the first half");
  return {{"gated", std::move(table)}};
}

}  // namespace dtrain
