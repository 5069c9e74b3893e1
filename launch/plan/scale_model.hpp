// Weak scaling over a cluster that is described and not at hand: `dtrain check --link nvlink --network 400gbit`.
// Pure functions; the report says that it is modelled, and of what.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "launch/config/config_file.hpp"
#include "launch/plan/cluster.hpp"
#include "launch/plan/profile.hpp"

namespace dtrain::launch {

/// As given on the command line; empty and 0: not given.
struct ClusterOptions {
  std::string link, network;
  int cards = 0;
  double processor = -1;  // fraction of a rank's processor that a sum takes
  double jitter = -1;     // standard deviation of a rank's computation from step to step, over its time
  std::string flops;      // a second, of a rank: "989t"
  double efficiency = 1;  // of these, reached
  bool given() const { return !link.empty() || !network.empty() || !flops.empty(); }
};

struct ScaleRow {
  int ranks = 1, hosts = 1;
  BucketChoice buckets;
  double communication = 0;  // seconds of all sums, were they alone
  double step = 0, exposed = 0;
  double samples_per_second = 0;
  double efficiency = 1;    // against one rank
  double against_host = 1;  // against the ranks of one host
  std::string published;    // of others, on the same number of ranks; empty: none
};
struct ScaleModel {
  double compute = 0;  // seconds of a step of one rank alone
  std::vector<ScaleRow> rows;
  std::vector<std::string> assumptions;
};

/// Rows for one host, two, four, ... up to `ranks`, each rank with the part of the batch that it has in the
/// configuration on `ranks`. `profile`: of measured computation; null: from the stated rate. Buckets as the
/// configuration has them, or chosen for each row. Throws ConfigError that names the option.
ScaleModel model_scaling(const LoadedConfig&, const ClusterOptions&, const Profile* profile, int ranks,
                         int ranks_per_host);

/// Of the largest of n independent draws of a normal distribution: its mean, in standard deviations (Blom 1958).
double expected_largest(int n);

std::string text_of(const ScaleModel&);
nlohmann::ordered_json to_json(const ScaleModel&);

}  // namespace dtrain::launch
