// The op `upsample`: more positions from fewer, by repetition or linear interpolation, in one, two or three dimensions.
// A plain value; what a device makes of it is in runtime/cpu/ops and runtime/cuda/ops.
#pragma once

#include "runtime/ops/extents.hpp"
#include "runtime/ops/shape.hpp"

namespace dtrain {

/// x[N, positions..., C] -> [N, positions x factor..., C]. Linear: between the centres of pixels (PyTorch's
/// align_corners=False); what lies outside the outermost centres repeats them.
struct Upsample {
  enum class Mode : std::uint8_t { nearest, linear };

  Extents factor{2, 2};  // as many as dimensions
  Mode mode = Mode::nearest;

  static Upsample in_dimensions(std::size_t dimensions);
  std::string_view name() const;
  OpShape infer(std::span<const TensorDesc> in) const;
  static std::vector<OpKind<Upsample>> kinds();
};

}  // namespace dtrain
