// The op `avgpool`: the mean of each window, in one, two or three dimensions.
// A plain value; what a device makes of it is in runtime/cpu/ops and runtime/cuda/ops.
#pragma once

#include "runtime/ops/extents.hpp"
#include "runtime/ops/shape.hpp"

namespace dtrain {

/// A rest that does not fill a window is dropped.
struct AveragePool {
  Extents size{2, 2}, stride{0, 0}, padding{0, 0};  // as many as dimensions; stride 0: the size
  bool count_padding = true;  // padding counts as zeros (PyTorch's default); false: the mean is over what is there

  static AveragePool in_dimensions(std::size_t dimensions);
  /// The stride in numbers.
  Extents steps() const;
  std::string_view name() const;
  OpShape infer(std::span<const TensorDesc> in) const;
  static std::vector<OpKind<AveragePool>> kinds();
};

}  // namespace dtrain
