// Sums over a box of windows or pixels, channels last: both passes of average pooling.
// A template that owns nothing and runs on the calling thread.
#pragma once

#include <algorithm>

#include "runtime/cpu/elements.hpp"
#include "runtime/random/windows.hpp"

namespace dtrain::cpu {

/// to[c] = the sum of source(plane, row, column)(c) over the box, or added to it. Sums wait in the first cache, and are
/// rounded and written once.
template <class T, class Source>
void sum_box(PixelRange planes, PixelRange rows, PixelRange columns, std::int64_t channels, T* to, bool add,
             const Source& source) {
  if (planes.end - planes.begin == 1 && rows.end - rows.begin == 1 && columns.end - columns.begin == 1) {
    write_elements(to, 0, channels, add, source(planes.begin, rows.begin, columns.begin));
    return;
  }
  for (std::int64_t c0 = 0; c0 < channels; c0 += block_elements) {
    const std::int64_t n = std::min(block_elements, channels - c0);
    alignas(64) float sums[block_elements];
    std::fill(sums, sums + n, 0.0f);
    for (std::int64_t k = planes.begin; k < planes.end; ++k) {
      for (std::int64_t i = rows.begin; i < rows.end; ++i) {
        for (std::int64_t j = columns.begin; j < columns.end; ++j) {
          const auto value = source(k, i, j);
#pragma omp simd
          for (std::int64_t c = 0; c < n; ++c) sums[c] += value(c0 + c);
        }
      }
    }
    write_elements(to + c0, 0, n, add, [&](std::int64_t c) { return sums[c]; });
  }
}

}  // namespace dtrain::cpu
