// The time of a step on any number of ranks, predicted from measured parts: computation of a rank, all-reduce by size,
// and how the two overlap and share a processor.
// Pure functions over a Profile and a plan's buckets.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "launch/plan/profile.hpp"

namespace dtrain::launch {

/// What one rank computes in a step, and what it sends.
struct StepModel {
  double before = 0;              // seconds until the last micro batch's backward begins
  double backward = 0;            // of the last micro batch
  std::vector<double> ready;      // by bucket: seconds of that backward after which it is complete
  std::vector<double> sum;        // by bucket: seconds of its sum alone
  std::vector<double> processor;  // by bucket: fraction of a processor that its sum takes
  std::vector<double> update;     // by bucket: seconds, after its sum
  bool shares_processor = false;  // sums have no processor of their own
};
struct SimulatedStep {
  double seconds = 0;
  double exposed = 0;  // waited for sums
};
/// Buckets are summed one after another, in order, each as soon as it is ready; their updates follow in order. Where
/// the processor is shared, a sum takes what it needs of it, half at most while the rank computes.
SimulatedStep simulate(const StepModel&);

/// Seconds of an all-reduce of `bytes` over `ranks`, from what was measured over others: the part that the smallest
/// message takes grows with log2 of the ranks, the rest with 2(N-1)/N, as a ring's.
double all_reduce_seconds(const CommProfile&, double bytes, int ranks);
/// The fraction of a processor that it takes of a rank.
double all_reduce_processor(const CommProfile&, double bytes);

struct RankWork;
/// What one rank computes, from the parts that were measured nearest to this part of the batch and to so many ranks on
/// a host; `notes` gets what was not measured, but scaled. Throws ConfigError that says what to measure.
RankWork measured_work(const Profile&, const LoadedConfig&, const BatchSplit&, int ranks_on_host,
                       std::vector<std::string>& notes);

struct Prediction {
  int ranks = 1, hosts = 1;
  double step = 0, compute = 0, exposed = 0;  // seconds; `compute`: the same rank without others
  double samples_per_second = 0;
  double efficiency = 1;           // compute / step
  double speedup = 0;              // over one rank with the whole global batch; 0: its parts were not measured
  std::vector<std::string> notes;  // what was not measured, but scaled
};
/// `bucket_bytes`: of the plan. `ranks_per_host`: 0: as `bench comm` found them. Throws ConfigError that says what to
/// measure where the profile lacks it.
Prediction predict(const Profile&, const LoadedConfig&, const std::vector<std::size_t>& bucket_bytes, int ranks,
                   int ranks_per_host);

}  // namespace dtrain::launch
