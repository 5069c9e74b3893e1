#include "runtime/ops/soft_cap.hpp"

#include <utility>

#include <fmt/format.h>

#include "runtime/ops/inference.hpp"
#include "runtime/ops/kinds.hpp"

namespace dtrain {

using namespace inference;

OpShape SoftCap::infer(std::span<const TensorDesc> in) const {
  expect_inputs(name(), in, 1);
  expect_float(in[0]);
  if (!(cap > 0)) throw ShapeError(fmt::format("a cap of {}; expected more than 0", cap));
  OpShape shape;
  shape.out = {in[0]};
  shape.backward_reads = {0u, 1u};
  shape.may_share = in_place();
  shape.cheap = true;
  shape.flops = static_cast<double>(in[0].elements());
  return shape;
}

std::vector<OpKind<SoftCap>> SoftCap::kinds() {
  Table<SoftCap> table("cap * tanh(x / cap): keeps logits between -cap and cap.");
  table.add("cap", &SoftCap::cap, number({.least = 0, .above_least = true}), "what no value exceeds");
  return {{"soft_cap", std::move(table)}};
}

}  // namespace dtrain
