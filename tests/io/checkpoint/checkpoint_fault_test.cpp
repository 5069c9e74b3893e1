// Faults of the file system at every call of a save, death at every call, the order of the calls: the checkpoint before
// is intact, the error names the path, and training goes on.
#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <limits>
#include <thread>

#include <sys/mount.h>
#include <sys/wait.h>

#include "io/checkpoint/checkpoint_manifest.hpp"
#include "tests/io/checkpoint/checkpoint_support.hpp"

namespace dtrain::test {
namespace {

using io::CheckpointWriter;
using Call = FaultFileSystem::Call;

bool is_valid(const std::string& path) {
  try {
    io::verify_checkpoint(io::posix_file_system(), path);
    return true;
  } catch (const CheckpointError&) {
    return false;
  }
}

/// One save of step 200 onto a directory that holds step 100, with `ranks` ranks; the report of rank 0.
io::SaveReport save_with(FaultFileSystem& files, const std::string& directory, int ranks,
                         const std::function<void(CheckpointWriter&)>& afterwards = {}) {
  io::SaveReport out;
  run_ranks(ranks, [&](Group& group) {
    CheckpointWriter writer(group, config_for(directory), "run", files);
    writer.continue_from(100);
    if (group.rank() == 0) files.forget();
    group.barrier();
    SmallState state(200);
    const auto report = save_and_finish(writer, 200, state);
    group.barrier();
    if (group.rank() == 0) out = report;
    if (afterwards) afterwards(writer);
  });
  return out;
}

struct Fault {
  const char* name;
  int error;
};
class Faults : public testing::TestWithParam<Fault> {};

TEST_P(Faults, AtEveryCallOfASave) {
  const auto fault = GetParam();
  FaultFileSystem counting;
  Scratch first;
  write_steps(first / "before", {100});
  fs::copy(first / "before", first / "c", fs::copy_options::recursive);
  std::vector<Call> calls;
  ASSERT_TRUE(save_with(counting, first / "c", 1, [&](CheckpointWriter&) { calls = counting.calls(); }).durable);
  ASSERT_GT(calls.size(), 20u);
  int failed = 0;
  for (std::size_t n = 0; n < calls.size(); ++n) {
    Scratch scratch;
    const auto directory = scratch / "c";
    fs::copy(first / "before", directory, fs::copy_options::recursive);
    FaultFileSystem files;
    bool armed = false;
    files.before = [&](const Call& call) {
      // A save begins with a look at its lock.
      if (call.index == 0 && call.operation == "status" && call.path.ends_with("/LOCK")) armed = true;
      return armed && call.index == n ? -fault.error : 0;
    };
    const auto where = fmt::format("{} at call {}: {} {}", fault.name, n, calls[n].operation, calls[n].path);
    bool next = false;
    const auto report = save_with(files, directory, 1, [&](CheckpointWriter& writer) {
      // Training goes on, and the next save succeeds.
      SmallState later(300);
      next = save_and_finish(writer, 300, later).durable;
    });
    EXPECT_TRUE(is_valid(directory + "/step-000000100")) << where;
    EXPECT_TRUE(next) << where;
    EXPECT_TRUE(is_valid(directory + "/step-000000300")) << where;
    if (report.durable) {
      EXPECT_TRUE(report.error.empty()) << where;
      EXPECT_TRUE(is_valid(directory + "/step-000000200")) << where;
    } else {
      ++failed;
      EXPECT_NE(report.error.find(directory), std::string::npos) << where << " says: " << report.error;
      EXPECT_NE(report.error.find(std::strerror(fault.error)), std::string::npos) << where << ": " << report.error;
    }
    // Whatever happened, what is there under its final name is whole.
    for (const auto& name : names_in(directory)) {
      if (name.starts_with("step-")) {
        EXPECT_TRUE(is_valid(directory + "/" + name)) << where << ": " << name;
      }
    }
    if (HasFailure()) return;
  }
  EXPECT_GE(failed, 15);
}
INSTANTIATE_TEST_SUITE_P(Errors, Faults,
                         testing::Values(Fault{"ENOSPC", ENOSPC}, Fault{"EDQUOT", EDQUOT}, Fault{"EIO", EIO}),
                         [](const auto& one) { return one.param.name; });

TEST(CheckpointFaults, ShortWritesAreContinued) {
  Scratch scratch;
  write_steps(scratch / "c", {100});
  FaultFileSystem files;
  files.write_at_most = 1000;
  ASSERT_TRUE(save_with(files, scratch / "c", 2).durable);
  EXPECT_TRUE(is_valid(scratch / "c/step-000000200"));
}

TEST(CheckpointFaults, AShardThatIsNotAllThereIsNotPublished) {
  for (const bool removed : {false, true}) {
    Scratch scratch;
    write_steps(scratch / "c", {100});
    FaultFileSystem files;
    files.before = [&](const Call& call) {  // another program's work, just before the shards are looked at
      if (call.operation != "status" || !call.path.ends_with("shard-00001.bin")) return 0;
      if (removed)
        fs::remove(call.path);
      else
        fs::resize_file(call.path, 64);
      return 0;
    };
    const auto report = save_with(files, scratch / "c", 2);
    EXPECT_FALSE(report.durable);
    EXPECT_NE(report.error.find("shard-00001.bin"), std::string::npos) << report.error;
    EXPECT_EQ(io::find_latest_valid(scratch / "c")->state.step, 100u);
  }
}

TEST(CheckpointFaults, WhatCannotBeReadBackIsNotPublished) {
  Scratch scratch;
  write_steps(scratch / "c", {100});
  run_ranks(1, [&](Group& group) {
    CheckpointWriter writer(group, config_for(scratch / "c"), "run");
    writer.continue_from(100);
    SmallState tensors(200);
    io::RunState state = run_state(200);
    state.loss_scale = std::numeric_limits<double>::quiet_NaN();  // JSON has no word for it
    EXPECT_FALSE(writer.save(state, tensors.views()));
    const auto report = writer.finish();
    ASSERT_TRUE(report);
    EXPECT_FALSE(report->durable);
    EXPECT_NE(report->error.find("loss_scale"), std::string::npos) << report->error;
  });
  EXPECT_EQ(io::find_latest_valid(scratch / "c")->state.step, 100u);
  for (const auto& name : names_in(scratch / "c")) EXPECT_TRUE(name == "step-000000100" || name == "LOCK") << name;
}

TEST(CheckpointFaults, AWriteThatTakesNothingEnds) {
  Scratch scratch;
  write_steps(scratch / "c", {100});
  FaultFileSystem files;
  files.write_at_most = 0;
  files.before = [&](const Call& call) {
    files.write_at_most = call.path.find("shard") == std::string::npos ? static_cast<std::size_t>(-1) : 0;
    return 0;
  };
  const auto report = save_with(files, scratch / "c", 1);
  EXPECT_FALSE(report.durable);
  EXPECT_NE(report.error.find("cannot write " + scratch.path()), std::string::npos) << report.error;
  EXPECT_TRUE(is_valid(scratch / "c/step-000000100"));
}

TEST(CheckpointFaults, OneRanksFailureIsEveryonesAndLeavesNothing) {
  Scratch scratch;
  write_steps(scratch / "c", {100}, 3);
  FaultFileSystem files;
  files.before = [](const Call& call) {
    return call.operation == "sync" && call.path.ends_with("shard-00001.bin") ? -EIO : 0;
  };
  run_ranks(3, [&](Group& group) {
    CheckpointWriter writer(group, config_for(scratch / "c"), "run", files);
    writer.continue_from(100);
    SmallState state(200);
    const auto report = save_and_finish(writer, 200, state);
    EXPECT_FALSE(report.durable);
    EXPECT_TRUE(report.error.starts_with("rank 1: cannot fsync " + scratch.path())) << report.error;
    EXPECT_NE(report.error.find("bytes): Input/output error"), std::string::npos) << report.error;
    EXPECT_EQ(writer.durable_step(), 100u);
  });
  EXPECT_EQ(names_in(scratch / "c"), (std::vector<std::string>{"LOCK", "step-000000100"}));
}

TEST(CheckpointFaults, AFewFailuresInARowStopTheRun) {
  Scratch scratch;
  FaultFileSystem files;
  std::atomic<bool> full{true};
  files.before = [&](const Call& call) { return full && call.operation == "allocate" ? -ENOSPC : 0; };
  run_ranks(2, [&](Group& group) {
    CheckpointWriter writer(group, config_for(scratch / "c"), "run", files);
    SmallState state(1);
    EXPECT_FALSE(save_and_finish(writer, 1, state).durable);
    EXPECT_FALSE(save_and_finish(writer, 2, state).durable);
    group.barrier();
    full = false;
    group.barrier();
    EXPECT_TRUE(save_and_finish(writer, 3, state).durable);  // counts anew
    group.barrier();
    full = true;
    group.barrier();
    EXPECT_FALSE(save_and_finish(writer, 4, state).durable);
    EXPECT_FALSE(save_and_finish(writer, 5, state).durable);
    try {
      save_and_finish(writer, 6, state);
      ADD_FAILURE() << "went on";
    } catch (const CheckpointError& e) {
      const std::string text = e.what();
      EXPECT_NE(text.find("3 checkpoints in a row could not be saved; the latest, of step 6: "), std::string::npos);
      EXPECT_NE(text.find("No space left on device"), std::string::npos) << text;
    }
  });
}

/// Position of the first call from `from` on that does `operation` to a path ending in `end`.
std::size_t position(const std::vector<Call>& calls, const std::string& operation, const std::string& end,
                     std::size_t from = 0) {
  for (std::size_t i = from; i < calls.size(); ++i) {
    if (calls[i].operation == operation && calls[i].path.ends_with(end)) return i;
  }
  ADD_FAILURE() << "no call " << operation << " of " << end;
  return calls.size();
}

TEST(CheckpointFaults, CallsComeInTheOrderThatMakesASaveAtomic) {
  Scratch scratch;
  write_steps(scratch / "c", {100});
  FaultFileSystem files;
  ASSERT_TRUE(save_with(files, scratch / "c", 2).durable);
  const auto calls = files.calls();
  std::string temporary;
  for (const auto& call : calls) {
    if (call.operation == "make_directory") temporary = call.path;
  }
  const auto rename = position(calls, "rename", temporary);
  const auto manifest = position(calls, "open", "MANIFEST.json");
  for (const auto* shard : {"shard-00000.bin", "shard-00001.bin"}) {
    const auto allocated = position(calls, "allocate", shard), written = position(calls, "write", shard),
               synced = position(calls, "sync", shard), closed = position(calls, "close", shard),
               directory = position(calls, "sync", temporary, closed);
    EXPECT_LT(allocated, written);
    EXPECT_LT(written, synced);
    EXPECT_LT(synced, closed);
    EXPECT_LT(closed, directory);
    EXPECT_LT(directory, manifest);
  }
  const auto written = position(calls, "write", "MANIFEST.json", manifest),
             synced = position(calls, "sync", "MANIFEST.json", written),
             directory = position(calls, "sync", temporary, synced);
  EXPECT_LT(directory, rename);
  EXPECT_LT(rename, position(calls, "sync", "/c", rename));
}

TEST(CheckpointFaults, RemovalComesAfterPublication) {
  Scratch scratch;
  write_steps(scratch / "c", {50, 60, 100});
  FaultFileSystem files;
  SoloGroup group;
  auto config = config_for(scratch / "c");
  config.keep = 2;
  CheckpointWriter writer(group, config, "run", files);
  writer.continue_from(100);
  SmallState state(200);
  ASSERT_EQ(save_and_finish(writer, 200, state).removed.size(), 2u);
  const auto calls = files.calls();
  const auto published = position(calls, "sync", "/c");
  EXPECT_LT(published, position(calls, "rename", "step-000000050"));
  EXPECT_LT(published, position(calls, "remove_file", "shard-00000.bin"));
}

// ---- death ---------------------------------------------------------------------------------------------------------

/// Runs `work` in a child process; its exit status as of waitpid.
int in_child(const std::function<void()>& work) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    try {
      work();
    } catch (const std::exception& e) {
      fmt::print(stderr, "child: {}\n", e.what());
      ::_exit(1);
    }
    ::_exit(0);
  }
  int status = -1;
  ::waitpid(pid, &status, 0);
  return status;
}

