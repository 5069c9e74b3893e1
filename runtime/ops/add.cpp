#include "runtime/ops/add.hpp"

#include "runtime/ops/inference.hpp"
#include "runtime/ops/kinds.hpp"

namespace dtrain {

using namespace inference;

OpShape Add::infer(std::span<const TensorDesc> in) const {
  expect_inputs(name(), in, 2);
  expect_alike(in);
  expect_epilogue(activation);
  OpShape shape;
  shape.out = {in[0]};
  shape.backward_reads = {0, activation == Activation::none ? 0u : 1u};
  shape.differentiable = 3;
  for (std::uint8_t i = 0; i < 2; ++i) {
    shape.may_share.push_back({Alias::Kind::out_over_in, i, 0});
    // The gradient of b is another one than that of y where there is a factor.
    if (i == 0 || factor == 1) shape.may_share.push_back({Alias::Kind::grad_over_grad, i, 0});
  }
  shape.flops = static_cast<double>(in[0].elements());
  return shape;
}

std::vector<OpKind<Add>> Add::kinds() {
  Table<Add> table("Sum of two equal shapes: from: [a, b].");
  table.add("activation", &Add::activation, activation_type(), "applied to the result");
  return {{"add", std::move(table)}};
}

}  // namespace dtrain
