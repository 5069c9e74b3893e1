// The op `dense`: a matrix product over the channels, with a bias and an activation inside.
// A plain value; what a device makes of it is in runtime/cpu/ops and runtime/cuda/ops.
#pragma once

#include "runtime/ops/activation.hpp"
#include "runtime/ops/shape.hpp"

namespace dtrain {

/// y[rows, units] = act(x[rows, features] W^T + b), at each position of a series, or of whole samples [N, features].
/// params: weight [units, features], bias [units].
struct Dense {
  std::int64_t units = 0;
  bool bias = true;
  Activation activation = Activation::none;  // one whose derivative_of_output
  bool per_position = false;                 // of an image or a volume: at each pixel
  AffineInit init{};

  static constexpr bool may_tie = true;  // its weight may be that of another layer

  std::string_view name() const { return "dense"; }
  OpShape infer(std::span<const TensorDesc> in) const;
  static std::vector<OpKind<Dense>> kinds();
};

}  // namespace dtrain
