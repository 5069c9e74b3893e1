// Where the time of a step goes on an asynchronous device: by its own events, not the host's clock.
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "comm/world/local.hpp"
#include "comm/world/world.hpp"
#include "io/import/import_mnist.hpp"
#include "launch/base/signals.hpp"
#include "launch/bench/step.hpp"
#include "launch/config/config_file.hpp"
#include "tests/support/async_device.hpp"

namespace dtrain::launch {
namespace {

using Json = nlohmann::json;

constexpr const char* mlp = R"(
name: digits
threads: 1
model:
  input: [1, 8, 8]
  layers:
    - flatten
    - dense: {units: 32, activation: relu}
    - dense: {units: 10}
  loss: cross_entropy
data: {train: DIGITS, normalize: {scale: 0.0625}}
batch: {global: 48}
optimizer: {sgd: {learning_rate: 0.1}}
train: {steps: 1000}
)";

class BenchStep : public testing::Test {
 protected:
  BenchStep() : folder_(std::filesystem::temp_directory_path() / fmt::format("dtrain-bench-step-{}", getpid())) {
    std::filesystem::create_directories(folder_);
    const std::string digits = (folder_ / "digits.h5").string(), from = "models/data/digits/";
    io::import_mnist(from + "train-images-idx3-ubyte.gz", from + "train-labels-idx1-ubyte.gz", digits);
    text_.replace(text_.find("DIGITS"), 6, digits);
  }
  ~BenchStep() override {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  std::filesystem::path folder_;
  std::string text_ = mlp;
};

TEST_F(BenchStep, layers_are_timed_by_the_events_of_an_asynchronous_device) {
  const LoadedConfig loaded = parse_config(text_, "test.yaml", {});
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
  const std::vector<std::string> staged{"communication.transport=staged"};
  const LoadedConfig loaded = parse_config(text_, "test.yaml", staged);
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
  EXPECT_LT(exposed, step);
  EXPECT_LT(report["seconds"]["optimizer"]["value"].get<double>(), exposed);  // which does not count the wait
}

}  // namespace
}  // namespace dtrain::launch
