#include "runtime/ops/flatten.hpp"

#include "runtime/ops/inference.hpp"
#include "runtime/ops/kinds.hpp"

namespace dtrain {

using namespace inference;

OpShape Flatten::infer(std::span<const TensorDesc> in) const {
  expect_inputs(name(), in, 1);
  const TensorDesc& x = in[0];
  expect_float(x);
  TensorDesc out = tensor(x.dtype, Shape{x.batch(), x.elements() / x.batch()});
  out.flattened = x.flattened;
  // A series lies as it is counted, and so does an image of one channel or one pixel.
  if (x.shape.rank() > 3 && x.channels() > 1 && x.positions() > 1) out.flattened = {x.channels(), x.positions()};
  if (to_series) {
    expect_channels(x);
    out = tensor(x.dtype, Shape{x.batch(), 1, x.elements() / x.batch()});
  }
  OpShape shape;
  shape.out = {out};
  shape.may_share = {{Alias::Kind::view, 0, 0}};
  return shape;
}

std::vector<OpKind<Flatten>> Flatten::kinds() {
  return {{"flatten", Table<Flatten>("[C, H, W] to [C * H * W].")}};
}

}  // namespace dtrain
