#include "launch/base/signals.hpp"

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include "launch/base/progress.hpp"

namespace dtrain::launch {
namespace {

using namespace std::chrono_literals;
using testing::ExitedWithCode;

/// In a process of its own, as the signals are the process's.
[[noreturn]] void leave(bool well) {
  std::_Exit(well ? 0 : 1);
}

void end(const std::string& why) {
  print_line(stderr, why);
  std::_Exit(75);
}

TEST(StopSignals, AreReceivedAsDataAndRemembered) {
  std::thread([] {  // a thread of its own: the mask must not leak into other tests
    StopSignals stop;
    EXPECT_FALSE(stop.pending());
    pthread_kill(pthread_self(), SIGUSR1);
    EXPECT_TRUE(stop.pending());
    EXPECT_EQ(stop.name(), "SIGUSR1");
    EXPECT_TRUE(stop.pending());
  })
      .join();
}

TEST(StopSignals, ALostTerminalAndAQuitAreStopRequests) {
  for (const auto& [number, name] : {std::pair(SIGHUP, "SIGHUP"), std::pair(SIGQUIT, "SIGQUIT")})
    EXPECT_EXIT(
        {
          std::signal(number, SIG_DFL);
          StopSignals stop;
          kill(getpid(), number);
          leave(stop.pending() && stop.name() == name);
        },
        ExitedWithCode(0), "");
}

TEST(StopSignals, WhatTheCallerIgnoresStaysIgnored) {  // nohup
  EXPECT_EXIT(
      {
        std::signal(SIGHUP, SIG_IGN);
        StopSignals stop;
        kill(getpid(), SIGHUP);
        leave(!stop.pending());
      },
      ExitedWithCode(0), "");
}

TEST(StopSignals, EndARunThatIsStuckBeforeItsFirstStep) {
  EXPECT_EXIT(
      {
        StopSignals stop;
        stop.watch(end);
        kill(getpid(), SIGTERM);
        std::this_thread::sleep_for(10s);
      },
      ExitedWithCode(75), "stopped by SIGTERM with nothing to save: run the same command again");
}

TEST(StopSignals, ASecondOneEndsAStuckRun) {
  EXPECT_EXIT(
      {
        StopSignals stop(20ms);
        stop.watch(end);
        stop.answer_at_steps();
        for (const int number : {SIGUSR1, SIGTERM, SIGTERM}) {  // a warning, and `timeout` sends each twice
          kill(getpid(), number);
          std::this_thread::sleep_for(2ms);
        }
        std::this_thread::sleep_for(40ms);
        if (!stop.pending() || stop.name() != "SIGUSR1") leave(false);
        kill(getpid(), SIGINT);
        std::this_thread::sleep_for(10s);
      },
      ExitedWithCode(75), "ended at once by a second signal .SIGINT.: what is not in a checkpoint is lost");
}

TEST(StopSignals, WritesThatWouldRaiseASignalFail) {
  EXPECT_EXIT(
      {
        std::signal(SIGPIPE, SIG_DFL);
        StopSignals stop;
        int ends[2];
        if (pipe(ends) != 0 || close(ends[0]) != 0) leave(false);
        const bool piped = write(ends[1], "x", 1) < 0 && errno == EPIPE;
        std::FILE* file = std::tmpfile();
        rlimit limit{};
        limit.rlim_cur = limit.rlim_max = 1;
        setrlimit(RLIMIT_FSIZE, &limit);
        const bool limited = write(fileno(file), "xx", 2) == 1 && write(fileno(file), "x", 1) < 0 && errno == EFBIG;
        leave(piped && limited && !stop.pending());
      },
      ExitedWithCode(0), "");
}

TEST(Lines, ThatNobodyReadsAreSaidOnce) {
  EXPECT_EXIT(
      {
        StopSignals stop;
        int ends[2];
        if (pipe(ends) != 0 || dup2(ends[1], STDOUT_FILENO) < 0 || close(ends[0]) != 0) leave(false);
        print_line(stdout, "step 1");
        print_line(stdout, "step 2");
        leave(true);
      },
      ExitedWithCode(0), "^warning: cannot write to standard output: Broken pipe; the run goes on[^\n]*\n$");
}

}  // namespace
}  // namespace dtrain::launch
