// Started by mpirun, in dtrain's place: CONFIG key=value..., trains on an asynchronous device;
// bench-comm SIZE..., measures sums on it.
//   DTRAIN_ASYNC_BUS_IDS: where each rank's GPU is, by rank, with commas; DTRAIN_ASYNC_DELAY_US: before each piece of
//   work
#include <cstdlib>
#include <exception>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "comm/watch/watchdog.hpp"
#include "comm/world/world.hpp"
#include "launch/base/error_text.hpp"
#include "launch/base/progress.hpp"
#include "launch/base/signals.hpp"
#include "launch/bench/comm.hpp"
#include "launch/cli/all_ranks.hpp"
#include "launch/config/config_file.hpp"
#include "launch/train/train.hpp"
#include "tests/support/async_device.hpp"

using namespace dtrain;
using namespace dtrain::launch;

namespace {

std::string of_environment(const char* name) {
  const char* const value = std::getenv(name);
  return value != nullptr ? value : "";
}

test::AsyncDevice::Options options_of(int rank) {
  test::AsyncDevice::Options options;
  std::istringstream ids(of_environment("DTRAIN_ASYNC_BUS_IDS"));
  for (int i = 0; i <= rank; ++i) std::getline(ids, options.bus_id, ',');
  options.compute_delay_us = std::atoi(of_environment("DTRAIN_ASYNC_DELAY_US").c_str());
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 2, argv + argc);
  if (std::string(argv[1]) == "bench-comm") {
    return on_all_ranks("bench comm", [&](comm::World& world) {
      CommBenchOptions bench;
      bench.sizes = words;
      bench.seconds = 0.1;
      bench.transport = comm::Transport::staged;  // there is no GPU that NCCL could use
      return bench_comm(world, bench, std::make_unique<test::AsyncDevice>(options_of(world.rank()))).json;
    });
  }
  StopSignals stop;  // before any thread starts
  comm::World world;
  ExitCode code = ExitCode::ok;
  try {
    const auto loaded = load_config(argv[1], words);
    code = train(loaded, world, stop, std::make_unique<test::AsyncDevice>(options_of(world.rank())));
  } catch (const std::exception& e) {
    const std::string text = error_text(e, code);
    if (world.rank() == 0) print_error(text);
  }
  return world.finish(code, 20);
}
