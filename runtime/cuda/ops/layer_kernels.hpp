// What linear layers and convolutions want beside the libraries, as functions of pointers and sizes: each enqueues its
// work and returns. Pointers are device memory that the caller owns until the stream was there.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/cuda/kernels.hpp"

namespace dtrain::cuda {

/// [outer, rows, columns] -> [outer, columns, rows], from or to float: filters from (channel, pixel) order to (pixel,
/// channel) order, and gradients the way back.
struct Swap {
  std::int64_t outer, rows, columns;
};
void swap_inner(const Launch&, Element from_type, Element to_type, const Swap&, const void* from, Slot to);

/// Float sums of each column of [rows, columns], in an order that depends on the shape alone.
std::size_t column_sums_bytes(std::int64_t rows, std::int64_t columns);
void column_sums(const Launch&, Element, std::int64_t rows, std::int64_t columns, const void* x, Slot to,
                 void* workspace);

/// y = act(y + bias) of [rows, columns], in place; `bias` [columns] may be null.
void bias_activate(const Launch&, Element, Activation, std::int64_t rows, std::int64_t columns, const float* bias,
                   void* y);

}  // namespace dtrain::cuda
