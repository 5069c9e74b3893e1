#include "comm/watch/start_watch.hpp"

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <mutex>
#include <thread>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/tensor/error.hpp"
#include "tests/comm/watch/heard.hpp"

namespace dtrain::comm {
namespace {

using test::wait_until;

StartedRank started(int rank, int pid, const char* program = "dtrain") {
  return {.rank = rank, .local_rank = rank, .pid = pid, .program = program, .same_program = program[0] == 'd'};
}

/// A rank that waits in MPI_Init, and what its host's processes are said to be.
struct Waiting {
  std::mutex mutex;
  std::vector<StartedRank> here;
  std::vector<std::string> said;

  StartWatch::Options options(double limit) {
    return {.limit_seconds = limit,
            .look_seconds = 0.02,
            .settle_seconds = 0.1,
            .look =
                [this] {
                  const std::lock_guard lock(mutex);
                  return here;
                },
            .on_end =
                [this](const std::string& message) {
                  const std::lock_guard lock(mutex);
                  said.push_back(message);
                }};
  }
  void set(std::vector<StartedRank> ranks) {
    const std::lock_guard lock(mutex);
    here = std::move(ranks);
  }
  /// What it says at its end.
  std::string end() {
    EXPECT_TRUE(wait_until([&] {
      const std::lock_guard lock(mutex);
      return !said.empty();
    }));
    const std::lock_guard lock(mutex);
    EXPECT_EQ(said.size(), 1u);
    return said.empty() ? "nothing" : said[0];
  }
};

LaunchEnvironment rank_of(int rank, int size, int local_size) {
  LaunchEnvironment e;
  e.launcher = Launcher::mpirun;
  e.rank = e.local_rank = rank;
  e.size = size;
  e.local_size = local_size;
  return e;
}

TEST(StartWatch, a_rank_that_died_inside_mpi_init_is_named_and_need_not_be_waited_for_until_the_limit) {
  Waiting w;
  w.set({started(0, 10), started(1, 11), started(2, 12)});
  const StartWatch watch(rank_of(0, 3, 3), "a", w.options(60));
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  w.set({started(0, 10), started(2, 12)});
  EXPECT_EQ(w.end().find("rank 1 (host a, pid 11) died inside MPI_Init, before the ranks could meet; "), 0u) << w.end();
}

TEST(StartWatch, a_wrapper_that_died_is_told_from_dtrain) {
  Waiting w;
  w.set({started(0, 10), started(1, 11, "sh")});
  const StartWatch watch(rank_of(0, 2, 2), "a", w.options(60));
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  w.set({started(0, 10)});
  EXPECT_EQ(w.end().find("rank 1 (host a, pid 11) died before it started dtrain, "), 0u) << w.end();
}

TEST(StartWatch, a_rank_that_left_at_the_limit_did_not_die) {
  Waiting w;
  w.set({started(0, 10), started(1, 11, "sleep"), started(2, 12)});
  StartWatch::Options options = w.options(0.3);
  options.settle_seconds = 10;
  const StartWatch watch(rank_of(2, 3, 3), "a", std::move(options));
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  w.set({started(1, 11, "sleep"), started(2, 12)});
  EXPECT_EQ(w.end(), "") << "rank 0 has said it";
}

TEST(StartWatch, at_the_limit_the_rank_that_is_missing_is_named) {
  const auto said = [](std::vector<StartedRank> here, int size = 2) {
    Waiting w;
    w.set(std::move(here));
    const StartWatch watch(rank_of(0, size, 2), "a", w.options(0.2));
    const std::string text = w.end(), begin =
                                          "MPI_Init has not returned for 0 s (DTRAIN_START_TIMEOUT_SECONDS is 0.2; "
                                          "raise it where that is too short): ";
    EXPECT_EQ(text.substr(0, begin.size()), begin);
    return text.substr(std::min(begin.size(), text.size()));
  };
  EXPECT_EQ(said({started(0, 10)}).find("rank 1 has no process on host a: it has died, or was not started"), 0u);
  EXPECT_EQ(said({started(0, 10)}, 4).find("the rank with local number 1 has no process on host a"), 0u);
  EXPECT_EQ(said({started(0, 10), started(1, 11, "sleep")}),
            "rank 1 (host a, pid 11) has not started dtrain: its process runs \"sleep\"; see what that waits for");
  StartedRank stopped = started(1, 11);
  stopped.stopped = true;
  EXPECT_EQ(said({started(0, 10), stopped}), "rank 1 (host a, pid 11) is stopped (SIGSTOP or a debugger)");
  EXPECT_EQ(said({started(0, 10), started(1, 11)}).find("all ranks are there, so MPI itself is stuck"), 0u);
  EXPECT_EQ(said({started(0, 10), started(1, 11)}, 4).find("no rank of host a is missing; look for a rank of another"),
            0u);
  EXPECT_EQ(said({}).find("all ranks are there"), 0u) << "nothing is known of them";
}

TEST(StartWatch, one_rank_speaks_and_the_others_leave_without_a_word) {
  Waiting first, second;
  for (Waiting* w : {&first, &second}) w->set({started(1, 11), started(2, 12)});
  const StartWatch one(rank_of(1, 3, 3), "a", first.options(0.2)), two(rank_of(2, 3, 3), "a", second.options(0.2));
  EXPECT_NE(first.end().find("rank 0 has no process"), std::string::npos);
  EXPECT_EQ(second.end(), "");
}

TEST(StartWatch, a_start_that_takes_its_time_is_no_trouble) {
  Waiting w;
  {
    const StartWatch watch(rank_of(0, 3, 3), "a", w.options(0));
    w.set({started(0, 10)});  // the launcher starts one after another, and wrappers start dtrain
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    w.set({started(0, 10), started(1, 11, "sh")});
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    w.set({started(0, 10), started(1, 13), started(2, 12)});
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
  EXPECT_TRUE(w.said.empty());
}

TEST(StartWatch, the_limit_is_set_by_the_environment) {
  const auto limit = [](const char* text) {
    return StartWatch::limit_seconds([text](const char*) -> const char* { return text; });
  };
  EXPECT_EQ(limit(nullptr), 600);
  EXPECT_EQ(limit(""), 600);
  EXPECT_EQ(limit("12.5"), 12.5);
  EXPECT_EQ(limit("0"), 0);
  for (const char* wrong : {"ten", "10s", "-1", "nan", "1e300"}) EXPECT_THROW(limit(wrong), ConfigError) << wrong;
}

TEST(StartWatch, processes_are_found_by_the_launchers_marks) {
  EXPECT_TRUE(ranks_started_here().empty()) << "there is no launcher here";
  setenv("PMIX_NAMESPACE", "dtrain-start-watch-test", 1);
  const pid_t child = fork();
  if (child == 0) {
    setenv("PMIX_RANK", "5", 1);
    setenv("OMPI_COMM_WORLD_LOCAL_RANK", "1", 1);
    execlp("sleep", "sleep", "30", nullptr);
    _exit(1);
  }
  std::vector<StartedRank> ranks;
  EXPECT_TRUE(wait_until([&] {
    ranks = ranks_started_here();
    return !ranks.empty();
  }));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  ASSERT_EQ(ranks.size(), 1u);
  EXPECT_EQ(ranks[0].rank, 5);
  EXPECT_EQ(ranks[0].local_rank, 1);
  EXPECT_EQ(ranks[0].pid, child);
  EXPECT_EQ(ranks[0].program, "sleep");
  EXPECT_FALSE(ranks[0].same_program);
  EXPECT_TRUE(ranks_started_here().empty());
  unsetenv("PMIX_NAMESPACE");
}

}  // namespace
}  // namespace dtrain::comm
