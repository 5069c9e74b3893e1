// The command line as a user meets it: what each mistake is told, exit codes, and what the commands print.
#include "launch/cli/cli.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "launch/bench/commands.hpp"
#include "launch/config/config_file.hpp"
#include "launch/plan/check.hpp"

namespace dtrain::launch {
namespace {

struct Result {
  int code;
  std::string out, error;
};

Result run(const std::vector<std::string>& args) {
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  const AddCommands more[] = {add_bench_commands};  // as main() does
  const int code = run_command_line(args, more);
  Result result{code, testing::internal::GetCapturedStdout(), testing::internal::GetCapturedStderr()};
  return result;
}

class Cli : public testing::Test {
 protected:
  Cli() : folder_(std::filesystem::temp_directory_path() / ("dtrain-cli-" + std::to_string(getpid()))) {
    std::filesystem::create_directories(folder_);
  }
  ~Cli() override {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  std::filesystem::path folder_;
};

TEST_F(Cli, TellsEachMistakeInOneLine) {
  struct Row {
    std::vector<std::string> args;
    std::string error;
  };
  const std::vector<Row> table = {
      {{"chek", "c.yaml"},
       "error: dtrain: unknown command \"chek\"; expected a configuration file or one of train, check, config, "
       "eval, predict, generate, data, checkpoint, doctor, bench; did you mean check?\n"},
      {{"data", "imprt"},
       "error: dtrain data: unknown command \"imprt\"; expected one of import, repack, inspect, make; did you mean "
       "import?\n"},
      {{"check", "models/recipes/mnist-cnn.yaml", "--rank", "3"},
       "error: unknown option --rank; did you mean --ranks?; see dtrain check --help\n"},
      {{"check"}, "error: config is required; see dtrain check --help\n"},
      {{"check", "none.yaml"}, "error: none.yaml: cannot read the configuration: No such file or directory\n"},
      {{"check", "models/recipes/mnist-cnn.yaml", "--ranks", "3"},
       "error: models/recipes/mnist-cnn.yaml:20:17: batch.global: 64 cannot be divided among 3 ranks; expected a "
       "multiple "
       "of 3: "
       "63 or 66\n"},
      {{"config", "show", "models/recipes/mnist-cnn.yaml", "sed=2"},
       "error: command line: sed=2: unknown key \"sed\"; expected one of name, seed, device, precision, threads, "
       "model, "
       "data, batch, optimizer, schedule, train, memory, cuda, communication, checkpoint, deterministic, log; did you "
       "mean "
       "seed?\n"},
  };
  for (const Row& row : table) {
    const Result result = run(row.args);
    EXPECT_EQ(result.code, 2) << row.error;
    EXPECT_EQ(result.error, row.error);
    EXPECT_EQ(result.out, "");
  }
  const Result range = run({"check", "models/recipes/mnist-cnn.yaml", "--ranks", "0"});
  EXPECT_EQ(range.code, 2);
  // The words for a range are CLI11's: those of 2.1 and those of 2.4.
  EXPECT_TRUE(range.error == "error: --ranks: Value 0 not in range 1 to 1048576; see dtrain check --help\n" ||
              range.error == "error: --ranks: Value 0 not in range [1 - 1048576]; see dtrain check --help\n")
      << range.error;
}

TEST_F(Cli, ShowsExamplesFirst) {
  const Result bare = run({});
  EXPECT_EQ(bare.code, 2);
  EXPECT_TRUE(bare.out.starts_with("Examples:\n  mpirun -np 2 dtrain ")) << bare.out;
  const std::vector<std::vector<std::string>> all = {{"--help"},
                                                     {"train", "--help"},
                                                     {"check", "--help"},
                                                     {"config", "show", "--help"},
                                                     {"data", "import", "mnist", "--help"},
                                                     {"data", "import", "images", "--help"},
                                                     {"data", "repack", "--help"},
                                                     {"data", "inspect", "--help"},
                                                     {"data", "make", "regression", "--help"},
                                                     {"checkpoint", "verify", "--help"}};
  for (const auto& args : all) {
    const Result help = run(args);
    EXPECT_EQ(help.code, 0);
    EXPECT_TRUE(help.out.starts_with("Examples:\n")) << help.out;
    EXPECT_NE(help.out.find("Usage: "), std::string::npos);
  }
  const Result version = run({"--version"});
  EXPECT_EQ(version.code, 0);
  EXPECT_TRUE(version.out.starts_with("dtrain 0.")) << version.out;
}

// CLI11 2.1 takes every positional's name; newer ones, of Debian 13 and Ubuntu 24.04, end the program at the first bad
// one.
TEST_F(Cli, HasNamesThatEveryParserTakes) {
  const AddCommands more[] = {add_bench_commands};
  const std::vector<std::string> names = command_line_names(more);
  for (const char* some : {"bench", "mnist", "config", "settings", "first", "o", "output", "ranks", "sum-processor"})
    EXPECT_NE(std::find(names.begin(), names.end(), some), names.end()) << some;
  for (const std::string& name : names) {
    ASSERT_FALSE(name.empty());
    EXPECT_FALSE(name.starts_with('-') || name.starts_with('!')) << name;
    EXPECT_EQ(std::count_if(name.begin(), name.end(), [](unsigned char c) { return c <= ' ' || c == 0x7f; }), 0)
        << name;
    EXPECT_EQ(name.find_first_of("=:{}"), std::string::npos) << name;
  }
  for (const std::vector<std::string>& command : std::vector<std::vector<std::string>>{
           {"train"}, {"check"}, {"config", "show"}, {"eval"}, {"predict"}, {"bench", "step"}}) {
    std::vector<std::string> args = command;
    args.push_back("--help");
    const std::string help = run(args).out;
    EXPECT_NE(help.find(" config [key=value...]\n"), std::string::npos) << help;
    EXPECT_NE(help.find("\n  key=value TEXT ..."), std::string::npos) << help;
  }
}

TEST_F(Cli, PrintsTheSchemaAndTheResolvedConfiguration) {
  EXPECT_EQ(run({"config", "schema"}).out, config_schema());
  EXPECT_EQ(run({"config", "schema", "--markdown"}).out, config_reference());
  const Result shown = run({"config", "show", "models/recipes/mnist-cnn.yaml", "seed=7"});
  EXPECT_EQ(shown.code, 0);
  EXPECT_NE(shown.out.find("seed: 7"), std::string::npos);
  EXPECT_NE(shown.out.find("# command line: seed=7"), std::string::npos);
  // The comments are YAML's: what is shown loads.
  EXPECT_NO_THROW(parse_config(shown.out, "shown.yaml"));
}

TEST_F(Cli, ChecksARecipeWithItsData) {
  const Result made = run({"data", "make", "regression", "-o", path("r.h5"), "--samples", "130"});
  ASSERT_EQ(made.code, 0) << made.error;
  EXPECT_EQ(run({"data", "inspect", path("r.h5")}).code, 0);
  const std::vector<std::string> args = {
      "check", "models/recipes/linear-regression.yaml", "data.train=" + path("r.h5"), "--ranks", "2", "batch.micro=16"};
  const Result text = run(args);
  ASSERT_EQ(text.code, 0) << text.error;
  EXPECT_NE(text.out.find("11 parameters"), std::string::npos) << text.out;
  EXPECT_NE(text.out.find("Batch: 64 = 2 ranks x 2 micro batches of 16"), std::string::npos) << text.out;
  std::vector<std::string> as_json = args;
  as_json.push_back("--json");
  const auto json = nlohmann::json::parse(run(as_json).out);
  EXPECT_EQ(json.at("parameters"), 11);
  EXPECT_EQ(json.at("ranks"), 2);
  EXPECT_EQ(json.at("train_samples"), 130);
  EXPECT_EQ(json.at("total_steps"), (100 * 130 + 63) / 64);
  EXPECT_EQ(json.at("batch").at("accumulation"), 2);
  EXPECT_EQ(json.at("wire_bytes_per_step"), json.at("gradient_bytes"));  // 2 (N - 1) / N = 1
  EXPECT_EQ(json.at("layers").at(0).at("name"), "dense_1");
  for (const char* key : {"parameters", "gradients", "optimizer", "packed", "arena", "inputs", "total"})
    EXPECT_TRUE(json.at("memory_bytes").contains(key)) << key;
  const Result wrong =
      run({"check", "models/recipes/linear-regression.yaml", "data.train=" + path("r.h5"), "model.input=[9]"});
  EXPECT_EQ(wrong.code, 2) << wrong.error;
  EXPECT_TRUE(wrong.error.starts_with("error: ")) << wrong.error;
}

TEST_F(Cli, TheCheckIsNarrow) {
  const Result result =
      run({"check", "models/recipes/mnist-cnn.yaml", "data={train: /none/a.h5, eval: /none/b.h5}", "--ranks", "8"});
  ASSERT_EQ(result.code, 0) << result.error;
  EXPECT_NE(result.out.find("93,322"), std::string::npos) << result.out;
  std::istringstream lines(result.out);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100u) << line;
}

TEST_F(Cli, UsesTheExitCodesOfItsErrors) {
  std::ofstream(path("bad.h5")) << "not HDF5";
  EXPECT_EQ(run({"data", "inspect", path("bad.h5")}).code, 3);
  EXPECT_EQ(run({"data", "import", "mnist", path("none"), path("none"), "-o", path("o.h5")}).code, 3);
  std::filesystem::create_directories(path("step-000000001"));
  EXPECT_EQ(run({"checkpoint", "verify", path("step-000000001")}).code, 4);
}

}  // namespace
}  // namespace dtrain::launch
