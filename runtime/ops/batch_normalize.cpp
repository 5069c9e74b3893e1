#include "runtime/ops/batch_normalize.hpp"

#include "runtime/ops/inference.hpp"

namespace dtrain {

using namespace inference;

OpShape BatchNormalize::infer(std::span<const TensorDesc> in) const {
  if (in.size() != 2 || in[1].dtype != DType::f64 || in[1].shape != Shape{2 * in[0].channels() + 1})
    throw BugError("batch_normalize takes a value and its moments");
  OpShape shape = settings().shape_of(in[0]);
  shape.backward_reads.in = 3;
  shape.differentiable = 3;
  shape.bounds = line_bounds(in[0], false);
  return shape;
}

}  // namespace dtrain
