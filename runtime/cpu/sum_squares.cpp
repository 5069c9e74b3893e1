#include "runtime/cpu/kernels.hpp"
#include "runtime/cpu/parallel.hpp"
#include "runtime/device/device.hpp"

namespace dtrain::cpu {

/// Sixteen running sums that a compiler can keep in vectors without reordering any addition, then a fixed tree.
double sum_squares(const float* x, std::size_t n) {
  constexpr std::size_t lanes = 16;
  double sums[lanes] = {};
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    for (std::size_t l = 0; l < lanes; ++l) {
      const double v = x[i + l];
      sums[l] += v * v;
    }
  }
  for (std::size_t l = 0; i + l < n; ++l) {
    const double v = x[i + l];
    sums[l] += v * v;
  }
  for (std::size_t half = lanes / 2; half > 0; half /= 2)
    for (std::size_t l = 0; l < half; ++l) sums[l] += sums[l + half];
  return sums[0];
}

void sum_squares_blocks(const float* x, std::size_t n, double* partial, int threads) {
  parallel_chunks(static_cast<std::int64_t>(n), static_cast<std::int64_t>(norm_block), threads,
                  [&](std::int64_t begin, std::int64_t end) {
                    partial[static_cast<std::size_t>(begin) / norm_block] =
                        sum_squares(x + begin, static_cast<std::size_t>(end - begin));
                  });
}

void CpuKernels::sum_squares(const float* x, std::size_t n, double* partial, Stream& stream) {
  stream.host(HostTask::of([=, threads = threads_] { sum_squares_blocks(x, n, partial, threads); }));
}

}  // namespace dtrain::cpu
