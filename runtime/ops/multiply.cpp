#include "runtime/ops/multiply.hpp"

#include <fmt/format.h>

#include "runtime/ops/inference.hpp"
#include "runtime/ops/kinds.hpp"

namespace dtrain {

using namespace inference;

OpShape Multiply::infer(std::span<const TensorDesc> in) const {
  expect_inputs(name(), in, 2);
  expect_float(in[0]);
  expect_float(in[1]);
  const TensorDesc &a = in[0], &b = in[1];
  const bool broadcast = a.shape.rank() > 2 && b == with_positions(a, Extents::all(positions_of(a).size(), 1));
  if (!broadcast && a != b) {
    throw ShapeError(
        fmt::format("its inputs have shapes {} and {}; expected equal ones, or [channels, 1, 1] for the "
                    "second",
                    a.sample_str(), b.sample_str()));
  }
  OpShape shape;
  shape.out = {a};
  shape.backward_reads = {3, 0};
  shape.differentiable = 3;
  // The gradient of b is summed before that of a overwrites what both are made of.
  shape.may_share = {{Alias::Kind::grad_over_grad, 0, 0}};
  shape.cheap = true;
  shape.flops = static_cast<double>(a.elements());
  shape.bounds = sample_line_bounds(a);
  return shape;
}

std::vector<OpKind<Multiply>> Multiply::kinds() {
  return {{"multiply", Table<Multiply>("Product of two equal shapes, or of [C, H, W] and [C, 1, 1]: from: [a, b].")}};
}

}  // namespace dtrain
