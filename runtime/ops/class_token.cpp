#include "runtime/ops/class_token.hpp"

#include "runtime/ops/inference.hpp"
#include "runtime/ops/kinds.hpp"

namespace dtrain {

using namespace inference;

OpShape ClassToken::infer(std::span<const TensorDesc> in) const {
  expect_inputs(name(), in, 1);
  const TensorDesc& x = in[0];
  expect_channels(x);
  expect_any_positions(x);
  OpShape shape;
  shape.out = {tensor(x.dtype, Shape{x.batch(), 1 + x.positions(), x.channels()})};
  shape.params = {{"weight", f32(Shape{x.channels()}), {Init::Kind::normal, standard_deviation}, true}};
  shape.cheap = true;
  return shape;
}

std::vector<OpKind<ClassToken>> ClassToken::kinds() {
  Table<ClassToken> table("A trained row of channels in front of the positions: [T, C] or [C, H, W] to [1 + T, C].");
  table.add("standard_deviation", &ClassToken::standard_deviation, number({.least = 0}),
            "of the row at the start, which is drawn from a normal distribution");
  return {{"class_token", std::move(table)}};
}

}  // namespace dtrain
