// The model beside the shards of its checkpoint: it is there whole or not at all, whatever fails, and the checkpoint is
// none the worse for it.
#include <cerrno>
#include <chrono>
#include <thread>

#include "io/checkpoint/checkpoint_manifest.hpp"
#include "io/weights/safetensors.hpp"
#include "tests/io/checkpoint/checkpoint_support.hpp"

namespace dtrain::test {
namespace {

using io::CheckpointWriter;
using Names = std::vector<std::string>;

const Names of_step{"MANIFEST.json", "shard-00000.bin"};
const Names with_model{"MANIFEST.json", "safetensors", "shard-00000.bin"};

/// Reads every byte of a step directory; throws where one is wrong.
void expect_valid(const std::string& path) {
  EXPECT_NO_THROW(io::verify_checkpoint(io::posix_file_system(), path)) << path;
}

TEST(CheckpointExportInside, HoldsTheModelAndNothingReadsIt) {
  Scratch scratch;
  write_steps(scratch / "c", {7});
  const auto path = scratch / "c/step-000000007";
  io::export_into_checkpoint(path, std::nullopt);
  EXPECT_EQ(names_in(path), with_model);
  EXPECT_EQ(names_in(path + "/safetensors"), Names{"model.safetensors"});
  io::SafeTensorsFile file(path + "/safetensors/model.safetensors");
  EXPECT_EQ(file.read(*file.find("dense_1.weight")), SmallState(7).entries[0].bytes);
  EXPECT_EQ(file.metadata().at("step"), "7");
  expect_valid(path);
  EXPECT_TRUE(io::list_checkpoints(scratch / "c").ok);
  EXPECT_TRUE(io::diff_checkpoints(path, scratch / "c").ok);
  EXPECT_EQ(io::find_latest_valid(scratch / "c")->state.step, 7u);
}

TEST(CheckpointExport, OfAPartHasNotItsHash) {
  Scratch scratch;
  SoloGroup group;
  CheckpointWriter writer(group, config_for(scratch / "c"), "run");
  SmallState state(7);
  auto of_adapters = run_state(7);
  of_adapters.versions[io::base_hash_key] = "fedcba9876543210";
  const auto views = state.views();
  writer.save(of_adapters, views);
  ASSERT_TRUE(writer.finish()->durable);
  const auto whole = [&](const std::string&, const io::RunState&, bool) {
    return std::vector<io::StateTensor>(views.begin(), views.begin() + 1);
  };
  io::export_checkpoint(scratch / "c", scratch / "m.safetensors", false, io::ExportFormat::safetensors,
                        io::posix_file_system(), nullptr, whole);
  io::SafeTensorsFile file(scratch / "m.safetensors");
  EXPECT_EQ(file.read(*file.find("dense_1.weight")), state.entries[0].bytes);
  EXPECT_FALSE(file.metadata().contains("parameter_hash"));
  EXPECT_TRUE(file.metadata().contains("configuration_hash"));
}

TEST(CheckpointExportInside, AFaultAtAnyCallLeavesTheCheckpointAlone) {
  Scratch first;
  write_steps(first / "c", {7});
  FaultFileSystem counting;
  fs::copy(first / "c", first / "counted", fs::copy_options::recursive);
  io::export_into_checkpoint(first / "counted/step-000000007", std::nullopt, nullptr, counting);
  const auto calls = counting.calls();
  ASSERT_GT(calls.size(), 10u);
  for (std::size_t n = 0; n < calls.size(); ++n) {
    Scratch scratch;
    fs::copy(first / "c", scratch / "c", fs::copy_options::recursive);
    const auto path = scratch / "c/step-000000007";
    FaultFileSystem files;
    files.before = [n](const FaultFileSystem::Call& call) { return call.index == n ? -ENOSPC : 0; };
    const auto where = fmt::format("call {}: {} {}", n, calls[n].operation, calls[n].path);
    bool failed = false;
    try {
      io::export_into_checkpoint(path, std::nullopt, nullptr, files);
    } catch (const Error&) {
      failed = true;
    }
    expect_valid(path);
    // Where only the last sync failed, the folder is there; it is whole then.
    const bool there = fs::exists(path + "/safetensors");
    EXPECT_EQ(names_in(path), there ? with_model : of_step) << where;
    EXPECT_TRUE(there || failed) << where;
    if (there) {
      EXPECT_NO_THROW(io::SafeTensorsFile(path + "/safetensors/model.safetensors")) << where;
    }
  }
}

TEST(CheckpointExportInside, EachDurableStepIsToldOfAndKeptWithItsModel) {
  Scratch scratch;
  run_ranks(2, [&](Group& group) {
    auto config = config_for(scratch / "c");
    config.keep = 2;
    CheckpointWriter writer(group, config, "run");
    writer.when_durable(
        [](const std::string& path, const io::GivenUp&) { io::export_into_checkpoint(path, std::nullopt); });
    for (const std::uint64_t step : {1, 2, 3}) {
      SmallState state(step);
      const auto report = save_and_finish(writer, step, state);
      EXPECT_TRUE(report.durable && report.remarks.empty());
    }
  });
  for (const char* name : {"step-000000002", "step-000000003"}) {
    EXPECT_TRUE(fs::exists(scratch / "c" + "/" + name + "/safetensors/model.safetensors")) << name;
    expect_valid(scratch / "c" + "/" + name);
  }
  EXPECT_EQ(names_in(scratch / "c"), (Names{"LOCK", "step-000000002", "step-000000003"}));
}

TEST(CheckpointExportInside, WhatFailsIsARemarkOfADurableCheckpoint) {
  Scratch scratch;
  run_ranks(2, [&](Group& group) {
    CheckpointWriter writer(group, config_for(scratch / "c"), "run");
    writer.when_durable([](const std::string& path, const io::GivenUp&) { throw DataError(path + ": no room"); });
    for (const std::uint64_t step : {1, 2}) {
      SmallState state(step);
      const auto report = save_and_finish(writer, step, state);
      EXPECT_TRUE(report.durable);
      EXPECT_TRUE(report.error.empty()) << report.error;
      ASSERT_EQ(report.remarks.size(), 1u);
      EXPECT_EQ(report.remarks[0], report.path + ": no room");
    }
  });
  EXPECT_EQ(io::find_latest_valid(scratch / "c")->state.step, 2u);
}

TEST(CheckpointExportInside, IsGivenUpBetweenPiecesAndLeavesNothing) {
  Scratch scratch;
  write_steps(scratch / "c", {7});
  const auto path = scratch / "c/step-000000007";
  for (int pieces = 0;; ++pieces) {
    int asked = 0;
    const auto given_up = [&] { return asked++ == pieces; };
    try {
      io::export_into_checkpoint(path, std::nullopt, nullptr, io::posix_file_system(), given_up);
      EXPECT_GT(pieces, 3);
      break;
    } catch (const DataError& e) {
      EXPECT_STREQ(e.what(), "the export was given up: the run is stopping");
    }
    EXPECT_EQ(names_in(path), of_step) << pieces;
  }
  EXPECT_EQ(names_in(path), with_model);
}

/// A stop does not wait for the export of the checkpoint before: the machine may be taken away soon.
TEST(CheckpointExportInside, ThatIsGivenUpLetsTheLastCheckpointBecomeDurable) {
  Scratch scratch;
  run_ranks(2, [&](Group& group) {
    CheckpointWriter writer(group, config_for(scratch / "c"), "run");
    writer.when_durable([](const std::string& path, const io::GivenUp& given_up) {
      while (!given_up()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      throw DataError(path + ": given up");
    });
    SmallState first(1), last(2);
    const auto views = first.views(), last_views = last.views();
    writer.save(run_state(1), views);
    while (group.any(group.rank() == 0 && !fs::exists(scratch / "c/step-000000001"))) writer.poll();
    writer.give_up_work();
    const auto earlier = writer.save(run_state(2), last_views);
    ASSERT_TRUE(earlier && earlier->durable);
    EXPECT_EQ(earlier->remarks, Names{earlier->path + ": given up"});
    const auto report = writer.finish();
    EXPECT_TRUE(report && report->durable);
  });
  EXPECT_EQ(io::find_latest_valid(scratch / "c")->state.step, 2u);
}

TEST(CheckpointExportInside, WhatADeadRunLeftIsRemoved) {
  Scratch scratch;
  write_steps(scratch / "c", {7});
  const auto path = scratch / "c/step-000000007";
  fs::create_directory(path + "/.tmp-safetensors");
  write_file(path + "/.tmp-safetensors/model.safetensors.tmp-1", "half");
  expect_valid(path);
  run_ranks(1, [&](Group& group) { const CheckpointWriter writer(group, config_for(scratch / "c"), "next"); });
  EXPECT_EQ(names_in(path), of_step);
}

}  // namespace
}  // namespace dtrain::test