class Death : public testing::TestWithParam<int> {};

TEST_P(Death, AtEveryCallOfASaveLeavesTheOldOneOrTheNewOne) {
  const int ranks = GetParam();
  int old_ones = 0, new_ones = 0;
  Scratch before;
  write_steps(before / "c", {90, 100}, ranks);
  for (std::size_t n = 0;; ++n) {
    ASSERT_LT(n, 500u);
    Scratch scratch;
    const auto directory = scratch / "c";
    fs::copy(before / "c", directory, fs::copy_options::recursive);
    const int status = in_child([&] {
      FaultFileSystem files;
      std::atomic<std::size_t> count{0};
      files.before = [&](const Call&) {
        if (count++ == n) ::_exit(9);
        return 0;
      };
      run_ranks(ranks, [&](Group& group) {
        auto config = config_for(directory);
        config.keep = 2;  // a removal is part of what dies
        CheckpointWriter writer(group, config, "run", files);
        writer.continue_from(100);
        SmallState state(200);
        if (!save_and_finish(writer, 200, state).durable) throw std::runtime_error("not saved");
      });
    });
    ASSERT_TRUE(WIFEXITED(status));
    const int code = WEXITSTATUS(status);
    ASSERT_TRUE(code == 0 || code == 9) << code;
    for (const auto& name : names_in(directory)) {
      if (name.starts_with("step-")) {
        ASSERT_TRUE(is_valid(directory + "/" + name)) << "death at call " << n << ": " << name;
      }
    }
    // The next run takes the newest one, cleans up and goes on.
    run_ranks(ranks, [&](Group& group) {
      CheckpointWriter writer(group, config_for(directory), "next");
      const auto found = io::find_resume(group, config_for(directory));
      ASSERT_TRUE(found);
      const auto step = found->state.step;
      ASSERT_TRUE(step == 100 || step == 200);
      SmallState loaded(1);
      io::load_checkpoint(group, found->path, loaded.views());
      EXPECT_TRUE(loaded.same(SmallState(step))) << "death at call " << n;
      writer.continue_from(step);
      SmallState state(300);
      EXPECT_TRUE(save_and_finish(writer, 300, state).durable);
      if (group.rank() == 0) (step == 100 ? old_ones : new_ones)++;
    });
    for (const auto& name : names_in(directory)) {
      EXPECT_FALSE(name.starts_with(".tmp")) << name;
    }
    if (HasFailure()) return;
    if (code == 0) break;  // it lived through all calls
  }
  EXPECT_GT(old_ones, 20);
  EXPECT_GT(new_ones, 5);
}
INSTANTIATE_TEST_SUITE_P(Ranks, Death, testing::Values(1, 2));

