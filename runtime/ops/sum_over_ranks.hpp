// The op `sum_over_ranks`: the sum of a value over all ranks at this place of the step; its own adjoint.
// A plain value, made by the builder: a view, with a CrossRankSum step of the plan in its place.
#pragma once

#include "runtime/ops/shape.hpp"

namespace dtrain {

struct SumOverRanks {
  std::string_view name() const { return "sum_over_ranks"; }
  OpShape infer(std::span<const TensorDesc> in) const;
};

}  // namespace dtrain
