#include "runtime/ops/average_pool.hpp"

#include "runtime/ops/inference.hpp"
#include "runtime/ops/kinds.hpp"
#include "runtime/ops/pool.hpp"

namespace dtrain {

using namespace inference;

AveragePool AveragePool::in_dimensions(std::size_t dimensions) {
  const Extents none = Extents::all(dimensions, 0);
  return {Extents::all(dimensions, 2), none, none};
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
  return pooled(in[0], size, steps(), padding);
}

std::vector<OpKind<AveragePool>> AveragePool::kinds() {
  return kinds_of_dimensions(&AveragePool::size, [&](std::size_t n, const AveragePool& defaults) {
    Table<AveragePool> table("Mean of each window; a rest that fills no window is dropped.", defaults);
    add_pool_fields(table, n, "zeros on each side");
    table.add("count_padding", &AveragePool::count_padding, boolean(),
              "padding counts as zeros; false: the mean is over what is there");
    return table;
  });
}

}  // namespace dtrain