TEST(CheckpointDeath, DestroyingTheWriterInASaveLeavesOnlyATemporary) {
  Scratch scratch;
  FaultFileSystem files;
  files.before = [](const Call& call) {
    if (call.operation == "write") std::this_thread::sleep_for(std::chrono::milliseconds(20));
    return 0;
  };
  run_ranks(2, [&](Group& group) {
    CheckpointWriter writer(group, config_for(scratch / "c"), "run", files);
    SmallState state(1);
    writer.save(run_state(1), state.views());
  });
  for (const auto& name : names_in(scratch / "c")) EXPECT_FALSE(name.starts_with("step-"));
  SoloGroup group;
  CheckpointWriter writer(group, config_for(scratch / "c"), "run");
  EXPECT_EQ(names_in(scratch / "c"), std::vector<std::string>{"LOCK"});
}

// ---- directories that cannot be written ----------------------------------------------------------------------------

TEST(CheckpointDirectory, NotWritableIsOneErrorOnAllRanks) {
  Scratch scratch;
  write_file(scratch / "file", "x");
  run_ranks(2, [&](Group& group) {
    try {
      const CheckpointWriter writer(group, config_for(scratch / "file/c"), "run");
      ADD_FAILURE() << "wrote below a file";
    } catch (const CheckpointError& e) {
      EXPECT_NE(std::string(e.what()).find("cannot create directory " + scratch.path()), std::string::npos) << e.what();
    }
  });
}

