// `dtrain bench scaling`: the same training step over 1, 2, ... ranks, weak and strong: throughput, speed-up,
// efficiency and exposed communication with confidence intervals. One process, which starts mpirun for each number of
// ranks; nothing of it uses MPI itself.
#pragma once

#include <string>
#include <vector>

#include "launch/bench/report.hpp"
#include "launch/config/config_file.hpp"
#include "launch/plan/statistics.hpp"

namespace dtrain::launch {

struct ScalingOptions {
  std::vector<int> ranks;  // empty: 1, 2, 4, ... up to the cpus of the hosts
  int repeats = 5, steps = 50, warm_up = 10;
  bool weak = true, strong = true;
  std::string profile;  // of measured parts, to put predictions beside; empty: none
  std::string html;     // file to write the report to; empty: none
};

/// One kind of scaling, over numbers of ranks.
struct ScalingPoint {
  int ranks = 1;
  std::int64_t global_batch = 0;
  Estimate step;                                        // seconds
  Estimate throughput, speedup, efficiency;             // samples/s; over the fewest ranks; of a rank
  Estimate exposed;                                     // fraction of a step that waits for sums
  double predicted_step = 0, predicted_efficiency = 0;  // 0: not predicted
};
struct ScalingSeries {
  std::string kind;  // "weak", "strong"
  std::vector<ScalingPoint> points;
};
struct ScalingResult {
  std::string name, machine, command;
  int repeats = 0, steps = 0;
  std::vector<ScalingSeries> series;
  std::vector<std::string> notes;
};

/// `hosts`: those of the launch that this process is part of, one name a rank; empty where there is none. Throws what
/// ends a run, with the run's first error.
BenchReport bench_scaling(const LoadedConfig&, const ScalingOptions&, const std::vector<std::string>& hosts);

/// A page of its own: tables and plots, nothing else is loaded.
std::string scaling_page(const ScalingResult&);

}  // namespace dtrain::launch
