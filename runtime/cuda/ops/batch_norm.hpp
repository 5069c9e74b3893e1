// Batch normalization of a micro batch: what starts the kernels of its statistics, and their bodies; the rest is in
// normalization.hpp. Structs of arguments; see grid.hpp.
#pragma once

#include "runtime/cuda/ops/batch_moments.hpp"
#include "runtime/cuda/ops/normalization.hpp"

namespace dtrain::cuda {

/// Workspace: sums_bytes().
void batch_statistics(const Launch&, Element, const BatchNormPlace&, const void* x, const Statistics&, void* workspace);
/// What a library kept in `mean` and `inverse`, added to the step's sums.
void add_statistics(const Launch&, const BatchNormPlace&, const Statistics&);
/// The running statistics in place of the batch's; none are added to the step's sums.
void hold_statistics(const Launch&, const BatchNormPlace&, const float* mean, const float* variance, const Statistics&);

/// Of the sums that MomentTerms gives.
struct StatisticsFinish {
  Matrix shape;
  double epsilon;
  Element element;
  const void* x;
  Statistics statistics;
  DTRAIN_HOST_DEVICE void finish(std::int64_t c, double first, double second) const {
    const auto n = static_cast<double>(shape.rows);
    const double off = first / n;
    keep_statistics(statistics, c, value_at(element, x, c) + off, second / n - off * off, n, epsilon);
  }
};

struct HoldStatistics {
  double epsilon;
  const float *mean, *variance;
  Statistics statistics;
  DTRAIN_HOST_DEVICE void run(std::int64_t c) const {
    statistics.mean[c] = mean[c];
    statistics.inverse[c] = static_cast<float>(1.0 / std::sqrt(static_cast<double>(variance[c]) + epsilon));
    statistics.mean_sum[c] = 0;
    statistics.variance_sum[c] = 0;
  }
};

struct AddStatistics {
  Matrix shape;
  double epsilon;
  Statistics statistics;
  DTRAIN_HOST_DEVICE void run(std::int64_t c) const {
    const auto inverse = static_cast<double>(statistics.inverse[c]);
    const double variance = 1.0 / (inverse * inverse) - epsilon;
    add_to_sums(statistics, c, variance < 0 ? 0 : variance, static_cast<double>(shape.rows));
  }
};

}  // namespace dtrain::cuda