TEST(CheckpointDirectory, ReadOnlyIsOneError) {
  Scratch scratch;
  fs::create_directory(scratch / "c");
  fs::permissions(scratch.path(), fs::perms::all);
  fs::permissions(scratch / "c", static_cast<fs::perms>(0555));
  // Permissions do not bind root: the child becomes nobody.
  const int status = in_child([&] {
    if (::geteuid() == 0 && ::seteuid(65534) != 0) ::_exit(77);
    SoloGroup group;
    try {
      const CheckpointWriter writer(group, config_for(scratch / "c"), "run");
    } catch (const CheckpointError& e) {
      const auto expected = fmt::format("cannot create {}: Permission denied", scratch / "c/LOCK");
      ::_exit(e.what() == expected ? 3 : 4);
    }
  });
  fs::permissions(scratch / "c", fs::perms::all);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "root that may not become another user";
  EXPECT_EQ(WEXITSTATUS(status), 3);
}

TEST(CheckpointDirectory, AFullDiskKeepsTheCheckpointBefore) {
  Scratch scratch;
  const auto disk = scratch / "disk";
  fs::create_directory(disk);
  if (::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=256k") != 0) {
    GTEST_SKIP() << "needs the right to mount a small tmpfs: " << std::strerror(errno);
  }
  write_steps(disk + "/c", {100});
  run_ranks(2, [&](Group& group) {
    CheckpointWriter writer(group, config_for(disk + "/c"), "run");
    writer.continue_from(100);
    std::vector<float> large(200000, 1.0f);
    const std::vector<io::StateTensor> tensors{{"param/x", DType::f32, Shape{200000}, large.data()}};
    writer.save(run_state(200), tensors);
    const auto report = writer.finish();
    EXPECT_TRUE(report && !report->durable);
    if (!report) return;
    EXPECT_NE(report->error.find("cannot reserve space for " + disk + "/c/.tmp-200-"), std::string::npos)
        << report->error;
    EXPECT_NE(report->error.find("(400000 bytes): No space left on device"), std::string::npos) << report->error;
    SmallState small(300);
    EXPECT_TRUE(save_and_finish(writer, 300, small).durable);
  });
  EXPECT_TRUE(is_valid(disk + "/c/step-000000100"));
  EXPECT_TRUE(is_valid(disk + "/c/step-000000300"));
  ::umount2(disk.c_str(), MNT_DETACH);
}

}  // namespace
}  // namespace dtrain::test
