// The op `sequence_pool`: one row of channels for a sequence: that of its first position, or the mean of all.
// A plain value; what a device makes of it is in runtime/cpu/ops and runtime/cuda/ops.
#pragma once

#include "runtime/ops/shape.hpp"

namespace dtrain {

/// x[N, positions..., C] -> y[N, C]. Behind x may stand, for a mean, documents [N, positions...] in i32, as an
/// attention reads them: then y is the mean over the sample's first document, and padding takes part in nothing.
struct SequencePool {
  enum class Take : std::uint8_t { first, mean };
  Take take = Take::first;

  std::string_view name() const { return "sequence_pool"; }
  OpShape infer(std::span<const TensorDesc> in) const;
  static std::vector<OpKind<SequencePool>> kinds();
};

}  // namespace dtrain
