// What the pools over windows share: the shape of their result, and the fields of size, stride and padding.
// Functions for runtime/ops/*.cpp; they own nothing.
#pragma once

#include "runtime/ops/inference.hpp"
#include "runtime/ops/kinds.hpp"
#include "runtime/random/windows.hpp"

namespace dtrain {

/// A stride of 0 is the window's size.
Extents pool_steps(const Extents& size, const Extents& stride);
/// Throws ShapeError where the windows do not fit.
OpShape pooled(const TensorDesc& in, const Extents& size, const Extents& steps, const Extents& padding);

template <class Pool>
WindowGrid window_grid(const Pool& op, const TensorDesc& in) {
  return {in.batch(), in.channels(), inference::positions_of(in), op.size, op.steps(), op.padding};
}

template <class Pool>
void add_pool_fields(Table<Pool>& table, std::size_t dimensions, const std::string& padding) {
  table.add("size", &Pool::size, extents_of(1, dimensions), "window");
  table.add("stride", &Pool::stride, extents_of(1, dimensions), "step of the window; by default its size")
      .shown_if([](const Pool& pool) { return pool.stride[0] > 0; });
  table.add("padding", &Pool::padding, extents_of(0, dimensions), padding);
}

}  // namespace dtrain
