// The op `maxpool`: the largest value of each window, in one, two or three dimensions.
// A plain value; what a device makes of it is in runtime/cpu/ops and runtime/cuda/ops.
#pragma once

#include "runtime/ops/extents.hpp"
#include "runtime/ops/shape.hpp"

namespace dtrain {

/// Padding never wins, and the first of equal maxima takes the gradient. A rest that does not fill a window is dropped.
/// saved: which element of its window each maximum was (u8).
struct MaxPool {
  Extents size{2, 2}, stride{0, 0}, padding{0, 0};  // as many as dimensions; stride 0: the size

  static MaxPool in_dimensions(std::size_t dimensions);
  /// The stride in numbers.
  Extents steps() const;
  std::string_view name() const;
  OpShape infer(std::span<const TensorDesc> in) const;
  static std::vector<OpKind<MaxPool>> kinds();
};

}  // namespace dtrain
