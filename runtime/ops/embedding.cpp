#include "runtime/ops/embedding.hpp"

#include <fmt/format.h>

#include "runtime/ops/inference.hpp"
#include "runtime/ops/kinds.hpp"

namespace dtrain {

using namespace inference;

OpShape Embedding::infer(std::span<const TensorDesc> in) const {
  expect_inputs(name(), in, 1);
  const TensorDesc& x = in[0];
  if (x.dtype != DType::i32 && x.dtype != DType::u16 && x.dtype != DType::u8)
    throw ShapeError(fmt::format(
        "its input is {}; expected index values in int32, uint16 or uint8: tokens or categories", name_of(x.dtype)));
  if (vocabulary < 1 || channels < 1)
    throw ShapeError(fmt::format("vocabulary {} and channels {}; expected at least 1", vocabulary, channels));
  std::vector<std::int64_t> extents(x.shape.extents().begin(), x.shape.extents().end());
  extents.push_back(channels);
  OpShape shape;
  shape.out = {tensor(dtype, Shape(std::span<const std::int64_t>(extents)))};
  shape.params = {{"weight", f32(Shape{vocabulary, channels}), {Init::Kind::normal, standard_deviation}, true}};
  shape.backward_reads = {1, 0};
  shape.differentiable = 0;
  shape.cheap = true;
  return shape;
}

std::vector<OpKind<Embedding>> Embedding::kinds() {
  Table<Embedding> table("A trained row for each token or category: index values [T] to [T, channels].");
  table.add("vocabulary", &Embedding::vocabulary, at_least(1), "index values are below this").required();
  table.add("channels", &Embedding::channels, at_least(1), "of a row").required();
  table
      .add("standard_deviation", &Embedding::standard_deviation, number({.least = 0}),
           "of the rows at the start, which are drawn from a normal distribution")
      .shown_if([](const Embedding& op) { return op.standard_deviation != 1; });
  return {{"embedding", std::move(table)}};
}

}  // namespace dtrain
