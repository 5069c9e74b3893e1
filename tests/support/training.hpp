// Training in a process of one rank on whatever device a test brings, with the digits that are part of the source; and
// what came of it. Each test has a folder of its own, which goes with it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "comm/world/local.hpp"
#include "comm/world/world.hpp"
#include "io/import/import_mnist.hpp"
#include "launch/base/signals.hpp"
#include "launch/config/config_file.hpp"
#include "launch/data/data.hpp"
#include "launch/data/device_data.hpp"
#include "launch/train/engine.hpp"
#include "launch/train/train.hpp"
#include "launch/train/train_step.hpp"
#include "runtime/device/device.hpp"
#include "tests/support/allocations.hpp"
#include "tests/support/async_device.hpp"

namespace dtrain::launch::test_training {

using Json = nlohmann::json;

/// A model of these layers on the digits that are part of the source (DIGITS and OTHERS are replaced by the files of
/// their two halves), and what else a test says. `data` and `model`: more of these sections.
inline std::string digits_config(const std::string& layers, const std::string& more,
                                 const std::string& data = "eval: OTHERS", const std::string& model = "") {
  return "name: digits\nthreads: 1\nmodel: {input: [1, 8, 8], loss: cross_entropy, layers: [" + layers + "], " + model +
         "}\ndata: {train: DIGITS, normalize: {scale: 0.0625}, " + data + "}\n" + more;
}

inline const std::string mlp =
    digits_config("flatten, dense: {units: 32, activation: relu}, dropout: {rate: 0.2}, dense: {units: 10}",
                  R"(batch: {global: 48}
optimizer: {sgd: {learning_rate: 0.1, momentum: 0.9}}
train: {steps: 20, eval_every_steps: 7}
log: {every_steps: 1}
checkpoint: {every_steps: 9}
)");

inline constexpr const char* cnn_layers =
    "conv2d: {filters: 8, kernel: 3, activation: relu}, batch_norm, maxpool2d: {size: 2}, flatten, dense: {units: 10}";
inline constexpr const char* augmented = "eval: OTHERS, augment: [random_crop: {padding: 1}]";

inline const std::string cnn = digits_config(cnn_layers, R"(batch: {global: 48, micro: 16}
optimizer: {adam: {learning_rate: 0.002}}
train: {steps: 20, ema: {decay: 0.9}, clip_norm: 1.5}
log: {every_steps: 3}
)",
                                             augmented);

struct Outcome {
  ExitCode code = ExitCode::bug;
  std::string out, error;
  Json summary;
  std::vector<Json> metrics;
  int calls = 0;  // of NCCL, that the host made, where it is simulated
};

