// `dtrain bench data`: how many samples a second the loader alone delivers, by its number of threads.
// One process; the data set and its threads live as long as the call.
#pragma once

#include <vector>

#include "launch/bench/report.hpp"
#include "launch/config/config_file.hpp"

namespace dtrain::launch {

struct DataBenchOptions {
  std::vector<int> threads;  // empty: 1, 2, 4, ... up to the cpus of this process
  double seconds = 1;        // of measuring each
};

/// Reads training batches as one rank of one would, and throws them away.
BenchReport bench_data(const LoadedConfig&, const DataBenchOptions&);

}  // namespace dtrain::launch
