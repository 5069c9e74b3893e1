// What norms of rows share: a warp a row, and sums over the channels of a row. A base of structs of arguments; see
// grid.hpp. It owns nothing.
#pragma once

#include <cmath>

#include "runtime/cuda/ops/channel_sums.hpp"

namespace dtrain::cuda {

template <int width>
struct WarpRow {
  static constexpr int threads = block_threads, rows = threads / static_cast<int>(warp_size);
  using Shared = Nothing;
  Matrix shape;

  template <class Thread>
  static DTRAIN_HOST_DEVICE std::int64_t row(Thread& t) {
    return t.block() * rows + t.index() / warp_size;
  }
  /// f(channel) for each group of `width` channels that a thread has of its row.
  template <class Thread, class F>
  DTRAIN_HOST_DEVICE void each(Thread& t, const F& f) const {
    for (std::int64_t c = (t.index() % warp_size) * width; c < shape.channels; c += warp_size * width) f(c);
  }
  /// Sum of the `width` values of value(channel) over the row.
  template <class Thread, class Value>
  DTRAIN_HOST_DEVICE float sum(Thread& t, const Value& value) const {
    float sum = 0;
    each(t, [&](std::int64_t c) {
      const Floats<width> values = value(c);
      float of_group = 0;
      for (int j = 0; j < width; ++j) of_group += values.v[j];
      sum += of_group;
    });
    return warp_sum(t, sum);
  }
};

/// Of Body<T, width>{{shape}, arguments...}.
template <template <class, int> class Body, class... Arguments>
void for_rows(const Launch& where, Element element, const Matrix& shape, bool suits, const Arguments&... arguments) {
  with_width(element, shape.channels, suits, [&](auto tag, auto width) {
    using F = Body<decltype(tag), decltype(width)::value>;
    launch(where, divide_up(shape.rows, F::rows), F{{shape}, typed(arguments)...});
  });
}

}  // namespace dtrain::cuda
