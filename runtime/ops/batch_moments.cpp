#include "runtime/ops/batch_moments.hpp"

#include "runtime/ops/inference.hpp"

namespace dtrain {

using namespace inference;

OpShape BatchMoments::infer(std::span<const TensorDesc> in) const {
  expect_inputs(name(), in, 1);
  expect_channels(in[0]);
  OpShape shape;
  shape.out = {tensor(DType::f64, Shape{2 * in[0].channels() + 1})};
  shape.backward_reads = {1, 0};
  shape.training_only = true;
  shape.flops = 3.0 * static_cast<double>(in[0].elements());
  shape.bounds = line_bounds(in[0], false);
  return shape;
}

}  // namespace dtrain
