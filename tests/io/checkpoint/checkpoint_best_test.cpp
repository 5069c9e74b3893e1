// The label of the best checkpoint: it follows, protects from removal, survives death at every call, and leads to its
// step; and the export of a checkpoint to HDF5.
#include "io/checkpoint/checkpoint_best.hpp"

#include <array>
#include <cstring>
#include <optional>

#include <hdf5.h>
#include <sys/wait.h>

#include "io/checkpoint/checkpoint_manifest.hpp"
#include "io/hdf5/describe.hpp"
#include "io/hdf5/hdf5.hpp"
#include "tests/io/checkpoint/checkpoint_support.hpp"

namespace dtrain::test {
namespace {

using io::CheckpointWriter;

void save(CheckpointWriter& writer, std::uint64_t step, std::optional<std::uint64_t> best) {
  SmallState state(step);
  const auto views = state.views();
  writer.save(run_state(step), views, best);
  const auto report = writer.finish();
  ASSERT_TRUE(report && report->durable);
  EXPECT_TRUE(report->remarks.empty()) << report->remarks.front();
}

std::vector<std::string> steps_in(const std::string& directory) {
  std::vector<std::string> out;
  for (const auto& name : names_in(directory))
    if (name.starts_with("step-")) out.push_back(name);
  return out;
}

TEST(BestCheckpoint, IsLabelledAndNeverRemovedWhileItIsTheBest) {
  Scratch scratch;
  run_ranks(2, [&](Group& group) {
    auto config = config_for(scratch / "c");
    config.keep = 2;
    CheckpointWriter writer(group, config, "run");
    save(writer, 1, std::nullopt);
    save(writer, 2, 2);
    for (const std::uint64_t step : {3, 4, 5}) save(writer, step, 2);
    if (group.rank() == 0) {
      EXPECT_EQ(read_file(scratch / "c/best"), "step-000000002\n");
      EXPECT_EQ(steps_in(scratch / "c"),
                (std::vector<std::string>{"step-000000002", "step-000000004", "step-000000005"}));
    }
    group.barrier();
    save(writer, 6, 6);
    save(writer, 7, 6);
  });
  EXPECT_EQ(read_file(scratch / "c/best"), "step-000000006\n");
  EXPECT_EQ(steps_in(scratch / "c"), (std::vector<std::string>{"step-000000006", "step-000000007"}));
}

TEST(BestCheckpoint, OfARunThatLabelsNothingIsKeptAllTheSame) {
  Scratch scratch;
  write_steps(scratch / "c", {1, 2});
  write_file(scratch / "c/best", "step-000000001\n");
  SoloGroup group;
  auto config = config_for(scratch / "c");
  config.keep = 2;
  CheckpointWriter writer(group, config, "run");
  writer.continue_from(2);
  save(writer, 3, std::nullopt);
  save(writer, 4, std::nullopt);
  EXPECT_EQ(steps_in(scratch / "c"), (std::vector<std::string>{"step-000000001", "step-000000003", "step-000000004"}));
}

TEST(BestCheckpoint, ThatWasSetAsideLosesTheLabel) {
  Scratch scratch;
  write_steps(scratch / "c", {1, 2});
  write_file(scratch / "c/best", "step-000000002\n");
  SoloGroup group;
  CheckpointWriter writer(group, config_for(scratch / "c"), "run");
  writer.continue_from(1);
  SmallState state(3);
  ASSERT_TRUE(save_and_finish(writer, 3, state).durable);
  EXPECT_FALSE(fs::exists(scratch / "c/best"));
}

TEST(BestCheckpoint, IsFoundByItsLabelOnAllRanks) {
  Scratch scratch;
  write_steps(scratch / "c", {100, 200});
  write_file(scratch / "c/best", "step-000000100\n");
  run_ranks(2, [&](Group& group) {
    EXPECT_EQ(io::find_checkpoint(group, scratch / "c/best").state.step, 100u);
    EXPECT_EQ(io::find_checkpoint(group, scratch / "c").state.step, 200u);
    EXPECT_EQ(io::find_checkpoint(group, scratch / "c/step-000000100").state.step, 100u);
    auto config = config_for(scratch / "new");
    config.resume = io::Resume::directory;
    config.resume_directory = scratch / "c/best";
    EXPECT_EQ(io::find_resume(group, config)->state.step, 100u);
  });
  EXPECT_NE(io::list_checkpoints(scratch / "c").text.find("complete, best"), std::string::npos);
  EXPECT_TRUE(io::verify_checkpoints(scratch / "c/best").ok);
}

TEST(BestCheckpoint, RunsAndStepsAreFoundByTheirNames) {
  Scratch scratch;
  write_steps(scratch / "run/checkpoints", {100, 200});
  write_file(scratch / "run/checkpoints/best", "step-000000100\n");
  fs::create_directory_symlink(scratch / "run", scratch / "link");
  SoloGroup group;
  for (const char* run : {"run", "run/checkpoints", "link"}) {
    const auto step = [&](const std::string& name) {
      return io::find_checkpoint(group, scratch / (run + name)).state.step;
    };
    EXPECT_EQ(step(""), 200u) << run;
    for (const char* name : {"/best", "/100", "/step-100", "/step-000000100"})
      EXPECT_EQ(step(name), 100u) << run << name;
    EXPECT_THROW(step("/150"), CheckpointError) << run;
  }
  for (const char* word : {"best", "5", "step-5", "step-000000005"}) EXPECT_TRUE(io::names_checkpoint(word)) << word;
  for (const char* word : {"", "step-", "5x", "-5", "bestest"}) EXPECT_FALSE(io::names_checkpoint(word)) << word;
}

TEST(BestCheckpoint, ARunMayBeCalledAsAStepIs) {
  Scratch scratch;
  SoloGroup group;
  for (const char* run : {"2024", "step-7", "best"}) {
    const std::string given = scratch / run;
    write_steps(given + "/checkpoints", {100, 200});
    EXPECT_EQ(io::find_checkpoint(group, given).state.step, 200u) << run;
    EXPECT_EQ(io::find_checkpoint(group, given + "/100").state.step, 100u) << run;
    EXPECT_TRUE(io::verify_checkpoints(given).ok) << run;
    EXPECT_TRUE(io::diff_checkpoints(given, given + "/200").ok) << run;
  }
}

TEST(BestCheckpoint, WhatIsNoLabelIsSaid) {
  Scratch scratch;
  write_steps(scratch / "c", {100, 200});
  SoloGroup group;
  const auto message = [&](const std::string& path) -> std::string {
    try {
      io::find_checkpoint(group, path);
      return "found";
    } catch (const CheckpointError& e) {
      return e.what();
    }
  };
  EXPECT_NE(message(scratch / "c/best").find("no checkpoint was labelled best"), std::string::npos);
  for (const auto* text : {"", "step-", "../step-000000100", "step-000000100/..", "step-000000100\nstep-000000200\n"}) {
    write_file(scratch / "c/best", text);
    EXPECT_NE(message(scratch / "c/best").find("is not the label of a checkpoint"), std::string::npos) << text;
  }
  write_file(scratch / "c/best", "step-000000300\n");
  EXPECT_NE(message(scratch / "c/best").find("step-000000300, which is not there"), std::string::npos);
  EXPECT_NE(message(scratch / "nowhere").find("there is no checkpoint in"), std::string::npos);
}

/// A label that cannot be written is a remark: the checkpoint is durable, and neither the old best nor the new one is
/// removed.
TEST(BestCheckpoint, ALabelThatCannotBeWrittenIsARemark) {
  Scratch scratch;
  write_steps(scratch / "c", {1, 2});
  write_file(scratch / "c/best", "step-000000001\n");
  FaultFileSystem files;
  files.before = [](const FaultFileSystem::Call& call) {
    return call.operation == "write" && call.path.find(".tmp-best") != std::string::npos ? -ENOSPC : 0;
  };
  SoloGroup group;
  auto config = config_for(scratch / "c");
  config.keep = 2;
  CheckpointWriter writer(group, config, "run", files);
  writer.continue_from(2);
  SmallState state(3);
  const auto views = state.views();
  for (const std::uint64_t step : {3, 4, 5}) {
    writer.save(run_state(step), views, 3);
    const auto report = writer.finish();
    ASSERT_TRUE(report && report->durable);
    ASSERT_EQ(report->remarks.size(), 1u);
    EXPECT_NE(report->remarks[0].find("the best checkpoint could not be labelled"), std::string::npos);
  }
  EXPECT_EQ(read_file(scratch / "c/best"), "step-000000001\n");
  EXPECT_EQ(steps_in(scratch / "c"),
            (std::vector<std::string>{"step-000000001", "step-000000003", "step-000000004", "step-000000005"}));
}

TEST(BestCheckpoint, DeathAtEveryCallLeavesALabelOfAWholeCheckpoint) {
  Scratch before;
  write_steps(before / "c", {1, 2, 3});
  write_file(before / "c/best", "step-000000001\n");
  int old_ones = 0, new_ones = 0;
  for (std::size_t n = 0;; ++n) {
    ASSERT_LT(n, 300u);
    Scratch scratch;
    const auto directory = scratch / "c";
    fs::copy(before / "c", directory, fs::copy_options::recursive);
    const pid_t pid = ::fork();
    if (pid == 0) {
      FaultFileSystem files;
      std::atomic<std::size_t> count{0};
      files.before = [&](const FaultFileSystem::Call&) {
        if (count++ == n) ::_exit(9);
        return 0;
      };
      SoloGroup group;
      auto config = config_for(directory);
      config.keep = 2;
      CheckpointWriter writer(group, config, "run", files);
      writer.continue_from(3);
      SmallState state(4);
      const auto views = state.views();
      writer.save(run_state(4), views, 4);
      writer.finish();
      ::_exit(0);
    }
    int status = -1;
    ::waitpid(pid, &status, 0);
    ASSERT_TRUE(WIFEXITED(status));
    const auto best = io::read_best(io::posix_file_system(), directory);
    ASSERT_TRUE(best) << "death at call " << n;
    ASSERT_TRUE(*best == 1 || *best == 4) << *best;
    (*best == 1 ? old_ones : new_ones)++;
    EXPECT_NO_THROW(io::verify_checkpoint(io::posix_file_system(), directory + "/" + io::step_name(*best)))
        << "death at call " << n;
    // The next run takes up the label as its checkpoint has it.
    SoloGroup group;
    CheckpointWriter writer(group, config_for(directory), "next");
    const auto found = io::find_resume(group, config_for(directory));
    ASSERT_TRUE(found);
    writer.continue_from(found->state.step);
    const std::uint64_t right = found->state.step == 4 ? 4 : 1;
    EXPECT_EQ(writer.label_best(right), "");
    EXPECT_EQ(io::read_best(io::posix_file_system(), directory), right);
    for (const auto& name : names_in(directory)) EXPECT_FALSE(name.starts_with(".tmp")) << name;
    if (HasFailure() || WEXITSTATUS(status) == 0) break;
  }
  EXPECT_GT(old_ones, 20);
  EXPECT_GT(new_ones, 5);
}

// ---- loading a part, and export ------------------------------------------------------------------------------------

/// SmallState with a moving average of its two parameters.
SmallState with_average(std::uint64_t salt) {
  SmallState state(salt);
  state.add("ema/dense_1.weight", DType::f32, {33, 61}, salt + 50);
  state.add("ema/dense_1.bias", DType::f32, {61}, salt + 50);
  return state;
}

void write_averaged(const std::string& directory) {
  SoloGroup group;
  CheckpointWriter writer(group, config_for(directory), "run");
  auto state = with_average(7);
  ASSERT_TRUE(save_and_finish(writer, 7, state).durable);
}

TEST(CheckpointLoad, PassesOverWhatItIsToldTo) {
  Scratch scratch;
  write_averaged(scratch / "c");
  run_ranks(2, [&](Group& group) {
    const auto found = io::find_checkpoint(group, scratch / "c");
    EXPECT_TRUE(found.averaged);
    auto wanted = with_average(7), loaded = with_average(7);
    loaded.clear();
    auto views = loaded.views();
    std::erase_if(views, [](const auto& v) { return v.name.starts_with("ema/") || v.name.starts_with("optimizer/"); });
    const std::string_view some[] = {"optimizer/"}, all[] = {"optimizer/", "ema/"};
    EXPECT_THROW(io::load_checkpoint(group, found.path, views, io::posix_file_system(), some), CheckpointError);
    io::load_checkpoint(group, found.path, views, io::posix_file_system(), all);
    EXPECT_EQ(loaded.entries[0].bytes, wanted.entries[0].bytes);
    EXPECT_EQ(loaded.entries[6].bytes, wanted.entries[6].bytes);
    EXPECT_NE(loaded.entries[2].bytes, wanted.entries[2].bytes);
  });
}

std::vector<std::byte> read_all(const io::h5::File& file, const std::string& name) {
  const auto info = file.info(name);
  const auto set = file.open(info);
  const io::h5::Lock lock;
  std::size_t bytes = io::size_of(*info.type);
  for (const auto d : info.dims) bytes *= d;
  std::vector<std::byte> out(bytes);
  EXPECT_GE(H5Dread(set.get(), io::h5::native_type(*info.type), H5S_ALL, H5S_ALL, H5P_DEFAULT, out.data()), 0);
  return out;
}

TEST(CheckpointExport, HoldsTheModelThatIsUsed) {
  Scratch scratch;
  write_averaged(scratch / "c");
  const auto state = with_average(7);
  for (const bool raw : {false, true}) {
    const auto report = io::export_checkpoint(scratch / "c", scratch / "out.h5", raw);
    EXPECT_NE(report.text.find(raw ? "2 parameters (raw), 5 running" : "2 parameters (averaged), 5 running"),
              std::string::npos)
        << report.text;
    const io::h5::File file(scratch / "out.h5");
    EXPECT_EQ(read_all(file, "/param/dense_1.weight"), state.entries[raw ? 0 : 8].bytes);
    EXPECT_EQ(read_all(file, "/param/dense_1.bias"), state.entries[raw ? 1 : 9].bytes);
    EXPECT_EQ(read_all(file, "/state/mask"), state.entries[6].bytes);
    const auto half = file.info("/state/half");
    EXPECT_EQ(half.type, io::StoredType::f32);
    EXPECT_EQ(half.dims, (std::vector<std::uint64_t>{7, 3}));
    std::uint16_t bits = 0;
    std::memcpy(&bits, state.entries[5].bytes.data() + 2 * 20, sizeof bits);
    float value = 0;
    std::memcpy(&value, read_all(file, "/state/half").data() + std::size_t{4} * 20, sizeof value);
    std::uint32_t wide = 0;
    std::memcpy(&wide, &value, sizeof wide);
    EXPECT_EQ(wide, std::uint32_t{bits} << 16);
    EXPECT_EQ(file.list().datasets.size(), 7u);  // no state of the optimizer
  }
}

TEST(CheckpointExport, OfWhatIsDamagedLeavesNoFile) {
  Scratch scratch;
  write_averaged(scratch / "c");
  const auto shard = scratch / "c/step-000000007/shard-00000.bin";
  auto bytes = read_file(shard);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  write_file(shard, bytes);
  EXPECT_THROW(io::export_checkpoint(scratch / "c/step-000000007", scratch / "out.h5", false), CheckpointError);
  EXPECT_EQ(names_in(scratch.path()), std::vector<std::string>{"c"});
  EXPECT_THROW(io::export_checkpoint(scratch / "nowhere", scratch / "out.h5", false), CheckpointError);
}

}  // namespace
}  // namespace dtrain::test
