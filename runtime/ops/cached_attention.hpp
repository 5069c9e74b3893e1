// The op `cached_attention`: causal attention of positions that come after those of a cache: what generates text.
// A plain value; what a device makes of it is in runtime/cpu/ops and runtime/cuda/ops.
#pragma once

#include "runtime/ops/attention.hpp"

namespace dtrain {

/// Inputs: as of an Attention without documents, of `positions` new positions of each sequence; then lengths i32 [N],
/// how many positions of the sequence came before. state: keys and values [N, capacity, kv_heads size], turned, f32;
/// those of the new positions are written behind the others, as far as there is place, and a position sees the cache up
/// to itself. What lies behind `capacity` is zero. Forward only.
struct CachedAttention {
  Attention attention;  // causal
  std::int64_t capacity = 0;

  std::string_view name() const { return "cached_attention"; }
  OpShape infer(std::span<const TensorDesc> in) const;
};

}  // namespace dtrain
