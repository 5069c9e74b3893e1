// What norms of rows share: sums over the channels of a row, and a loop over the rows.
// Templates that own nothing and run on the caller's thread and its OpenMP threads.
#pragma once

#include "runtime/cpu/ops/channel_sums.hpp"

namespace dtrain::cpu {

/// Sum of value(i) over [0, n): sixteen running sums, then a fixed tree.
template <class Value>
float sum_of(std::int64_t n, const Value& value) {
  constexpr std::int64_t lanes = 16;
  alignas(64) float sums[lanes] = {};
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
#pragma omp simd
    for (std::int64_t l = 0; l < lanes; ++l) sums[l] += value(i + l);
  }
  for (std::int64_t l = 0; i + l < n; ++l) sums[l] += value(i + l);
  for (std::int64_t half = lanes / 2; half > 0; half /= 2)
    for (std::int64_t l = 0; l < half; ++l) sums[l] += sums[l + half];
  return sums[0];
}

/// Calls body(row) for each row, a task of `lines` at a time.
template <class Body>
void for_rows(const Lines& lines, int threads, const Body& body) {
  lines.for_each(threads, [&](std::int64_t at, std::int64_t n) {
    for (std::int64_t row = at / lines.channels; row < (at + n) / lines.channels; ++row) body(row);
  });
}

}  // namespace dtrain::cpu
