// A row in front of the positions of every sample: what starts the kernel, and its body. A struct of arguments; see
// grid.hpp. Pointers are device memory that the caller owns until the stream was there.
#pragma once

#include "runtime/cuda/vector.hpp"

namespace dtrain::cuda {

/// `shape`: samples, and elements of one in x, rows of `channels`; the row in front is float32.
void prepend_row(const Launch&, Element, const Matrix& shape, std::int64_t channels, const void* x, const float* row,
                 void* y);

template <class T, int width>
struct PrependRowBody {
  std::int64_t elements, channels;
  const T* x;
  const float* row;
  T* y;
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    const Split at = split(i, (channels + elements) / width);
    const std::int64_t element = at.rest * width;
    if (element < channels)
      store_floats<width>(y + i * width, load_floats<width>(row + element));
    else
      store_floats<width>(y + i * width, load_floats<width>(x + at.quotient * elements + (element - channels)));
  }
};

}  // namespace dtrain::cuda
