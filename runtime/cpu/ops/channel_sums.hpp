// A matrix [rows, channels] (rows are samples, or pixels of all samples) as lines of one or more whole rows, and sums
// over its rows in double, for norms. Templates that own nothing and run on the caller's thread and its OpenMP threads.
#pragma once

#include <algorithm>
#include <numeric>

#include "runtime/cpu/elements.hpp"
#include "runtime/cpu/parallel.hpp"

namespace dtrain::cpu {

/// Element i of a line belongs to channel i % channels. A line of several rows gives few channels long loops, in whole
/// vectors; the last one may be shorter. What is kept a channel is repeated over the width of a line.
struct Lines {
  static constexpr std::int64_t usual = 256, longest = 1024;
  std::int64_t elements, channels, width, a_task;  // the last in elements, whole lines

  Lines(std::int64_t rows, std::int64_t channels_in) : elements(rows * channels_in), channels(channels_in) {
    constexpr std::int64_t vector = 32;
    const std::int64_t whole = std::max<std::int64_t>(std::lcm(channels, vector), 1);
    width = whole > longest ? channels : whole * std::max<std::int64_t>(1, usual / whole);
    a_task = std::max<std::int64_t>(task_elements / width, 16) * width;
  }
  /// Of all positions of all samples.
  explicit Lines(const TensorDesc& desc) : Lines(desc.rows(), desc.channels()) {}
  /// Of one sample.
  static Lines of_sample(const TensorDesc& desc) { return {desc.positions(), desc.channels()}; }

  std::int64_t rows() const { return elements / channels; }
  std::int64_t tasks() const { return (elements + a_task - 1) / a_task; }
  /// Bytes that sum_channels wants for two sums.
  std::size_t sums_bytes() const { return static_cast<std::size_t>(2 * width * tasks()) * sizeof(double); }

  /// Fills the rest of a line of `values` with copies of its first `channels`.
  void repeat(float* values) const {
    for (std::int64_t i = channels; i < width; ++i) values[i] = values[i - channels];
  }

  /// Calls body(at, n) for each line: n elements from element `at` on. One thread goes from the end to the begin: what
  /// a pass in the other order read last is still in the cache.
  template <class Body>
  void for_each(int threads, const Body& body) const {
    parallel_chunks(tasks(), 1, threads, [&](std::int64_t t, std::int64_t) {
      const std::int64_t begin = (threads == 1 ? tasks() - 1 - t : t) * a_task;
      const std::int64_t end = std::min(begin + a_task, elements);
      for (std::int64_t at = begin; at < end; at += width) body(at, std::min(width, end - at));
    });
  }
};

/// Returns sums[2][channels] at the head of `workspace`. body(begin, end, first, second) adds lines from element
/// `begin` to `end` to two arrays of a line's width. The tasks' sums are added in order: bits depend on the shape
/// alone.
template <class Body>
const double* sum_channels(const Lines& lines, int threads, void* workspace, const Body& body) {
  auto* partial = static_cast<double*>(workspace);
  const std::int64_t width = lines.width;
  parallel_chunks(lines.elements, lines.a_task, threads, [&](std::int64_t begin, std::int64_t end) {
    double* sums = partial + begin / lines.a_task * 2 * width;
    std::fill(sums, sums + 2 * width, 0.0);
    body(begin, end, sums, sums + width);
  });
  for (std::int64_t t = 1; t < lines.tasks(); ++t) {
    const double* more = partial + t * 2 * width;
#pragma omp simd
    for (std::int64_t i = 0; i < 2 * width; ++i) partial[i] += more[i];
  }
  for (std::int64_t s = 0; s < 2; ++s) {
    for (std::int64_t c = 0; c < lines.channels; ++c) {
      double sum = 0;
      for (std::int64_t i = c; i < width; i += lines.channels) sum += partial[s * width + i];
      partial[s * lines.channels + c] = sum;  // of the first part nothing is left to read, or it is what was read
    }
  }
  return partial;
}

/// Adds the sums and the sums of squares of the elements [begin, end), whole lines but for the last.
template <class T>
void add_moments(const T* x, std::int64_t begin, std::int64_t end, std::int64_t width, double* sum, double* square) {
  std::int64_t at = begin;
  for (; at + 4 * width <= end; at += 4 * width) {
    const T *x0 = x + at, *x1 = x0 + width, *x2 = x1 + width, *x3 = x2 + width;
#pragma omp simd
    for (std::int64_t i = 0; i < width; ++i) {
      const double v0 = to_float(x0[i]), v1 = to_float(x1[i]), v2 = to_float(x2[i]), v3 = to_float(x3[i]);
      sum[i] += (v0 + v1) + (v2 + v3);
      square[i] += (v0 * v0 + v1 * v1) + (v2 * v2 + v3 * v3);
    }
  }
  for (; at < end; at += width) {
    const std::int64_t n = std::min(width, end - at);
    const T* line = x + at;
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) {
      const double v = to_float(line[i]);
      sum[i] += v;
      square[i] += v * v;
    }
  }
}

/// sum_channels of x and of its squares.
template <class T>
const double* sum_moments(const Lines& lines, int threads, void* workspace, const T* x) {
  return sum_channels(lines, threads, workspace,
                      [&](std::int64_t begin, std::int64_t end, double* sum, double* square) {
                        add_moments(x, begin, end, lines.width, sum, square);
                      });
}

/// Writes a sum a channel as the slot says.
inline void write_sums(const GradSlot& slot, std::int64_t channels, const double* sums) {
  if (!wanted(slot)) return;
  write_elements(slot.grad.as<float>(), 0, channels, slot.write == Write::accumulate,
                 [=](std::int64_t c) { return static_cast<float>(sums[c]); });
}

}  // namespace dtrain::cpu
