// The op `flatten`: all values of a sample as features.
// A plain value: a view, without a copy.
#pragma once

#include "runtime/ops/shape.hpp"

namespace dtrain {

/// [N, ...] -> [N, product], counted as PyTorch does: see TensorDesc::Flattened.
struct Flatten {
  std::string_view name() const { return "flatten"; }
  OpShape infer(std::span<const TensorDesc> in) const;
  static std::vector<OpKind<Flatten>> kinds();
};

}  // namespace dtrain
