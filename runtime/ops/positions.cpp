#include "runtime/ops/positions.hpp"

#include <fmt/format.h>

#include "runtime/ops/inference.hpp"
#include "runtime/ops/kinds.hpp"

namespace dtrain {

using namespace inference;

OpShape Positions::infer(std::span<const TensorDesc> in) const {
  expect_inputs(name(), in, in.size() == 2 ? 2 : 1);
  const TensorDesc& x = in[0];
  if (in.size() == 2 && (in[1].dtype != DType::i32 || in[1].shape != Shape{x.batch()} || length < 1))
    throw ShapeError("its lengths are not one int32 a sample, or its own length is not set");
  expect_channels(x);
  expect_any_positions(x);
  if (length < 0) throw ShapeError(fmt::format("a length of {}; expected at least 1", length));
  if (in.size() == 1 && length > 0 && x.positions() > length) {
    throw ShapeError(fmt::format("its input of shape {} has {} positions, but its length is {}; expected at most that",
                                 x.sample_str(), x.positions(), length));
  }
  const std::int64_t rows = length > 0 ? length : x.positions();
  OpShape shape;
  shape.out = {x};
  shape.params = {{"weight", f32(Shape{rows, x.channels()}), {Init::Kind::normal, standard_deviation}, true}};
  shape.may_share = in_place();
  shape.cheap = true;
  shape.flops = static_cast<double>(x.elements());
  return shape;
}

std::vector<OpKind<Positions>> Positions::kinds() {
  Table<Positions> table("Adds a trained row of channels to each position.");
  table.add("length", &Positions::length, at_least(0), "positions that have a row; 0: as many as the input has")
      .shown_if([](const Positions& op) { return op.length != 0; });
  table.add("standard_deviation", &Positions::standard_deviation, number({.least = 0}),
            "of the rows at the start, which are drawn from a normal distribution");
  return {{"positions", std::move(table)}};
}

}  // namespace dtrain
