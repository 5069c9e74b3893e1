#include "runtime/ops/softmax_cross_entropy.hpp"

#include <fmt/format.h>

#include "runtime/ops/inference.hpp"
#include "runtime/ops/loss_rows.hpp"
#include "runtime/ops/softmax_row.hpp"

namespace dtrain {

using namespace inference;

OpShape SoftmaxCrossEntropy::infer(std::span<const TensorDesc> in) const {
  expect_inputs(name(), in, 3);
  expect_loss_values(in[0]);
  expect_loss_weights(in[2], in[0]);
  if (!(label_smoothing >= 0 && label_smoothing < 1))
    throw ShapeError(fmt::format("label smoothing {}; expected 0 <= smoothing < 1", label_smoothing));
  const DType type = in[1].dtype;
  const Shape expected = without_channels(in[0]);
  if ((type != DType::i32 && type != DType::u16 && type != DType::u8) || in[1].shape != expected)
    throw ShapeError(fmt::format("the labels are {}, {}; expected int32, uint16 or uint8, {}", name_of(type),
                                 in_a_sample(in[1].shape), in_a_sample(expected)));
  OpShape shape;
  shape.out = {f32(Shape{loss_sum_count})};
  shape.saved = {f32(Shape{in[0].rows(), SoftmaxRow::floats})};  // a SoftmaxRow of each position
  shape.backward_reads = {7, 0};
  shape.loss = true;
  shape.loss_classes = in[0].channels();
  shape.flops = 4.0 * static_cast<double>(in[0].elements());
  shape.bounds.workspace = loss_bytes(in[0].rows());
  return shape;
}

}  // namespace dtrain
