// Sums over the rows (samples, or pixels of all samples) of a matrix [rows, channels], in double, for norms.
// Chunks of rows have partial sums in a workspace, which are added in order: bits depend on the shape alone, not on
// threads. Templates that own nothing and run on the caller's thread and its OpenMP threads.
#pragma once

#include <algorithm>
#include <cstring>

#include "runtime/cpu/elements.hpp"
#include "runtime/cpu/parallel.hpp"

namespace dtrain::cpu {

/// Rows and channels of [N, features], or of [N, C, H, W] that lies channels last.
struct Rows {
  std::int64_t count, channels, a_task;

  explicit Rows(const Shape& shape)
      : count(shape.elements() / shape[1]),
        channels(shape[1]),
        a_task(std::max<std::int64_t>(task_elements / shape[1], 32)) {}
  std::int64_t tasks() const { return (count + a_task - 1) / a_task; }
  /// Bytes that sum_channels wants for two sums a channel.
  std::size_t sums_bytes() const { return static_cast<std::size_t>(2 * channels * tasks()) * sizeof(double); }
};

/// Fills sums[2][channels] at the head of `workspace`. body(begin, end, first, second) adds rows to two arrays.
template <class Body>
const double* sum_channels(const Rows& rows, int threads, void* workspace, const Body& body) {
  auto* partial = static_cast<double*>(workspace);
  const std::int64_t width = 2 * rows.channels;
  parallel_chunks(rows.count, rows.a_task, threads, [&](std::int64_t begin, std::int64_t end) {
    double* sums = partial + begin / rows.a_task * width;
    std::fill(sums, sums + width, 0.0);
    body(begin, end, sums, sums + rows.channels);
  });
  for (std::int64_t t = 1; t < rows.tasks(); ++t) {
    const double* more = partial + t * width;
#pragma omp simd
    for (std::int64_t i = 0; i < width; ++i) partial[i] += more[i];
  }
  return partial;
}

/// Adds the sums and the sums of squares of consecutive rows.
template <class T>
void add_moments(const T* x, std::int64_t rows, std::int64_t channels, double* sum, double* square) {
  std::int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    const T *x0 = x + r * channels, *x1 = x0 + channels, *x2 = x1 + channels, *x3 = x2 + channels;
#pragma omp simd
    for (std::int64_t c = 0; c < channels; ++c) {
      const double v0 = to_float(x0[c]), v1 = to_float(x1[c]), v2 = to_float(x2[c]), v3 = to_float(x3[c]);
      sum[c] += (v0 + v1) + (v2 + v3);
      square[c] += (v0 * v0 + v1 * v1) + (v2 * v2 + v3 * v3);
    }
  }
  for (; r < rows; ++r) {
    const T* row = x + r * channels;
#pragma omp simd
    for (std::int64_t c = 0; c < channels; ++c) {
      const double v = to_float(row[c]);
      sum[c] += v;
      square[c] += v * v;
    }
  }
}

}  // namespace dtrain::cpu
