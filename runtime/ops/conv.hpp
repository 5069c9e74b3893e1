// The op `conv`: grouped and dilated convolution in one, two or three dimensions, with a bias and an activation inside.
// A plain value; what a device makes of it is in runtime/cpu/ops and runtime/cuda/ops.
#pragma once

#include "runtime/ops/activation.hpp"
#include "runtime/ops/extents.hpp"
#include "runtime/ops/shape.hpp"

namespace dtrain {

/// x[N, positions..., C] -> act(conv), channels to filters. params: weight [filters, C / groups, kernel...], bias
/// [filters]. Zero padding. groups = C = filters is a depthwise convolution.
struct Conv {
  static constexpr std::int64_t same = -1;  // padding: the output has the input's extents, divided by the stride

  std::int64_t filters = 0;
  Extents kernel{1, 1}, stride{1, 1}, padding{0, 0};  // as many as dimensions
  bool bias = true;
  Activation activation = Activation::none;  // one whose derivative_of_output
  Extents dilation{1, 1};
  std::int64_t groups = 1;
  AffineInit init{};

  /// In so many dimensions, with a window of 1.
  static Conv in_dimensions(std::size_t dimensions);
  /// The padding in numbers: `same` is half of an odd window.
  Extents pads() const;
  std::string_view name() const;
  OpShape infer(std::span<const TensorDesc> in) const;
  static std::vector<OpKind<Conv>> kinds();
};

}  // namespace dtrain
