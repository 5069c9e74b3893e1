#include "runtime/ops/linear_cross_entropy.hpp"

#include <algorithm>

#include "runtime/ops/inference.hpp"
#include "runtime/ops/loss_rows.hpp"
#include "runtime/ops/softmax_row.hpp"

namespace dtrain {

using namespace inference;

std::int64_t LinearCrossEntropy::chunk_rows(const TensorDesc& value) const {
  const std::int64_t rows = value.rows();
  if (chunk > 0) return std::min(chunk, rows);
  // Enough positions that reading the weights costs little beside the products, and no more than caches and memory
  // like. Libraries want what they read on 64 bytes, so chunks begin there, whatever the type and number of features.
  constexpr std::int64_t bytes = std::int64_t{256} << 20, fewest = 64, most = 4096, step = 32;
  const std::int64_t wanted =
      std::clamp(bytes / (dense.units * (cap ? 2 : 1) * static_cast<std::int64_t>(size_of(value.dtype))), fewest, most);
  const std::int64_t chunks = (rows + wanted - 1) / wanted;
  if (chunks == 1) return rows;
  // Equal chunks, where a few more of them make that possible: the rest would be prepared apart.
  for (std::int64_t n = chunks; n < 2 * chunks; ++n)
    if (rows % n == 0 && rows / n % step == 0) return rows / n;
  return ((rows + chunks - 1) / chunks + step - 1) / step * step;
}

OpShape LinearCrossEntropy::infer(std::span<const TensorDesc> in) const {
  expect_inputs(name(), in, 3);
  if (dense.activation != Activation::none) throw ShapeError("a loss reads logits: expected no activation");
  const OpShape layer = dense.infer(in.first(1));
  if (cap) (void)cap->infer(layer.out);
  const TensorDesc inputs[] = {layer.out[0], in[1], in[2]};
  const OpShape entropy = loss.infer(inputs);
  if (in[2].elements() != in[0].rows()) throw ShapeError("the weights are one a sample; expected one a position");
  OpShape shape;
  shape.out = entropy.out;
  shape.params = layer.params;
  shape.backward_reads = {7, 0};
  shape.loss = shape.loss_in_backward = shape.backward_at_once = true;
  shape.loss_classes = entropy.loss_classes;
  shape.flops = layer.flops + entropy.flops;
  const auto rows = static_cast<std::size_t>(chunk_rows(in[0]));
  const std::size_t logits = rows * static_cast<std::size_t>(dense.units) * size_of(in[0].dtype) * (cap ? 2 : 1);
  shape.bounds.workspace =
      logits + rows * sizeof(SoftmaxRow) + std::max(layer.bounds.workspace, loss_bytes(in[0].rows())) + 320;
  return shape;
}

}  // namespace dtrain
