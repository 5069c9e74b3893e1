#include "runtime/ops/average_pool.hpp"

#include <fmt/format.h>

#include "runtime/ops/inference.hpp"
#include "runtime/ops/kinds.hpp"
#include "runtime/ops/pool.hpp"

namespace dtrain {

using namespace inference;

AveragePool AveragePool::in_dimensions(std::size_t dimensions) {
  AveragePool op;
  op.size = Extents::all(dimensions, 2);
  op.stride = op.padding = Extents::all(dimensions, 0);
  return op;
}

Extents AveragePool::steps() const {
  return pool_steps(size, stride);
}

std::string_view AveragePool::name() const {
  constexpr std::string_view names[] = {"avgpool", "avgpool1d", "avgpool2d", "avgpool3d"};
  return names[size.size()];
}

OpShape AveragePool::infer(std::span<const TensorDesc> in) const {
  expect_inputs(name(), in, 1);
  expect_positions(in[0], size.size());
  OpShape shape = pooled(in[0], size, steps(), padding);
  return shape;
}

std::vector<OpKind<AveragePool>> AveragePool::kinds() {
  std::vector<OpKind<AveragePool>> kinds;
  for (const std::size_t n : {std::size_t{2}}) {
    const AveragePool defaults = in_dimensions(n);
    Table<AveragePool> table("Mean of each window; a rest that fills no window is dropped.", defaults);
    add_pool_fields(table, n, "zeros on each side");
    table.add("count_padding", &AveragePool::count_padding, boolean(),
              "padding counts as zeros; false: the mean is over what is there");
    kinds.push_back(
        {std::string(defaults.name()), std::move(table), [n](const AveragePool& op) { return op.size.size() == n; }});
  }
  return kinds;
}

}  // namespace dtrain
