#include "runtime/ops/max_pool.hpp"

#include <fmt/format.h>

#include "runtime/ops/inference.hpp"
#include "runtime/ops/kinds.hpp"
#include "runtime/ops/pool.hpp"

namespace dtrain {

using namespace inference;

MaxPool MaxPool::in_dimensions(std::size_t dimensions) {
  MaxPool op;
  op.size = Extents::all(dimensions, 2);
  op.stride = op.padding = Extents::all(dimensions, 0);
  return op;
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
  std::vector<OpKind<MaxPool>> kinds;
  for (const std::size_t n : {std::size_t{2}}) {
    const MaxPool defaults = in_dimensions(n);
    Table<MaxPool> table("Largest value of each window; a rest that fills no window is dropped.", defaults);
    add_pool_fields(table, n, "on each side; it never wins");
    kinds.push_back(
        {std::string(defaults.name()), std::move(table), [n](const MaxPool& op) { return op.size.size() == n; }});
  }
  return kinds;
}

}  // namespace dtrain
