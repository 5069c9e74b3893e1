#include "launch/cli/start_ranks.hpp"

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

namespace dtrain::launch {
namespace {

using Words = std::vector<std::string>;
namespace fs = std::filesystem;

TEST(StartRanks, tells_mpirun_what_it_must_know) {
  RankStart start{"/usr/bin/mpirun", "/opt/dtrain", 8, false, 64};
  EXPECT_EQ(
      mpirun_command(start, {"train", "c.yaml", "seed=2"}),
      (Words{"/usr/bin/mpirun", "-q", "--bind-to", "none", "-np", "8", "/opt/dtrain", "train", "c.yaml", "seed=2"}));
  start.root = true;
  start.cores = 4;
  EXPECT_EQ(mpirun_command(start, {"train", "c.yaml"}),
            (Words{"/usr/bin/mpirun", "-q", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-np", "8",
                   "/opt/dtrain", "train", "c.yaml"}));
}

TEST(StartRanks, gives_the_ranks_all_other_arguments) {
  EXPECT_EQ(without_ranks({"train", "c.yaml", "--ranks", "2"}), (Words{"train", "c.yaml"}));
  EXPECT_EQ(without_ranks({"eval", "--ranks=2", "c.yaml", "--json"}), (Words{"eval", "c.yaml", "--json"}));
  EXPECT_EQ(without_ranks({"train", "--ranks", "2", "seed=3"}), (Words{"train", "seed=3"}));
}

TEST(StartRanks, the_exit_code_is_mpiruns_and_75_where_the_run_was_stopped_and_nothing_lost) {
  const auto exited = [](int code) { return code << 8; };
  EXPECT_EQ(code_of_run(exited(0), false, 0), 0);
  EXPECT_EQ(code_of_run(exited(75), true, 75), 75);
  EXPECT_EQ(code_of_run(exited(5), true, -1), 5);
  EXPECT_EQ(code_of_run(exited(137), true, -1), 137);
  EXPECT_EQ(code_of_run(SIGKILL, false, -1), 137);
  EXPECT_EQ(code_of_run(exited(1), false, -1), 1)
      << "a signal to mpirun, which has killed the ranks before they were done";
  EXPECT_EQ(code_of_run(exited(1), false, 75), 75) << "and one that they have answered";
  EXPECT_EQ(code_of_run(SIGUSR1, false, -1), 138);
  EXPECT_EQ(code_of_run(SIGUSR1, true, -1), 75) << "mpirun was not ready for it";
  EXPECT_EQ(code_of_run(exited(138), true, -1), 75) << "nor were the ranks";
}

TEST(StartRanks, finds_mpirun_beside_the_program_before_the_path) {
  const fs::path folder = fs::temp_directory_path() / fmt::format("dtrain-start-{}", getpid());
  const auto put = [&](const char* place) {
    fs::create_directories((folder / place).parent_path());
    std::ofstream(folder / place) << "#!/bin/sh\n";
    fs::permissions(folder / place, fs::perms::owner_all);
    return (folder / place).string();
  };
  const std::string program = (folder / "bin" / "dtrain").string(), path = std::getenv("PATH");
  const std::string in_path = put("path/mpirun");
  setenv("PATH", (folder / "path").c_str(), 1);
  EXPECT_EQ(find_mpirun(program), in_path);
  const std::string beside = put("bin/mpirun");
  EXPECT_EQ(find_mpirun(program), beside);
  const std::string bundle = put("bundle/mpirun");
  setenv("DTRAIN_BUNDLE", (folder / "bundle").c_str(), 1);
  EXPECT_EQ(find_mpirun(program), bundle);
  unsetenv("DTRAIN_BUNDLE");
  fs::remove_all(folder);
  EXPECT_EQ(find_mpirun(program), "");
  setenv("PATH", path.c_str(), 1);
}

}  // namespace
}  // namespace dtrain::launch
