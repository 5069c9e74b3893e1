// The op `batch_moments`: the sums of which batch normalization over all ranks is made.
// A plain value, made by the builder: SyncBatchNorm is BatchMoments -> SumOverRanks -> BatchNormalize.
#pragma once

#include "runtime/ops/shape.hpp"

namespace dtrain {

/// x -> f64 [2 C + 1]: sum and sum of squares of each channel, and the number of values of a channel.
struct BatchMoments {
  std::string_view name() const { return "batch_moments"; }
  OpShape infer(std::span<const TensorDesc> in) const;
};

}  // namespace dtrain
