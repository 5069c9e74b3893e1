// A loop over equal chunks on a fixed number of OpenMP threads.
// Free function; the chunk bounds depend on `n` and `grain` alone, so what a chunk computes does not depend on threads.
#pragma once

#include <algorithm>
#include <cstdint>

namespace dtrain::cpu {

/// Calls body(begin, end) for consecutive ranges of at most `grain` that cover [0, n). A single range runs without a
/// parallel region.
template <class Body>
void parallel_chunks(std::int64_t n, std::int64_t grain, int threads, const Body& body) {
  const std::int64_t chunks = (n + grain - 1) / grain;
  if (threads == 1 || chunks <= 1) {
    for (std::int64_t c = 0; c < chunks; ++c) body(c * grain, std::min((c + 1) * grain, n));
    return;
  }
  [[maybe_unused]] const int used = static_cast<int>(std::min<std::int64_t>(threads, chunks));
#pragma omp parallel for num_threads(used) schedule(static)
  for (std::int64_t c = 0; c < chunks; ++c) body(c * grain, std::min((c + 1) * grain, n));
}

/// Calls body(row) for each of n rows of `width` elements, in tasks of about `elements` of them.
template <class Body>
void parallel_rows(std::int64_t n, std::int64_t width, std::int64_t elements, int threads, const Body& body) {
  parallel_chunks(n, std::max<std::int64_t>(1, elements / width), threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) body(row);
  });
}

}  // namespace dtrain::cpu
