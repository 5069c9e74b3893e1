// A value of the evaluation's data that is not finite, met when all is trained: nothing that was trained is lost, and
// nothing that the user has.
#include <atomic>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include <gtest/gtest.h>

#include "comm/world/local.hpp"
#include "comm/world/world.hpp"
#include "io/checkpoint/checkpoint.hpp"
#include "io/hdf5/hdf5_writer.hpp"
#include "launch/base/signals.hpp"
#include "launch/plan/check.hpp"
#include "launch/train/train.hpp"
#include "tests/support/training.hpp"

namespace dtrain::launch {
namespace {

constexpr const char* text = R"(name: a
deterministic: elastic
model: {input: [2], loss: mean_squared_error, layers: [dense: {units: 1}]}
data: {train: DIGITS, eval: OTHERS, cache_mib: 0}
batch: {global: 16, micro: 4}
optimizer: {sgd: {learning_rate: 0.1}}
train: {steps: 20, eval_every_steps: 1000, ema: {decay: 0.9}}
checkpoint: {every_steps: 0}
)";

class LostWork : public test_training::Training {
 protected:
  /// 160 rows; the last but five is not finite where `bad`.
  void write(const std::string& path, bool bad) const {
    std::vector<float> x(320), y(160);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 7) / 7;
    for (std::size_t i = 0; i < y.size(); ++i) y[i] = x[2 * i] - x[2 * i + 1];
    if (bad) x[2 * 154 + 1] = NAN;
    io::h5::Writer file(path);
    const std::uint64_t rows[] = {160, 2};
    file.write(file.add("x", io::StoredType::f32, rows), 0, 160, x.data());
    file.write(file.add("y", io::StoredType::f32, {rows, 1}), 0, 160, y.data());
    file.commit();
  }
  void SetUp() override {
    write(digits_, false);
    write(others_, true);
  }
};

TEST_F(LostWork, NoneByABadValueOfTheEvaluation) {
  for (const int ranks : {1, 2}) {
    const LoadedConfig loaded = config(text, {}, std::to_string(ranks));
    testing::internal::CaptureStderr();
    std::atomic<int> of_data{0};
    StopSignals stop;
    comm::run_local(ranks, [&](comm::LocalRank& rank) {
      comm::World world(rank);
      if (train(loaded, world, stop) == ExitCode::data) ++of_data;
      world.finish(ExitCode::ok);
    });
    const std::string error = testing::internal::GetCapturedStderr();
    EXPECT_EQ(of_data, ranks) << error;
    EXPECT_NE(error.find("row 154: value 1 is nan"), std::string::npos) << error;
    EXPECT_NE(error.find("the checkpoint of step 20 has all that was trained"), std::string::npos) << error;
    // The parameters, not their average, which stood in their place meanwhile.
    const std::string directory = loaded.config.checkpoint.directory;
    EXPECT_TRUE(io::verify_checkpoints(directory).ok);
    write(others_, false);
    const auto whole = train_on(nullptr, text, {}, "whole");
    ASSERT_EQ(whole.code, ExitCode::ok) << whole.error;
    EXPECT_EQ(io::read_run_state(directory + "/step-000000020").parameter_hash,
              whole.summary["parameter_hash"].get<std::string>());
    // With the file mended the same command is left with the evaluation.
    const auto again = train_on(nullptr, text, {}, std::to_string(ranks));
    EXPECT_EQ(again.code, ExitCode::ok) << again.error;
    EXPECT_EQ(again.summary["eval"], whole.summary["eval"]);
    SetUp();
    std::filesystem::remove_all(folder_ / "whole");
  }
}

TEST_F(LostWork, AModelThatWasNotExportedIsMadeUpFor) {
  namespace fs = std::filesystem;
  write(others_, false);
  const auto run = [&](const std::string& steps) {
    return train_on(nullptr, text, {"checkpoint.export=safetensors", "train.steps=" + steps}, "exported");
  };
  const std::string checkpoints = (folder_ / "exported/checkpoints/").string();
  const auto there = [&](const std::string& step) {
    return fs::exists(checkpoints + step + "/safetensors/model.safetensors");
  };
  {  // A run that is asked to stop has no time for it.
    const LoadedConfig loaded = config(text, {"checkpoint.export=safetensors", "train.steps=20"}, "exported");
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    {
      StopSignals stop;
      std::raise(SIGTERM);
      comm::World world;
      EXPECT_EQ(train(loaded, world, stop), ExitCode::stopped);
    }
    testing::internal::GetCapturedStdout();
    const std::string error = testing::internal::GetCapturedStderr();
    EXPECT_NE(error.find("the export was given up: the run is stopping"), std::string::npos) << error;
  }
  const auto found = io::find_latest_valid(checkpoints);
  ASSERT_TRUE(found.has_value());
  const std::string stopped = fs::path(found->path).filename().string();
  EXPECT_FALSE(there(stopped));
  // One that goes on begins with it, and one that is finished, too.
  const std::string says = "it is written now";
  auto again = run("20");
  EXPECT_EQ(again.code, ExitCode::ok) << again.error;
  EXPECT_NE(again.out.find(says), std::string::npos) << again.out;
  EXPECT_TRUE(there(stopped) && there("step-000000020"));
  EXPECT_EQ(run("20").out.find(says), std::string::npos);
  fs::remove_all(checkpoints + "step-000000020/safetensors");
  again = run("20");
  EXPECT_EQ(again.code, ExitCode::ok) << again.error;
  EXPECT_NE(again.out.find("this run is finished"), std::string::npos) << again.out;
  EXPECT_TRUE(there("step-000000020"));
  // What fails is said, and training goes on.
  fs::remove_all(checkpoints + "step-000000020/safetensors");
  fs::create_symlink("nowhere", checkpoints + "step-000000020/safetensors");
  again = run("24");
  EXPECT_EQ(again.code, ExitCode::ok) << again.error;
  EXPECT_NE(again.error.find("its model could not be exported"), std::string::npos) << again.error;
  EXPECT_TRUE(there("step-000000024"));
}

TEST_F(LostWork, AConfigurationOfTheUsersIsKept) {
  const std::filesystem::path mine = folder_ / "mine";
  std::filesystem::create_directories(mine);
  std::ofstream(mine / "config.yaml") << "mine";
  const auto refused = train_on(nullptr, text, {}, "mine");
  EXPECT_EQ(refused.code, ExitCode::usage);
  EXPECT_NE(refused.error.find("mine has a config.yaml that was not written by a run"), std::string::npos)
      << refused.error;
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(mine), {}), 1);
  std::filesystem::remove_all(mine);
}

TEST_F(LostWork, ABadValueIsFoundByCheck) {
  for (const char* sets : {"DIGITS, eval: OTHERS", "OTHERS"}) {
    std::string settings = text;
    settings.replace(settings.find("DIGITS, eval: OTHERS"), 20, sets);
    try {
      check(config(settings, {}, "checked"), {});
      FAIL() << "expected a DataError";
    } catch (const DataError& e) {
      EXPECT_NE(std::string(e.what()).find("row 154: value 1 is nan"), std::string::npos) << e.what();
    }
  }
}

}  // namespace
}  // namespace dtrain::launch
