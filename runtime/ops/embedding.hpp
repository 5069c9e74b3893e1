// The op `embedding`: a trained row of channels for each index value (tokens, categories).
// A plain value; what a device makes of it is in runtime/cpu/ops and runtime/cuda/ops.
#pragma once

#include "runtime/ops/shape.hpp"

namespace dtrain {

/// x[N, positions...] in i32, u16 or u8 -> y[N, positions..., channels] = weight[x]. params: weight [vocabulary,
/// channels]. A value outside the vocabulary gives a row of NaN, so that no run goes on with it. The gradient is dense,
/// and adds the rows of equal values in the order of the positions.
struct Embedding {
  std::int64_t vocabulary = 0, channels = 0;
  double standard_deviation = 1;  // of the rows at the start
  DType dtype = DType::f32;       // of the output

  static constexpr bool may_tie = true;  // its weight may be that of another layer

  std::string_view name() const { return "embedding"; }
  OpShape infer(std::span<const TensorDesc> in) const;
  static std::vector<OpKind<Embedding>> kinds();
};

}  // namespace dtrain
