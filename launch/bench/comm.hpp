// `dtrain bench comm`: all-reduce by size, as training does it on the device it would train on, beside plain MPI over
// host memory and what memory or link could carry. Collective over the ranks of a launch; the report is rank 0's.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "comm/world/world.hpp"
#include "launch/bench/report.hpp"
#include "launch/config/config.hpp"
#include "runtime/device/device.hpp"

namespace dtrain::launch {

struct CommBenchOptions {
  std::vector<std::string> sizes;  // "4k", "25m"; empty: from 4 KiB to 64 MiB
  double seconds = 1;              // of measuring a size
  comm::Algorithm algorithm = comm::Algorithm::automatic;
  comm::Transport transport = comm::Transport::automatic;
  DeviceChoice device = DeviceChoice::automatic;
  std::string profile;  // file to note the result in, for `check --profile`; empty: none
};

/// Checks the sums before it times them. Throws ConfigError where there is one rank alone, or a size makes no sense.
/// `device`: in place of the one that the options mean.
BenchReport bench_comm(comm::World&, const CommBenchOptions&, std::unique_ptr<Device> device = nullptr);

/// Bytes of "4096", "64k", "25m", "1g" (powers of 1024). Throws ConfigError naming `option`.
std::size_t parse_size(const std::string& text, const std::string& option);

}  // namespace dtrain::launch
