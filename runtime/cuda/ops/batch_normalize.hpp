// Batch normalization with moments of all ranks: what starts the kernels that the moments need, and their bodies; the
// rest is in normalization.hpp. Structs of arguments; see grid.hpp.
#pragma once

#include "runtime/cuda/ops/normalization.hpp"

namespace dtrain::cuda {

void statistics_of_moments(const Launch&, const BatchNormPlace&, const double* moments, const Statistics&);
void moments_gradient(const Launch&, const Matrix&, const NormalizeBackward&, const double* moments, Slot gradients);

struct StatisticsOfMoments {
  std::int64_t channels;
  double epsilon;
  const double* moments;
  Statistics statistics;
  DTRAIN_HOST_DEVICE void run(std::int64_t c) const {
    const double n = moments[2 * channels], mean = moments[c] / n;
    keep_statistics(statistics, c, mean, moments[channels + c] / n - mean * mean, n, epsilon);
  }
};

/// Through mean = sum / count and variance = squares / count - mean^2; the count is no variable.
struct MomentsGradientBody {
  std::int64_t channels;
  NormalizeBackward b;
  const double* moments;
  Slot gradients;
  DTRAIN_HOST_DEVICE void run(std::int64_t c) const {
    if (c == channels) return put(2 * channels, 0);
    const double count = moments[2 * channels];
    const auto inverse = static_cast<double>(b.inverse[c]);
    const double scale = static_cast<double>(b.weight[c]) * inverse;
    const double of_variance = -0.5 * scale * inverse * static_cast<double>(b.sums[channels + c]);
    const double of_mean = -scale * static_cast<double>(b.sums[c]);
    put(c, (of_mean - 2 * (moments[c] / count) * of_variance) / count);
    put(channels + c, of_variance / count);
  }
  DTRAIN_HOST_DEVICE void put(std::int64_t i, double v) const {
    auto* to = static_cast<double*>(gradients.to);
    to[i] = gradients.put == Put::add ? to[i] + v : v;
  }
};

}  // namespace dtrain::cuda
