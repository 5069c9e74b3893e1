// `dtrain bench step`: where the time of a training step goes, against what the machine could do.
// Collective over the ranks of a launch, or one process alone; the report is rank 0's.
#pragma once

#include <memory>
#include <string>

#include "comm/world/world.hpp"
#include "launch/base/signals.hpp"
#include "launch/bench/report.hpp"
#include "launch/config/config_file.hpp"
#include "runtime/device/device.hpp"

namespace dtrain::launch {

struct StepBenchOptions {
  int steps = 50, warm_up = 10;
  bool brief = false;   // the whole step alone: neither layers nor the machine's rates
  std::string profile;  // file to note the parts in, for `check --profile`; empty: none
};

/// Trains from initial parameters on the real data, and writes nothing but the profile.
BenchReport bench_step(comm::World&, const LoadedConfig&, const StepBenchOptions&, StopSignals&,
                       std::unique_ptr<Device> device = nullptr);

}  // namespace dtrain::launch
