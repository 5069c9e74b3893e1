#include "comm/watch/watchdog.hpp"

#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "comm/watch/process.hpp"
#include "runtime/tensor/error.hpp"
#include "tests/comm/watch/heard.hpp"

namespace dtrain::comm {
namespace {

using std::chrono::milliseconds;
using test::Heard;
using test::wait_until;

/// Rank 0 is this process, the others are children that do what they are told and then sleep.
class Ranks {
 public:
  explicit Ranks(int count) : board(count), pids_(static_cast<std::size_t>(count), 0) {}
  ~Ranks() {
    for (pid_t pid : pids_) {
      if (pid <= 0) continue;
      kill(pid, SIGKILL);
      waitpid(pid, nullptr, 0);
    }
  }
  void start(int rank, const std::function<void(HostBoard&)>& work) {
    const pid_t pid = fork();
    if (pid == 0) {
      board.join(rank, rank, "h");
      work(board);
      for (;;) pause();
    }
    pids_[static_cast<std::size_t>(rank)] = pid;
    ASSERT_TRUE(wait_until([&] { return board.read(rank).state != RankState::absent; }));
  }
  pid_t pid(int rank) const { return pids_[static_cast<std::size_t>(rank)]; }
  int exit_code(int rank) {
    int status = 0;
    if (!wait_until([&] { return waitpid(pid(rank), &status, WNOHANG) == pid(rank); })) return -1;
    pids_[static_cast<std::size_t>(rank)] = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  void reap(int rank) {
    waitpid(pid(rank), nullptr, 0);
    pids_[static_cast<std::size_t>(rank)] = 0;
  }

  HostBoard board;

 private:
  std::vector<pid_t> pids_;
};

TEST(HostBoard, other_processes_read_what_a_rank_writes) {
  Ranks ranks(2);
  ranks.board.join(0, 4, "h");
  ranks.start(1, [](HostBoard& b) {
    b.enter_exchange();
    b.beat("a phase of more than 24 characters", 1234567890123);
  });
  ASSERT_TRUE(wait_until([&] { return ranks.board.read(1).step == 1234567890123; }));
  const RankNote n = ranks.board.read(1);
  EXPECT_STREQ(n.phase.data(), "a phase of more than 24 ");
  EXPECT_EQ(n.rank, 1);
  EXPECT_EQ(n.pid, ranks.pid(1));
  EXPECT_EQ(n.pid_space, own_pid_space());
  EXPECT_EQ(n.started, look_at_process(n.pid).started);
  EXPECT_TRUE(n.waits());
  EXPECT_EQ(ranks.board.read(0).rank, 4);
  EXPECT_FALSE(ranks.board.read(0).waits());
}

TEST(HostBoard, another_process_attaches_by_descriptor_and_one_of_another_size_is_refused) {
  HostBoard board(2);
  HostBoard other(getpid(), board.descriptor(), 2);
  other.join(1, 1, "h");
  EXPECT_EQ(board.read(1).pid, getpid());
  EXPECT_TRUE(!board.was_claimed() && other.claim() && board.was_claimed() && !other.claim());
  EXPECT_THROW(HostBoard(getpid(), board.descriptor(), 3), Error);
  const int descriptor = board.descriptor();
  board.close_descriptor();
  EXPECT_THROW(HostBoard(getpid(), descriptor, 2), Error);
}

TEST(HostBoard, a_read_is_no_mixture_of_two_beats_unless_it_says_so) {
  auto board = make_lone_board(0, "h");
  std::atomic<bool> done{false};
  std::thread writer([&] {
    for (std::uint64_t i = 0; i < 200000; ++i) board->beat(i % 2 == 0 ? "even................." : "odd", i);
    done = true;
  });
  int whole = 0, mixed = 0;
  while (!done) {
    const RankNote n = board->read(0);
    // Odd where the writer lost its core in the middle of a beat for as long as the reader tries.
    if (n.step == 0 || n.beats % 2 != 0) continue;
    ++whole;
    if (std::string(n.phase.data()) != (n.step % 2 == 0 ? "even................." : "odd")) ++mixed;
  }
  writer.join();
  EXPECT_EQ(mixed, 0) << "of " << whole;
  const RankNote last = board->read(0);
  EXPECT_EQ(last.step, 199999u);
  EXPECT_EQ(last.beats % 2, 0u);
}

TEST(HostBoard, an_end_is_never_taken_back) {
  auto board = make_lone_board(0, "h");
  board->end(RankState::leaving, 75);
  board->beat("update", 1);
  board->pause();
  EXPECT_EQ(board->read(0).state, RankState::leaving);
  EXPECT_EQ(board->read(0).exit_code, 75);
}

TEST(Watchdog, names_rank_phase_and_step_at_the_deadline) {
  Heard heard;
  auto board = make_lone_board(0, "h");
  Watchdog watchdog(*board, heard.options(0.2));
  watchdog.beat("all_reduce", 17);
  ASSERT_TRUE(wait_until([&] { return !heard.errors().empty(); }));
  EXPECT_NE(heard.errors()[0].find("made no progress for 0 s in phase 'all_reduce' of step 17 "
                                   "(communication.timeout_seconds is 0.2; raise it"),
            std::string::npos)
      << heard.errors()[0];
  EXPECT_TRUE(heard.warnings().empty());  // nobody waits for it
}

/// Every part of a run may take a minute, but this one.
CommConfig short_for(Deadline d) {
  CommConfig c;
  for (const DeadlineSetting& s : deadline_settings) c.*s.seconds = 60;
  c.*setting_of(d).seconds = 0.2;
  return c;
}

TEST(Watchdog, each_part_of_a_run_has_its_own_deadline) {
  for (const Deadline d : {Deadline::step, Deadline::set_up, Deadline::load, Deadline::first_step, Deadline::save}) {
    const std::string name = setting_of(d).name;
    Heard heard;
    auto board = make_lone_board(0, "h");
    Watchdog watchdog(*board, heard.options(0));
    watchdog.limit(short_for(d));
    watchdog.beat("another part", 16, d == Deadline::save ? Deadline::step : Deadline::save);
    std::this_thread::sleep_for(milliseconds(500));
    EXPECT_TRUE(heard.errors().empty()) << name;
    watchdog.beat("this part", 17, d);
    ASSERT_TRUE(wait_until([&] { return !heard.errors().empty(); })) << name;
    EXPECT_NE(heard.errors()[0].find("in phase 'this part' of step 17 (communication." + name + " is 0.2;"),
              std::string::npos)
        << heard.errors()[0];
  }
}

// The deadline is that of the rank which is behind, and not of those which wait for it.
TEST(Watchdog, a_rank_in_a_step_may_wait_for_one_that_still_loads) {
  Ranks ranks(2);
  ranks.board.join(0, 0, "h");
  ranks.start(1, [](HostBoard& b) { b.beat("load", 17, Deadline::load); });
  ASSERT_TRUE(wait_until([&] { return ranks.board.read(1).deadline == Deadline::load; }));
  Heard heard;
  Watchdog watchdog(ranks.board, heard.options(0));
  watchdog.limit(short_for(Deadline::step));
  watchdog.beat("update", 18);
  ranks.board.enter_exchange();
  std::this_thread::sleep_for(milliseconds(1000));
  EXPECT_TRUE(heard.errors().empty());
  watchdog.limit(short_for(Deadline::load));
  ASSERT_TRUE(wait_until([&] { return !heard.errors().empty(); }));
  EXPECT_NE(heard.errors()[0].find("1 rank waits for it (communication.load_timeout_seconds is 0.2;"),
            std::string::npos)
      << heard.errors()[0];
}

TEST(Watchdog, is_silent_while_there_is_progress_or_a_pause) {
  Heard heard;
  auto board = make_lone_board(0, "h");
  Watchdog watchdog(*board, heard.options(1.0));
  for (std::uint64_t step = 0; step < 30; ++step) {
    watchdog.beat("step", step);
    std::this_thread::sleep_for(milliseconds(50));
  }
  watchdog.pause();
  std::this_thread::sleep_for(milliseconds(1500));
  EXPECT_TRUE(heard.errors().empty());
}

TEST(Watchdog, has_no_deadline_until_it_is_given_one) {
  Heard heard;
  auto board = make_lone_board(0, "h");
  Watchdog watchdog(*board, heard.options(0));
  std::this_thread::sleep_for(milliseconds(300));
  EXPECT_TRUE(heard.errors().empty());
  watchdog.limit(0.1);
  EXPECT_TRUE(wait_until([&] { return !heard.errors().empty(); }));
}

TEST(Watchdog, reports_a_killed_rank_once_with_what_it_did) {
  Ranks ranks(3);
  ranks.board.join(0, 0, "h");
  for (int r : {1, 2}) ranks.start(r, [](HostBoard& b) { b.beat("update", 17); });
  ASSERT_TRUE(wait_until([&] { return ranks.board.read(1).step == 17; }));
  Heard heard;
  Watchdog watchdog(ranks.board, heard.options(0));
  std::this_thread::sleep_for(milliseconds(300));
  EXPECT_TRUE(heard.errors().empty());
  const std::string name =
      "rank 1 (host h, pid " + std::to_string(ranks.pid(1)) + ") died in phase 'update' of step 17";
  kill(ranks.pid(1), SIGKILL);
  ASSERT_TRUE(wait_until([&] { return !heard.errors().empty(); }));
  std::this_thread::sleep_for(milliseconds(300));
  ASSERT_EQ(heard.errors().size(), 1u);
  EXPECT_EQ(heard.errors()[0].find(name), 0u) << heard.errors()[0];
  EXPECT_EQ(heard.errors()[0].find("rank 2"), std::string::npos);
}

TEST(Watchdog, is_silent_about_ranks_that_said_how_they_end) {
  Ranks ranks(3);
  ranks.board.join(0, 0, "h");
  ranks.start(1, [](HostBoard& b) {
    b.end(RankState::leaving, 0);
    _exit(0);
  });
  ranks.start(2, [](HostBoard& b) {
    b.end(RankState::failed, 3);
    _exit(3);
  });
  Heard heard;
  Watchdog watchdog(ranks.board, heard.options(0));
  std::this_thread::sleep_for(milliseconds(1500));
  EXPECT_TRUE(heard.errors().empty());
}

// The launcher kills all when one has failed: no second error.
TEST(Watchdog, is_silent_about_deaths_after_a_failure) {
  Ranks ranks(3);
  ranks.board.join(0, 0, "h");
  ranks.start(1, [](HostBoard& b) { b.end(RankState::failed, 3); });
  ranks.start(2, [](HostBoard&) {});
  Heard heard;
  Watchdog watchdog(ranks.board, heard.options(0));
  kill(ranks.pid(2), SIGKILL);
  std::this_thread::sleep_for(milliseconds(1500));
  EXPECT_TRUE(heard.errors().empty());
}

TEST(Watchdog, names_the_rank_that_the_others_wait_for_and_not_the_one_that_notices) {
  Ranks ranks(2);
  ranks.board.join(0, 0, "h");
  ranks.start(1, [](HostBoard& b) { b.beat("forward", 17); });
  ASSERT_TRUE(wait_until([&] { return ranks.board.read(1).step == 17; }));
  Heard heard;
  Watchdog watchdog(ranks.board, heard.options(2, 0.5));
  ranks.board.enter_exchange();
  watchdog.beat("update", 17);
  ASSERT_TRUE(wait_until([&] { return !heard.errors().empty(); }));
  ASSERT_FALSE(heard.warnings().empty());
  for (const std::string& text : {heard.warnings()[0], heard.errors()[0]}) {
    EXPECT_EQ(text.find("rank 1 (host h, pid "), 0u) << text;
    EXPECT_NE(text.find("in phase 'forward' of step 17; 1 rank waits for it"), std::string::npos) << text;
  }
  EXPECT_NE(heard.warnings()[0].find("; the run ends after 2 s of this"), std::string::npos);
  EXPECT_EQ(heard.errors().size(), 1u);
}

// All hosts wait for results; the devices tell for whose.
TEST(Watchdog, names_the_rank_whose_device_the_others_wait_for) {
  const auto note_at = [](std::uint64_t step, int bucket) {
    DeviceNote n;
    n.asynchronous = true;
    n.step = step;
    n.bucket = bucket;
    return n;
  };
  Ranks ranks(2);
  ranks.board.join(0, 0, "h");
  ranks.start(1, [&](HostBoard& b) {
    b.beat("results", 17);
    b.note(note_at(17, 1));
    b.enter_exchange();
  });
  ASSERT_TRUE(wait_until([&] { return ranks.board.read(1).waits(); }));
  Heard heard;
  Watchdog watchdog(ranks.board, heard.options(2, 0.5));
  struct Place final : DeviceWatch {
    DeviceNote at;
    DeviceNote look() noexcept override { return at; }
  } place;
  place.at = note_at(17, 3);
  watchdog.follow(&place);
  watchdog.beat("results", 17);
  const Watchdog::Wait wait(&watchdog);
  ASSERT_TRUE(wait_until([&] { return !heard.errors().empty(); }));
  ASSERT_FALSE(heard.warnings().empty());
  for (const std::string& text : {heard.warnings()[0], heard.errors()[0]}) {
    EXPECT_EQ(text.find("rank 1 (host h, pid "), 0u) << text;
    EXPECT_NE(text.find("in phase 'results' of step 17 (device at step 17, bucket 1); 1 rank waits for it"),
              std::string::npos)
        << text;
  }
  EXPECT_NE(heard.errors()[0].find("; device at step 17, bucket 3\n"), std::string::npos) << heard.errors()[0];
  watchdog.follow(nullptr);
}

TEST(Watchdog, a_rank_that_is_slow_but_moves_is_not_an_error) {
  Ranks ranks(2);
  ranks.board.join(0, 0, "h");
  ranks.start(1, [](HostBoard& b) {
    for (std::uint64_t i = 0;; ++i) {
      b.beat("evaluation", i);
      std::this_thread::sleep_for(milliseconds(20));
    }
  });
  Heard heard;
  Watchdog watchdog(ranks.board, heard.options(1));
  ranks.board.enter_exchange();
  std::this_thread::sleep_for(milliseconds(2500));
  EXPECT_TRUE(heard.errors().empty());
  EXPECT_TRUE(heard.warnings().empty());
}

TEST(Watchdog, says_that_a_rank_is_stopped_and_goes_on_where_it_does) {
  Ranks ranks(2);
  ranks.board.join(0, 0, "h");
  ranks.start(1, [](HostBoard& b) { b.beat("update", 17); });
  Heard heard;
  Watchdog watchdog(ranks.board, heard.options(60, 0.5));
  kill(ranks.pid(1), SIGSTOP);
  ASSERT_TRUE(wait_until([&] { return !heard.warnings().empty(); }));
  EXPECT_NE(heard.warnings()[0].find("is stopped (SIGSTOP or a debugger) and made no progress"), std::string::npos);
  kill(ranks.pid(1), SIGCONT);
  std::this_thread::sleep_for(milliseconds(300));
  EXPECT_TRUE(heard.errors().empty());
}

// All of them watch, all of them leave, one speaks.
TEST(Watchdog, all_ranks_leave_with_5_and_one_of_them_speaks) {
  int out[2];
  ASSERT_EQ(pipe(out), 0);
  Ranks ranks(4);
  for (int r = 0; r < 4; ++r) {
    ranks.start(r, [&, r](HostBoard& b) {
      dup2(out[1], STDERR_FILENO);
      b.beat("update", 3);
      if (r == 2) return;
      while (b.read(3).state == RankState::absent) usleep(1000);
      Watchdog watchdog(b, {});
      for (;;) pause();
    });
  }
  std::this_thread::sleep_for(milliseconds(300));
  kill(ranks.pid(2), SIGKILL);
  for (int r : {0, 1, 3}) EXPECT_EQ(ranks.exit_code(r), 5) << r;
  ranks.reap(2);
  close(out[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t n = 0; (n = read(out[0], buffer, sizeof buffer)) > 0;) text.append(buffer, static_cast<std::size_t>(n));
  close(out[0]);
  EXPECT_EQ(text.find("error: rank 2 (host h, pid "), 0u) << text;
  EXPECT_EQ(text.find('\n'), text.size() - 1) << text;
}

}  // namespace
}  // namespace dtrain::comm
