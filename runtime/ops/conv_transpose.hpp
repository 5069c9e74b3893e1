// The op `conv_transpose`: transposed convolution in one, two or three dimensions, with a bias and an activation
// inside. A plain value; what a device makes of it is in runtime/cpu/ops and runtime/cuda/ops.
#pragma once

#include "runtime/ops/conv.hpp"

namespace dtrain {

/// x[N, positions..., C] -> act(y + bias), channels to filters, where y is what the data gradient of a convolution
/// makes of x: positions grow to (positions - 1) x stride - 2 x padding + window + output_padding. params: weight
/// [C, filters / groups, kernel...], bias [filters].
struct ConvTranspose {
  std::int64_t filters = 0;
  Extents kernel{1, 1}, stride{1, 1}, padding{0, 0};  // as many as dimensions
  Extents output_padding{0, 0};                       // more positions behind the last ones; below the stride
  bool bias = true;
  Activation activation = Activation::none;  // one whose derivative_of_output
  Extents dilation{1, 1};
  std::int64_t groups = 1;
  AffineInit init{};

  /// In so many dimensions, with a window of 1.
  static ConvTranspose in_dimensions(std::size_t dimensions);
  /// The convolution from this op's output to its input whose data gradient it is: without bias, with the same weight.
  Conv mirrored(const TensorDesc& in) const;
  std::string_view name() const;
  OpShape infer(std::span<const TensorDesc> in) const;
  static std::vector<OpKind<ConvTranspose>> kinds();
};

}  // namespace dtrain
