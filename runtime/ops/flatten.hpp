// The op `flatten`: all values of a sample as features, or features as a series of one position.
// A plain value: a view, without a copy.
#pragma once

#include "runtime/ops/shape.hpp"

namespace dtrain {

/// [N, ...] -> [N, product], counted as PyTorch does: see TensorDesc::Flattened. Or [N, C] -> [N, 1, C].
struct Flatten {
  bool to_series = false;

  std::string_view name() const { return "flatten"; }
  OpShape infer(std::span<const TensorDesc> in) const;
  static std::vector<OpKind<Flatten>> kinds();
};

}  // namespace dtrain
