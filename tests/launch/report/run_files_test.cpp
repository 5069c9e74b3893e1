#include "launch/report/run_files.hpp"

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <sys/stat.h>
#include <unistd.h>

#include "launch/base/progress.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::launch {
namespace {

class RunFiles : public ::testing::Test {
 protected:
  RunFiles() : directory_(std::filesystem::temp_directory_path() / ("dtrain-run-files-" + std::to_string(getpid()))) {
    make_directory(directory_.string(), "log.directory");
  }
  ~RunFiles() override { std::filesystem::remove_all(directory_); }
  std::vector<nlohmann::json> metrics() const {
    std::ifstream in(directory_ / "metrics.jsonl");
    std::vector<nlohmann::json> lines;
    for (std::string line; std::getline(in, line);) lines.push_back(nlohmann::json::parse(line));
    return lines;
  }
  std::filesystem::path directory_;
};

TEST_F(RunFiles, MetricsAreOneObjectALineWithTheDocumentedKeys) {
  MetricsFile file(directory_.string(), 0);
  StepMetrics m;
  m.step = 10;
  m.loss = 0.5;
  file.write(m);
  file.write(10, EvalMetrics{0.25, 0.75});
  const auto lines = metrics();
  ASSERT_EQ(lines.size(), 2u);
  for (const char* key :
       {"step", "epoch", "loss", "learning_rate", "grad_norm", "samples_per_second", "memory_mib", "seconds"})
    EXPECT_TRUE(lines[0].contains(key)) << key;
  for (const char* key : {"step", "data", "forward", "backward", "communication_exposed", "optimizer", "checkpoint"})
    EXPECT_TRUE(lines[0]["seconds"].contains(key)) << key;
  EXPECT_EQ(lines[1]["eval"]["accuracy"], 0.75);
}

TEST_F(RunFiles, AResumedRunDropsTheLinesOfLostWorkAndAHalfWrittenOne) {
  {
    MetricsFile file(directory_.string(), 0);
    for (std::int64_t s = 1; s <= 5; ++s) {
      StepMetrics m;
      m.step = s;
      file.write(m);
    }
    std::ofstream(directory_ / "metrics.jsonl", std::ios::app) << "{\"step\": 6, \"lo";
  }
  MetricsFile(directory_.string(), 3).write(4, EvalMetrics{1, -1});
  std::vector<int> steps;
  for (const auto& line : metrics()) steps.push_back(line["step"]);
  EXPECT_EQ(steps, (std::vector<int>{1, 2, 3, 4}));
}

TEST_F(RunFiles, AResumedSampleLogHoldsOnlyStepsThatCount) {
  const auto put = [&](int rank, const char* text) {
    std::ofstream(directory_ / ("samples-rank-" + std::to_string(rank) + ".txt")) << text;
  };
  const auto text_of = [&](int rank) {
    std::ifstream in(directory_ / ("samples-rank-" + std::to_string(rank) + ".txt"));
    return std::string(std::istreambuf_iterator<char>(in), {});
  };
  put(0, "0 0 7\n1 6 2\n2 12 9\n");
  put(1, "0 2 5\n1 8 1\n");
  put(2, "0 4 3\n1 10 4\n2 1");  // by a third rank, killed while writing
  open_sample_log(directory_.string(), 0, 2, 1).append("1 6 2\n");
  EXPECT_EQ(text_of(0), "0 0 7\n1 6 2\n");
  EXPECT_EQ(text_of(2), "0 4 3\n");
  EXPECT_EQ(text_of(1), "0 2 5\n1 8 1\n");  // rank 1 sees to that
  open_sample_log(directory_.string(), 1, 2, 0);
  EXPECT_EQ(text_of(1), "");
}

TEST_F(RunFiles, NothingOfTheUsersIsWrittenOver) {
  for (const char* name : {"config.yaml", "metrics.jsonl", "summary.json"}) {
    std::ofstream(directory_ / name) << "mine";
    try {
      check_run_directory(directory_.string());
      ADD_FAILURE() << "expected a ConfigError for " << name;
    } catch (const ConfigError& e) {
      EXPECT_NE(std::string(e.what()).find(std::string("has a ") + name), std::string::npos) << e.what();
    }
    std::filesystem::remove(directory_ / name);
  }
  { EXPECT_TRUE(take_run_directory(directory_.string(), "1").held()); }
  std::ofstream(directory_ / "config.yaml") << "of the run before";
  EXPECT_NO_THROW(check_run_directory(directory_.string()));
  EXPECT_TRUE(take_run_directory(directory_.string(), "2").held());
}

TEST_F(RunFiles, ADirectoryOfAnOlderDtrainIsTaken) {
  std::ofstream(directory_ / "config.yaml") << "of a run";
  std::ofstream(directory_ / "events.out.tfevents.0000000001.host.00.dtrain") << "";
  EXPECT_NO_THROW(check_run_directory(directory_.string()));
}

TEST_F(RunFiles, ASecondRunIsRefusedAndToldWhoHasTheDirectory) {
  const auto lock = take_run_directory(directory_.string(), "first");
  try {
    take_run_directory(directory_.string(), "second");
    FAIL() << "expected a CheckpointError";
  } catch (const CheckpointError& e) {
    EXPECT_EQ(std::string(e.what()).find("log directory " + directory_.string() + " is in use by process"), 0u)
        << e.what();
    EXPECT_NE(std::string(e.what()).find("run first; stop that job or choose another log.directory"),
              std::string::npos);
  }
}

TEST_F(RunFiles, AFifoOrADeviceIsRefused) {
  for (const char* name : {"metrics.jsonl", "samples-rank-0.txt"}) {
    ASSERT_EQ(mkfifo((directory_ / name).c_str(), 0600), 0);
    EXPECT_THROW(
        {
          MetricsFile(directory_.string(), 3);
          open_sample_log(directory_.string(), 0, 1, 3);
        },
        DataError);
    std::filesystem::remove(directory_ / name);
  }
  std::filesystem::remove(directory_ / "metrics.jsonl");
  std::filesystem::create_symlink("/dev/zero", directory_ / "metrics.jsonl");
  EXPECT_THROW(MetricsFile(directory_.string(), 3), DataError);
  EXPECT_THROW(write_whole_file(directory_.string(), "metrics.jsonl", ""), DataError);
}

TEST_F(RunFiles, ADirectoryThatCannotBeMadeIsAnErrorWithFieldAndPath) {
  std::ofstream(directory_ / "file") << "x";
  try {
    make_directory((directory_ / "file" / "below").string(), "log.directory");
    FAIL() << "expected a ConfigError";
  } catch (const ConfigError& e) {
    const std::string what = e.what();
    EXPECT_NE(what.find("log.directory"), std::string::npos) << what;
    EXPECT_NE(what.find("file/below"), std::string::npos) << what;
  }
}

TEST(FormatDuration, ReadsLikeAClock) {
  EXPECT_EQ(format_duration(0), "0:00");
  EXPECT_EQ(format_duration(65.4), "1:05");
  EXPECT_EQ(format_duration(3723), "1:02:03");
}

}  // namespace
}  // namespace dtrain::launch
