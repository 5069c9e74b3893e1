// The op `dropout`: zeroes values at random while training; `drop_path` zeroes whole samples.
// A plain value; what a device makes of it is in runtime/cpu/ops and runtime/cuda/ops.
#pragma once

#include "runtime/ops/shape.hpp"

namespace dtrain {

/// Keeps an element with probability 1 - rate and scales it by 1 / (1 - rate); identity in evaluation. Draws are keyed
/// by (seed, Purpose::dropout, id, stream position of the sample, element), so they depend on neither rank nor
/// micro-batch. saved: the mask (u8).
struct Dropout {
  double rate = 0.5;
  std::uint32_t id = 0;       // distinct a layer of a model
  bool whole_sample = false;  // one draw a sample: stochastic depth (Huang et al. 2016)

  std::string_view name() const { return whole_sample ? "drop_path" : "dropout"; }
  OpShape infer(std::span<const TensorDesc> in) const;
  static std::vector<OpKind<Dropout>> kinds();
};

}  // namespace dtrain
