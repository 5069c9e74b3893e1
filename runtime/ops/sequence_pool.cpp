#include "runtime/ops/sequence_pool.hpp"

#include <fmt/format.h>

#include "runtime/ops/inference.hpp"
#include "runtime/ops/kinds.hpp"

namespace dtrain {

using namespace inference;

OpShape SequencePool::infer(std::span<const TensorDesc> in) const {
  const bool documents = take == Take::mean && in.size() == 2;
  expect_inputs(name(), in, documents ? 2 : 1);
  const TensorDesc& x = in[0];
  expect_channels(x);
  expect_any_positions(x);
  if (documents) expect_documents(in[1], x);
  OpShape shape;
  shape.out = {tensor(x.dtype, Shape{x.batch(), x.channels()})};
  shape.backward_reads = {documents ? 2u : 0u, 0};
  shape.cheap = true;
  shape.flops = static_cast<double>(take == Take::mean ? x.elements() : 0);
  return shape;
}

std::vector<OpKind<SequencePool>> SequencePool::kinds() {
  Table<SequencePool> table("One row for a sequence: [T, C] to [C]; for a mean, documents may stand behind.");
  table
      .add("take", &SequencePool::take, choice<Take>({{"first", Take::first}, {"mean", Take::mean}}),
           "the first position, or the mean of all: with documents, of those of the first document")
      .required();
  return {{"sequence_pool", std::move(table)}};
}

}  // namespace dtrain
