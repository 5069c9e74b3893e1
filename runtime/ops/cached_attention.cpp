#include "runtime/ops/cached_attention.hpp"

#include <fmt/format.h>

#include "runtime/ops/inference.hpp"

namespace dtrain {

using namespace inference;

OpShape CachedAttention::infer(std::span<const TensorDesc> in) const {
  if (!attention.causal) throw ShapeError("only causal attention continues a text; expected causal: true");
  if (in.size() != 2 && in.size() != 4) throw ShapeError("it takes queries, keys and values, and lengths");
  OpShape shape = attention.infer(in.first(in.size() - 1));
  const TensorDesc& lengths = in.back();
  if (lengths.dtype != DType::i32 || lengths.shape != Shape{in[0].batch()})
    throw ShapeError("its lengths are not one int32 a sequence");
  if (capacity < 1) throw ShapeError(fmt::format("a capacity of {}; expected at least 1", capacity));
  const AttentionLayout layout(attention, in.first(in.size() - 1));
  const Shape cache{layout.samples, capacity, layout.kv_heads * layout.size};
  for (const std::string_view name : {"keys", "values"})
    shape.state.push_back({.name = name, .desc = f32(cache), .kept = false});
  shape.saved.clear();
  shape.differentiable = 0;
  shape.backward_reads = {};
  shape.may_share.clear();
  // Scores of a key and value head of each sequence.
  shape.bounds.workspace =
      static_cast<std::size_t>(layout.samples * layout.kv_heads * (capacity + layout.size)) * sizeof(float);
  return shape;
}

}  // namespace dtrain
