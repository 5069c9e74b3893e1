#include "runtime/ops/softmax_cross_entropy.hpp"

#include <fmt/format.h>

#include "runtime/ops/inference.hpp"

namespace dtrain {

using namespace inference;

OpShape SoftmaxCrossEntropy::infer(std::span<const TensorDesc> in) const {
  expect_inputs(name(), in, 3);
  expect_logits(in[0]);
  expect_sample_weights(in[2], in[0].batch());
  if (!(label_smoothing >= 0 && label_smoothing < 1))
    throw ShapeError(fmt::format("label smoothing {}; expected 0 <= smoothing < 1", label_smoothing));
  const Shape& x = in[0].shape;
  if (in[1].dtype != DType::i32 || in[1].shape != Shape{x[0]}) {
    throw ShapeError(
        fmt::format("the labels are {} {}; expected int32 [{}]", name_of(in[1].dtype), in[1].shape.str(), x[0]));
  }
  OpShape shape;
  shape.out = {f32(Shape{loss_sum_count})};
  shape.saved = {f32(Shape{x[0]})};  // log-sum-exp of each sample
  shape.backward_reads = {7, 0};
  shape.loss = true;
  shape.flops = 4.0 * static_cast<double>(in[0].elements());
  return shape;
}

}  // namespace dtrain
