// The lock of a checkpoint directory: who else wants it is told who has it, and it is free as soon as its holder ends.
#include <chrono>
#include <csignal>
#include <filesystem>
#include <thread>

#include <sys/syscall.h>
#include <sys/wait.h>

#include "io/files/lock.hpp"
#include "tests/io/checkpoint/checkpoint_support.hpp"

namespace dtrain::test {
namespace {

using io::CheckpointWriter;

TEST(CheckpointLock, ASecondJobIsToldWhoHoldsTheDirectory) {
  Scratch scratch;
  SoloGroup group;
  const CheckpointWriter first(group, config_for(scratch / "c"), "first-run");
  run_ranks(2, [&](Group& others) {
    try {
      const CheckpointWriter second(others, config_for(scratch / "c"), "second-run");
      ADD_FAILURE() << "two jobs write to one directory";
    } catch (const CheckpointError& e) {
      char host[256] = {};
      ::gethostname(host, sizeof host - 1);
      const auto expected = fmt::format("is in use by process {} on host {}, run first-run", ::getpid(), host);
      EXPECT_NE(std::string(e.what()).find(expected), std::string::npos) << e.what();
    }
  });
}

TEST(CheckpointDirectory, IsMadeAndLockedAgainWhereItIsRemovedDuringTheRun) {
  Scratch scratch;
  const std::string directory = scratch / "runs/a/checkpoints";
  run_ranks(2, [&](Group& group) {
    io::CheckpointWriter writer(group, config_for(directory), "first");
    SmallState state(1);
    EXPECT_TRUE(save_and_finish(writer, 1, state).durable);
    if (group.rank() == 0) std::filesystem::remove_all(scratch / "runs");
    group.barrier();
    const io::SaveReport report = save_and_finish(writer, 2, state);
    EXPECT_TRUE(report.durable) << report.error;
    EXPECT_EQ(report.remarks, std::vector{directory + " had been removed while the run was using it; it is made again, "
                                                      "but what was in it is lost"});
    EXPECT_TRUE(save_and_finish(writer, 3, state).remarks.empty());
    SoloGroup other;
    if (group.rank() == 0) EXPECT_THROW(io::CheckpointWriter(other, config_for(directory), "second"), CheckpointError);
    group.barrier();
  });
  EXPECT_TRUE(io::verify_checkpoints(directory).ok);
}

/// As when a job is killed while the kernel still writes for one of its threads: the main thread is gone, the lock not.
TEST(CheckpointLock, IsWaitedForWhileItsHolderEnds) {
  Scratch scratch;
  const std::string directory = scratch / "c";
  std::filesystem::create_directory(directory);
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t holder = ::fork();
  if (holder == 0) {
    static const io::DirectoryLock lock(io::posix_file_system(), directory, "holder");
    std::thread([fd = ready[1]] {
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      if (::write(fd, "x", 1) != 1) ::_exit(1);
      std::this_thread::sleep_for(std::chrono::milliseconds(1000));
      ::_exit(0);
    }).detach();
    ::syscall(SYS_exit, 0);  // of this thread alone
  }
  char byte;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  ::close(ready[0]);
  ::close(ready[1]);
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_NO_THROW(io::DirectoryLock(io::posix_file_system(), directory, "second", {}, 0.05));
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(500));
  int status;
  ::waitpid(holder, &status, 0);
}

TEST(CheckpointLock, IsFreeAfterKill9) {
  Scratch scratch;
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t holder = ::fork();
  if (holder == 0) {
    SoloGroup group;
    const CheckpointWriter writer(group, config_for(scratch / "c"), "holder");
    if (::write(ready[1], "x", 1) != 1) ::_exit(1);
    for (;;) ::pause();
  }
  char byte;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  ::close(ready[0]);
  ::close(ready[1]);
  SoloGroup group;
  EXPECT_THROW(CheckpointWriter(group, config_for(scratch / "c"), "second"), CheckpointError);
  ::kill(holder, SIGKILL);
  EXPECT_NO_THROW(CheckpointWriter(group, config_for(scratch / "c"), "second"));  // at once, before it is reaped
  int status;
  ::waitpid(holder, &status, 0);
  EXPECT_NO_THROW(CheckpointWriter(group, config_for(scratch / "c"), "third"));
}

}  // namespace
}  // namespace dtrain::test
