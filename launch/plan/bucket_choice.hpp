// How gradients are cut into buckets: the cut with which a step is predicted to be over first, from when gradients are
// complete and how long their sums take.
// Pure functions over plain data, for any thread; launch/plan/bucket_tuning.hpp measures what they are given.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "comm/collective/config.hpp"
#include "launch/plan/predict.hpp"
#include "launch/plan/profile.hpp"
#include "runtime/plan/flat.hpp"
#include "runtime/plan/plan.hpp"

namespace dtrain::launch {

/// What one rank computes in a step, before it is known how gradients are cut.
struct RankWork {
  /// The first `floats` of the flat gradients are complete after so many seconds of the last micro batch's backward.
  struct Complete {
    std::size_t floats = 0;
    double seconds = 0;
  };
  double before = 0;               // seconds until that backward begins
  double backward = 0;             // its own
  std::vector<Complete> complete;  // of growing floats; the last holds all
  double update = 0;               // of all parameters
  double per_bucket = 0;           // what a bucket's update takes however small it is
  bool shares_processor = false;   // sums have no processor of their own
};

/// What a device can do at best; `step`: seconds that a step takes however small it is.
struct DeviceRates {
  double flops = 0, bytes = 0;  // a second; no flops: bytes alone count
  double step = 3e-6;
};
/// The plan's costs at these rates: each step takes what its operations or its bytes take, whichever is more.
RankWork work_of(const Plan&, const DeviceRates&, std::int64_t accumulation, int optimizer_floats, int shards);

/// Seconds of a sum of so many bytes on the wire, alone, and the fraction of a processor that it takes.
struct SumCost {
  double seconds = 0, processor = 0;
};
using SumCosts = std::function<SumCost(double bytes)>;
/// As measured over these ranks, or scaled to others (all_reduce_seconds).
SumCosts sum_costs(CommProfile, int ranks);

/// The flat gradients to be cut.
struct GradientSize {
  std::size_t floats = 0, tail = 0;  // of these, at the end, inside the last bucket whatever is chosen
  int shards = 1;
  double wire = 1;  // bytes on the wire for each byte
};
GradientSize gradient_size(const Plan&, DType wire, int shards);

/// What simulate() is given of a step whose gradients are cut like this.
StepModel step_model(const RankWork&, const std::vector<Bucket>&, const SumCosts&, double wire);

struct BucketChoice {
  BucketOptions options;
  std::size_t buckets = 0;
  double step = 0, exposed = 0;  // seconds, predicted
};
/// What there is to choose from: powers of two of MiB. `last_mib`: the last bucket's size where it is pinned, else 0.
std::vector<BucketOptions> bucket_candidates(const GradientSize&, double last_mib = 0);
/// A given cut, predicted.
BucketChoice predicted(const BucketOptions&, const RankWork&, const GradientSize&, const SumCosts&);
/// Of those within half a percent of the shortest step the one with the fewest buckets: predictions are no better.
BucketChoice choose_buckets(const RankWork&, const GradientSize&, const SumCosts&, double last_mib = 0);

/// "bucket_mib 8, last_bucket_mib 0.5, least_buckets 1", and back; `shards` and `smallest_mib` are not in it. Throws
/// CheckpointError for another text.
std::string text_of(const BucketOptions&);
BucketOptions parse_buckets(const std::string&);
/// As if the configuration had them as numbers.
void set_buckets(comm::CommConfig&, const BucketOptions&);

}  // namespace dtrain::launch
