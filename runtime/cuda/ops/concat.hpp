// Rows of a value within wider rows: what starts the kernel of concat, and its body. A struct of arguments; see
// grid.hpp. Pointers are device memory that the caller owns until the stream was there.
#pragma once

#include "runtime/cuda/vector.hpp"

namespace dtrain::cuda {

/// Rows of `columns` elements, `from_step` and `to_step` elements apart.
struct Rows {
  std::int64_t rows, columns, from_step, to_step;
};
void copy_rows(const Launch&, Element, const Rows&, const void* from, Slot to);

template <class T, int width>
struct CopyRowsBody {
  Rows rows;
  const T* from;
  Slot to;
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    const Split at = split(i, rows.columns / width);
    write_slot<width, T>(to, at.quotient * rows.to_step + at.rest * width,
                         load_floats<width>(from + at.quotient * rows.from_step + at.rest * width));
  }
};

}  // namespace dtrain::cuda
