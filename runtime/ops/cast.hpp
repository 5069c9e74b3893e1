// The op `cast`: another element type, f32, bf16 or f16.
// A plain value, made by the builder where layers compute in another type than their inputs and losses.
#pragma once

#include "runtime/ops/shape.hpp"

namespace dtrain {

struct Cast {
  DType to = DType::f32;

  std::string_view name() const { return "cast"; }
  OpShape infer(std::span<const TensorDesc> in) const;
};

}  // namespace dtrain
