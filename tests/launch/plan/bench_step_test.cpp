// Where the time of a step goes on an asynchronous device: by its own events, not the host's clock.
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "comm/world/local.hpp"
#include "comm/world/world.hpp"
#include "launch/base/signals.hpp"
#include "launch/bench/step.hpp"
#include "launch/config/config_file.hpp"
#include "tests/support/async_device.hpp"
#include "tests/support/training.hpp"

namespace dtrain::launch {
namespace {

using Json = nlohmann::json;

class BenchStep : public test_training::Training {
 protected:
  LoadedConfig digits(const std::vector<std::string>& overrides) const {
    static const std::string text = test_training::digits_config(
        "flatten, dense: {units: 32, activation: relu}, dense: {units: 10}",
        "batch: {global: 48}\noptimizer: {sgd: {learning_rate: 0.1}}\ntrain: {steps: 1000}\n", "eval: []");
    return config(text, overrides, "bench");
  }
};

TEST_F(BenchStep, layers_are_timed_by_the_events_of_an_asynchronous_device) {
  const LoadedConfig loaded = digits({});
  constexpr double delay = 500e-6;  // before each piece of the device's work, and so in each layer's time
  for (const bool records : {true, false}) {
    SCOPED_TRACE(records);
    test::AsyncDevice::Options options;
    options.compute_delay_us = static_cast<int>(delay * 1e6);
    options.records = records;
    auto device = std::make_unique<test::AsyncDevice>(options);
    StepBenchOptions bench;
    bench.steps = 20;
    bench.warm_up = 4;
    Json report;
    {
      StopSignals stop;
      comm::World world;
      report = Json::parse(bench_step(world, loaded, bench, stop, std::move(device)).json);
    }
    double forward = 0, backward = 0;
    int layers = 0;
    for (const Json& layer : report.at("layers")) {
      forward += layer["forward"]["seconds"]["value"].get<double>();
      backward += layer["backward"]["seconds"]["value"].get<double>();
      if (layer["op"] == "flatten") continue;  // no work
      ++layers;
      EXPECT_GE(layer["forward"]["seconds"]["value"].get<double>(), delay) << layer;
      EXPECT_GE(layer["backward"]["seconds"]["value"].get<double>(), delay) << layer;
    }
    EXPECT_GE(layers, 3);
    // They add up to the phases of whole steps, which are timed by other events.
    const double phase =
        report["seconds"]["forward"]["value"].get<double>() + report["seconds"]["backward"]["value"].get<double>();
    EXPECT_GT(phase, 0.5 * (forward + backward));
    EXPECT_LT(phase, 2 * (forward + backward));
  }
}

TEST_F(BenchStep, sums_that_ranks_wait_for_on_their_devices_are_exposed) {
  const LoadedConfig loaded = digits({"communication.transport=staged"});
  Json report;
  StopSignals stop;
  comm::run_local(2, [&](comm::LocalRank& rank) {
    comm::World world(rank);
    test::AsyncDevice::Options options;
    options.compute_delay_us = rank.rank() == 0 ? 100 : 1000;  // rank 0 waits for rank 1 in each step
    StepBenchOptions bench;
    bench.steps = 20;
    bench.warm_up = 10;
    bench.brief = true;
    const auto result = bench_step(world, loaded, bench, stop, std::make_unique<test::AsyncDevice>(options));
    if (rank.rank() == 0) report = Json::parse(result.json);
    world.finish(ExitCode::ok);
  });
  const double step = report.at("seconds").at("step").at("value").get<double>();
  const double exposed = report.at("seconds").at("communication_exposed").at("value").get<double>();
  EXPECT_GT(exposed, 0.004);  // seven pieces of work of a pass at least, each 0.9 ms longer on rank 1
  // Not longer than all steps. Than their median it may be: the phases are those of a few steps that were timed.
  EXPECT_LT(exposed, 20 * step);
  EXPECT_LT(report["seconds"]["optimizer"]["value"].get<double>(), exposed);  // which does not count the wait
}

}  // namespace
}  // namespace dtrain::launch
