#include "runtime/ops/mean_squared_error.hpp"

#include <fmt/format.h>

#include "runtime/ops/inference.hpp"
#include "runtime/ops/loss_rows.hpp"

namespace dtrain {

using namespace inference;

OpShape MeanSquaredError::infer(std::span<const TensorDesc> in) const {
  expect_inputs(name(), in, 3);
  expect_loss_values(in[0]);
  expect_loss_weights(in[2], in[0]);
  if (in[1].dtype != DType::f32)
    throw ShapeError(fmt::format("the target is {}; expected float32", name_of(in[1].dtype)));
  expect_loss_values(in[1]);
  if (in[0].shape != in[1].shape) {
    throw ShapeError(fmt::format("the prediction is {} and the target {}; expected equal shapes", in[0].sample_str(),
                                 in[1].sample_str()));
  }
  OpShape shape;
  shape.out = {f32(Shape{loss_sum_count})};
  shape.backward_reads = {7, 0};
  shape.loss = true;
  shape.flops = 3.0 * static_cast<double>(in[0].elements());
  shape.bounds.workspace = loss_bytes(in[0].rows());
  return shape;
}

}  // namespace dtrain
