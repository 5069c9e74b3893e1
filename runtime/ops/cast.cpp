#include "runtime/ops/cast.hpp"

#include "runtime/ops/inference.hpp"

namespace dtrain {

using namespace inference;

OpShape Cast::infer(std::span<const TensorDesc> in) const {
  expect_inputs(name(), in, 1);
  expect_float(in[0]);
  OpShape shape;
  shape.out = {in[0]};
  shape.out[0].dtype = to;
  expect_float(shape.out[0]);
  shape.cheap = true;
  return shape;
}

}  // namespace dtrain
