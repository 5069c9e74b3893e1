#include "runtime/ops/dropout.hpp"

#include <fmt/format.h>

#include "runtime/ops/inference.hpp"
#include "runtime/ops/kinds.hpp"

namespace dtrain {

using namespace inference;

OpShape Dropout::infer(std::span<const TensorDesc> in) const {
  expect_inputs(name(), in, 1);
  expect_float(in[0]);
  if (!(rate >= 0 && rate < 1)) throw ShapeError(fmt::format("a rate of {}; expected 0 <= rate < 1", rate));
  OpShape shape;
  shape.out = {in[0]};
  shape.saved = {{DType::u8, whole_sample ? Shape{in[0].batch()} : in[0].shape}};
  shape.may_share = in_place();
  shape.cheap = true;
  shape.flops = static_cast<double>(in[0].elements());
  return shape;
}

std::vector<OpKind<Dropout>> Dropout::kinds() {
  Table<Dropout> dropout("Training: zeroes each value at random and scales up the rest.");
  dropout.add("rate", &Dropout::rate, fraction(), "fraction that is zeroed");
  Table<Dropout> path("Training: zeroes whole samples at random (stochastic depth), before an add.",
                      Dropout{.rate = 0.1, .whole_sample = true});
  path.add("rate", &Dropout::rate, fraction(), "fraction that is zeroed");
  return {{"dropout", std::move(dropout), [](const Dropout& op) { return !op.whole_sample; }},
          {"drop_path", std::move(path), [](const Dropout& op) { return op.whole_sample; }}};
}

}  // namespace dtrain
