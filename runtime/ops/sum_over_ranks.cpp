#include "runtime/ops/sum_over_ranks.hpp"

#include "runtime/ops/inference.hpp"

namespace dtrain {

using namespace inference;

OpShape SumOverRanks::infer(std::span<const TensorDesc> in) const {
  if (in.size() != 1) throw BugError("sum_over_ranks takes one input");
  OpShape shape;
  shape.out = {in[0]};
  shape.may_share = {{Alias::Kind::view, 0, 0}};
  shape.training_only = true;
  shape.summed_over_ranks = true;
  return shape;
}

}  // namespace dtrain
