#include "runtime/ops/max_pool.hpp"

#include <fmt/format.h>

#include "runtime/ops/inference.hpp"
#include "runtime/ops/kinds.hpp"
#include "runtime/ops/pool.hpp"

namespace dtrain {

using namespace inference;

MaxPool MaxPool::in_dimensions(std::size_t dimensions) {
  const Extents none = Extents::all(dimensions, 0);
  return {Extents::all(dimensions, 2), none, none};
}

Extents MaxPool::steps() const {
  return pool_steps(size, stride);
}

std::string_view MaxPool::name() const {
  constexpr std::string_view names[] = {"maxpool", "maxpool1d", "maxpool2d", "maxpool3d"};
  return names[size.size()];
}

OpShape MaxPool::infer(std::span<const TensorDesc> in) const {
  expect_inputs(name(), in, 1);
  expect_positions(in[0], size.size());
  if (size.product() > 256) throw ShapeError(fmt::format("a window of {}; expected at most 256 elements", size.str()));
  OpShape shape = pooled(in[0], size, steps(), padding);
  shape.saved = {{DType::u8, shape.out[0].shape}};
  return shape;
}

std::vector<OpKind<MaxPool>> MaxPool::kinds() {
  return kinds_of_dimensions(&MaxPool::size, [&](std::size_t n, const MaxPool& defaults) {
    Table<MaxPool> table("Largest value of each window; a rest that fills no window is dropped.", defaults);
    add_pool_fields(table, n, "on each side; it never wins");
    return table;
  });
}

}  // namespace dtrain
