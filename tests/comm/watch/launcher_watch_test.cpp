#include "comm/watch/launcher_watch.hpp"

#include <chrono>
#include <csignal>
#include <string>
#include <thread>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/comm/watch/heard.hpp"

namespace dtrain::comm {
namespace {

using test::wait_until;

constexpr double patience = 0.3;

/// A launcher that does not end by itself, and may have a child that sleeps.
struct Launcher {
  pid_t pid = -1, child = -1;
  int errors = -1;

  explicit Launcher(bool with_child = false) {
    int ends[2], numbers[2];
    EXPECT_EQ(pipe(ends) + pipe(numbers), 0);
    pid = fork();
    if (pid == 0) {
      signal(SIGTERM, SIG_IGN);
      dup2(ends[1], STDERR_FILENO);
      close(ends[0]);
      close(ends[1]);
      const pid_t own = with_child ? fork() : -1;
      if (own == 0) {
        close(STDERR_FILENO);
        for (;;) pause();
      }
      (void)!write(numbers[1], &own, sizeof own);
      for (;;) pause();
    }
    EXPECT_EQ(read(numbers[0], &child, sizeof child), static_cast<ssize_t>(sizeof child));
    for (const int end : {ends[1], numbers[0], numbers[1]}) close(end);
    errors = ends[0];
  }
  ~Launcher() {
    if (child > 0) kill(child, SIGKILL);
    kill(pid, SIGKILL);
    if (!ended) waitpid(pid, nullptr, 0);
    close(errors);
  }
  /// Whether it has ended, and by which signal.
  bool gone() {
    if (!ended && waitpid(pid, &status, WNOHANG) == pid) ended = true;
    return ended;
  }
  std::string said() const {
    std::string text;
    char buffer[512];
    for (ssize_t n = 0; (n = read(errors, buffer, sizeof buffer)) > 0;)
      text.append(buffer, static_cast<std::size_t>(n));
    return text;
  }
  bool ended = false;
  int status = 0;
};

/// A rank that enters MPI_Init, and dies there or comes out of it.
void be_rank_of(const Launcher& launcher, bool dies) {
  const pid_t rank = fork();
  if (rank == 0) {
    {
      const LauncherWatch watch(launcher.pid, patience);
      if (dies) kill(getpid(), SIGKILL);
    }
    _exit(0);
  }
  waitpid(rank, nullptr, 0);
}

TEST(LauncherWatch, a_launcher_that_stays_without_ranks_is_ended_and_its_user_told) {
  Launcher launcher;
  be_rank_of(launcher, true);
  ASSERT_TRUE(wait_until([&] { return launcher.gone(); }));
  EXPECT_TRUE(WIFSIGNALED(launcher.status) && WTERMSIG(launcher.status) == SIGKILL);
  EXPECT_EQ(launcher.said(), "warning: mpirun (pid " + std::to_string(launcher.pid) +
                                 ") has no rank left and does not end, a fault of Open MPI's where a rank dies inside "
                                 "MPI_Init: dtrain ends it by SIGKILL\n");
}

TEST(LauncherWatch, a_launcher_with_other_ranks_is_left_alone_until_they_end) {
  Launcher launcher(true);
  be_rank_of(launcher, true);
  std::this_thread::sleep_for(std::chrono::milliseconds(800));
  EXPECT_FALSE(launcher.gone());
  kill(launcher.child, SIGKILL);  // a zombie, as nobody asks for it
  EXPECT_TRUE(wait_until([&] { return launcher.gone(); }));
}

TEST(LauncherWatch, nothing_is_watched_any_more_when_mpi_has_started) {
  Launcher launcher;
  be_rank_of(launcher, false);
  std::this_thread::sleep_for(std::chrono::milliseconds(800));
  EXPECT_FALSE(launcher.gone());
  const LauncherWatch none(0);
}

}  // namespace
}  // namespace dtrain::comm
