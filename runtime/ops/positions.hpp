// The op `positions`: a trained row of channels for each position, added to what is there: learned positions, as in
// GPT-2. A plain value; what a device makes of it is in runtime/cpu/ops and runtime/cuda/ops.
#pragma once

#include "runtime/ops/shape.hpp"

namespace dtrain {

/// x[N, positions..., C] -> y = x + weight[position]. params: weight [length, C], of which the first positions are
/// used. Its gradient adds the samples in their order. A second input, lengths i32 [N], is for generation: so many
/// positions of the sample came before; forward only, and what lies behind the last row has the last row.
struct Positions {
  std::int64_t length = 0;           // 0: as many as the input has
  double standard_deviation = 0.02;  // of the rows at the start

  std::string_view name() const { return "positions"; }
  OpShape infer(std::span<const TensorDesc> in) const;
  static std::vector<OpKind<Positions>> kinds();
};

}  // namespace dtrain