class Training : public testing::Test {
 protected:
  Training()
      : folder_(std::filesystem::temp_directory_path() / fmt::format("dtrain-training-{}", getpid())),
        digits_((folder_ / "digits.h5").string()),
        others_((folder_ / "others.h5").string()) {
    std::filesystem::create_directories(folder_);
    const std::string from = "models/data/digits/";  // tests run in the repository's root
    for (const auto& [file, half] : {std::pair(digits_, "train"), std::pair(others_, "t10k")})
      if (!std::filesystem::exists(file))
        io::import_mnist(fmt::format("{}{}-images-idx3-ubyte.gz", from, half),
                         fmt::format("{}{}-labels-idx1-ubyte.gz", from, half), file);
  }
  ~Training() override {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  LoadedConfig config(std::string text, std::vector<std::string> overrides, const std::string& name) const {
    for (const auto& [word, file] : {std::pair("DIGITS", digits_), std::pair("OTHERS", others_)})
      for (auto at = text.find(word); at != std::string::npos; at = text.find(word)) text.replace(at, 6, file);
    overrides.push_back("log.directory=" + (folder_ / name).string());
    return parse_config(text, "test.yaml", overrides);
  }

  /// `device`: null for the cpu.
  Outcome train_on(std::unique_ptr<Device> device, const std::string& text, const std::vector<std::string>& overrides,
                   const std::string& name) const {
    const LoadedConfig loaded = config(text, overrides, name);
    Outcome result;
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    {
      StopSignals stop;
      comm::World world;
      result.code = train(loaded, world, stop, std::move(device));
    }
    result.out = testing::internal::GetCapturedStdout();
    result.error = testing::internal::GetCapturedStderr();
    read_files(name, result);
    return result;
  }

  void read_files(const std::string& name, Outcome& result) const {
    std::ifstream summary(folder_ / name / "summary.json"), metrics(folder_ / name / "metrics.jsonl");
    if (summary) result.summary = Json::parse(summary);
    for (std::string line; std::getline(metrics, line);) result.metrics.push_back(Json::parse(line));
  }

  std::filesystem::path folder_;
  std::string digits_, others_;
};

/// Everything but what time says.
inline void expect_same(const Outcome& a, const Outcome& b, const char* what = "") {
  SCOPED_TRACE(what);
  ASSERT_EQ(a.code, ExitCode::ok) << a.error;
  ASSERT_EQ(b.code, ExitCode::ok) << b.error;
  for (const char* key : {"parameter_hash", "average_hash", "eval", "train", "steps", "loss_scale"})
    EXPECT_EQ(a.summary.value(key, Json()), b.summary.value(key, Json())) << key;
  ASSERT_EQ(a.metrics.size(), b.metrics.size());
  for (std::size_t i = 0; i < a.metrics.size(); ++i)
    for (const char* key : {"step", "epoch", "loss", "learning_rate", "grad_norm", "loss_scale", "skipped", "eval"})
      EXPECT_EQ(a.metrics[i].value(key, Json()), b.metrics[i].value(key, Json())) << key << " of line " << i;
}

/// Steps, one by one.
struct Steps {
  /// `rank`: of several, each on its own thread; null: alone.
  Steps(const LoadedConfig& loaded, std::unique_ptr<test::AsyncDevice> d, comm::LocalRank* rank = nullptr)
      : config(loaded.config), world(rank != nullptr ? comm::World(*rank) : comm::World()), device(*d) {
    const BatchSplit batch = check_batch(loaded, world.size());
    engine.emplace(world, std::move(d));
    engine->connect(config, world);
    data.emplace(open_data(config, config.data.train, DataUse::training, config.data.cache_mib));
    const models::StoredPorts stored = stored_ports(*data);
    Graph graph = training_graph(config, batch.micro, stored);
    const std::vector<LoadedSet> sets =
        load_sets(config, graph, stored, *data, nullptr, world.rank(), world.size(), engine->device());
    engine->bind(std::move(graph), config, Mode::train, layouts_of(sets));
    step.emplace(config, *engine, world.watchdog(), stop, batch.accumulation);
    status.total_steps = 1000;
    status.batch = config.batch.schedule();
    status.loss_scale = loss_scaling(config).initial;
    on_device = DeviceData::make(device, engine->compute(), sets[0]);
    loader = io::Loader::training(*data, sets[0].options);
    step->model().initialize(engine->plan().graph, config.seed);
    step->start(status, sum_weights(*world.make_group(), loader->loss_weights(0)));
    engine->pack();
  }
  void run() {
    step->run(status, *loader, on_device.get(), false, seconds);
    ++status.step;
  }
  void read(int left) {
    while (step->under_way() > left) done = step->read(seconds);
  }
  /// As a trainer does.
  void go(int steps) {
    for (int i = 0; i < steps; ++i) {
      run();
      read(step->lag());
    }
  }

  const RunConfig config;
  StopSignals stop;
  comm::World world;
  test::AsyncDevice& device;
  RunStatus status;
  PhaseSeconds seconds;
  StepState done;  // what the latest step that was read came to
  std::optional<Engine> engine;
  std::optional<io::Dataset> data;
  std::unique_ptr<DeviceData> on_device;
  std::unique_ptr<io::Loader> loader;
  std::optional<TrainStep> step;
};

/// A dynamic loss scale that float32 gradients of these models overflow at now and then.
inline constexpr const char* overflowing =
    "train.dynamic_loss_scale={initial: 2.1267647932558654e+37, growth_steps: 2, maximum: 8.507059173023462e+37}";

/// With a warm-up; `micro_batches` a step, each recorded.
inline void expect_steps_that_neither_wait_nor_allocate(Steps& s, int micro_batches) {
  s.go(40);  // each piece of a step in both slots, timed and not
  const auto allocations = test::thread_allocation_count();
  const int on_device = s.device.allocations, streams = s.device.stream_waits, recordings = s.device.recordings;
  const int calls = s.device.kernel_calls, events = s.device.event_waits, replays = s.device.replays;
  const std::uint64_t applied = s.done.applied_steps;
  s.go(20);
  EXPECT_EQ(test::thread_allocation_count(), allocations);
  EXPECT_EQ(s.device.allocations, on_device);
  EXPECT_EQ(s.device.stream_waits, streams);
  EXPECT_EQ(s.device.recordings, recordings);
  EXPECT_EQ(s.device.kernel_calls, calls);  // all of it is replayed
  EXPECT_EQ(s.device.replays, replays + 20 * micro_batches);
  // The one wait of a step is for the results of the step before the one before it, so that the host does not run away;
  // and where a step has more micro batches than the loader's ring holds, for a copy of an earlier one.
  EXPECT_LE(s.device.event_waits, events + 20 * (micro_batches == 1 ? 1 : 4));
  // Steps were skipped, and others not, where the scale overflows.
  const std::uint64_t updates = s.done.applied_steps - applied;
  if (loss_scaling(s.config).dynamic) {
    EXPECT_GT(updates, 10u);
    EXPECT_LT(updates, 20u);
  } else {
    EXPECT_EQ(updates, 20u);
  }
  s.read(0);
}

}  // namespace dtrain::launch::test_training
