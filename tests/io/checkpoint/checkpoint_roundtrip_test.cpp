// What is saved is loaded bit by bit, on any number of ranks; policies of resuming; what may change in between.
#include <algorithm>
#include <set>

#include "tests/io/checkpoint/checkpoint_support.hpp"

namespace dtrain::test {
namespace {

using io::CheckpointConfig;
using io::CheckpointWriter;

class RoundTrip : public testing::TestWithParam<std::tuple<int, int>> {};

TEST_P(RoundTrip, EveryByteComesBackOnAnotherWorld) {
  const auto [writers, readers] = GetParam();
  Scratch scratch;
  write_steps(scratch / "c", {500}, writers);
  EXPECT_EQ(names_in(scratch / "c/step-000000500").size(), static_cast<std::size_t>(writers) + 1);
  const SmallState expected(500);
  run_ranks(readers, [&](Group& group) {
    const auto found = io::find_resume(group, config_for(scratch / "c"));
    ASSERT_TRUE(found);
    EXPECT_TRUE(found->skipped.empty());
    const auto& s = found->state;
    const auto e = run_state(500);
    EXPECT_EQ(s.step, e.step);
    EXPECT_EQ(s.applied_steps, e.applied_steps);
    EXPECT_EQ(s.samples, e.samples);
    EXPECT_EQ(s.epoch, e.epoch);
    EXPECT_EQ(s.global_batch, e.global_batch);
    EXPECT_EQ(s.seed, e.seed);
    EXPECT_EQ(s.loss_scale, e.loss_scale);
    EXPECT_EQ(s.good_steps, e.good_steps);
    EXPECT_EQ(s.data_fingerprint, e.data_fingerprint);
    EXPECT_EQ(s.configuration, e.configuration);
    EXPECT_EQ(s.configuration_hash, e.configuration_hash);
    EXPECT_EQ(s.fields, e.fields);
    EXPECT_EQ(s.choices, e.choices);
    EXPECT_EQ(s.metrics, e.metrics);
    EXPECT_EQ(s.versions, e.versions);
    EXPECT_EQ(s.world_size, e.world_size);
    EXPECT_EQ(s.run_id, e.run_id);
    EXPECT_EQ(s.parent_run_id, e.parent_run_id);
    EXPECT_EQ(s.parameter_hash, e.parameter_hash);
    EXPECT_EQ(s.saved_at.size(), 20u);
    SmallState mine(1);
    mine.clear();
    auto views = mine.views();
    std::reverse(views.begin(), views.end());  // the order is not part of the format
    io::load_checkpoint(group, found->path, views);
    EXPECT_TRUE(mine.same(expected)) << "rank " << group.rank();
  });
}
INSTANTIATE_TEST_SUITE_P(Worlds, RoundTrip, testing::Combine(testing::Values(1, 2, 3, 8), testing::Values(1, 2, 5)));

TEST(CheckpointWriterTest, MoreRanksThanBytesToShare) {
  Scratch scratch;
  const float value = 3.5f;
  run_ranks(4, [&](Group& group) {
    CheckpointWriter writer(group, config_for(scratch / "c"), "run");
    float mine = value;
    const std::vector<io::StateTensor> tensors{{"param/x", DType::f32, Shape{1}, &mine}};
    writer.save(run_state(1), tensors);
    const auto report = writer.finish();
    ASSERT_TRUE(report && report->durable) << (report ? report->error : "");
    mine = 0;
    io::load_checkpoint(group, report->path, tensors);
    EXPECT_EQ(mine, value);
  });
}

TEST(CheckpointWriterTest, FlatLayoutGivesNamedViews) {
  FlatLayout layout;
  layout.params.push_back({0, "dense_1.weight", Shape{2, 3}, 0, 6, true});
  layout.params.push_back({1, "dense_1.bias", Shape{3}, 16, 3, false});
  std::vector<float> flat(32);
  std::vector<io::StateTensor> tensors;
  io::append_flat(tensors, "param/", layout.params, flat.data());
  io::append_flat(tensors, "optimizer/momentum/", layout.trained(), flat.data());
  ASSERT_EQ(tensors.size(), 4u);
  EXPECT_EQ(tensors[1].name, "param/dense_1.bias");
  EXPECT_EQ(tensors[1].data, flat.data() + 16);
  EXPECT_EQ(tensors[1].bytes(), 12u);
  EXPECT_EQ(tensors[2].name, "optimizer/momentum/dense_1.weight");
}

TEST(CheckpointWriterTest, SaveReturnsBeforeTheDiskIsDoneAndTheNextOneWaits) {
  Scratch scratch;
  std::atomic<bool> release{false};
  FaultFileSystem files;
  files.before = [&](const FaultFileSystem::Call& call) {
    while (call.operation == "sync" && !release) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return 0;
  };
  run_ranks(2, [&](Group& group) {
    CheckpointWriter writer(group, config_for(scratch / "c"), "run", files);
    SmallState a(1), b(2);
    EXPECT_FALSE(writer.poll());
    EXPECT_FALSE(writer.save(run_state(1), a.views()));
    a.clear();  // training goes on: the copy is what counts
    for (int i = 0; i < 20; ++i) EXPECT_FALSE(writer.poll());
    EXPECT_TRUE(writer.in_flight());
    EXPECT_FALSE(writer.durable_step());
    const auto begun = [&] {
      const auto names = names_in(scratch / "c");
      return std::any_of(names.begin(), names.end(), [](const auto& name) { return name.starts_with(".tmp-1-"); });
    };
    for (int i = 0; i < 10000 && !begun(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_TRUE(begun());
    group.barrier();
    release = true;
    const auto first = writer.save(run_state(2), b.views());
    ASSERT_TRUE(first);
    EXPECT_EQ(first->step, 1u);
    EXPECT_TRUE(first->durable) << first->error;
    const auto second = writer.finish();
    ASSERT_TRUE(second);
    EXPECT_EQ(second->step, 2u);
    EXPECT_TRUE(second->durable);
    EXPECT_EQ(writer.durable_step(), 2u);
    EXPECT_FALSE(writer.finish());
    EXPECT_FALSE(writer.save(run_state(2), b.views()));  // durable already
    EXPECT_FALSE(writer.in_flight());
    SmallState loaded(9);
    io::load_checkpoint(group, first->path, loaded.views());
    EXPECT_TRUE(loaded.same(SmallState(1)));
  });
}

TEST(CheckpointWriterTest, PollEndsASaveWithoutFinish) {
  Scratch scratch;
  run_ranks(3, [&](Group& group) {
    CheckpointWriter writer(group, config_for(scratch / "c"), "run");
    SmallState a(1);
    writer.save(run_state(1), a.views());
    int polls = 0;
    std::optional<io::SaveReport> report;
    while (!(report = writer.poll()) && ++polls < 100000) std::this_thread::yield();
    ASSERT_TRUE(report);
    EXPECT_TRUE(report->durable);
    EXPECT_EQ(report->bytes % 64, 0u);
  });
  EXPECT_EQ(names_in(scratch / "c"), (std::vector<std::string>{"LOCK", "step-000000001"}));
}

TEST(CheckpointWriterTest, KeepsTheLastKAndEveryMth) {
  Scratch scratch;
  run_ranks(2, [&](Group& group) {
    auto config = config_for(scratch / "c");
    config.keep = 1;  // two is the least
    config.keep_every = 300;
    CheckpointWriter writer(group, config, "run");
    std::vector<std::string> removed;
    for (std::uint64_t step = 100; step <= 800; step += 100) {
      SmallState state(step);
      for (const auto& path : save_and_finish(writer, step, state).removed) removed.push_back(path);
    }
    EXPECT_EQ(removed.size(), 4u);
  });
  EXPECT_EQ(names_in(scratch / "c"),
            (std::vector<std::string>{"LOCK", "step-000000300", "step-000000600", "step-000000700", "step-000000800"}));
}

TEST(CheckpointWriterTest, AGivenUpFutureIsSetAsideAndNotRemoved) {
  Scratch scratch;
  write_steps(scratch / "c", {100, 200, 300});
  SoloGroup group;
  CheckpointWriter writer(group, config_for(scratch / "c"), "run");
  writer.continue_from(100);
  SmallState state(7);
  const auto report = save_and_finish(writer, 200, state);
  EXPECT_TRUE(report.durable) << report.error;
  EXPECT_EQ(report.remarks.size(), 2u);
  const auto names = names_in(scratch / "c");
  ASSERT_EQ(names.size(), 5u);
  EXPECT_EQ(names[3], "step-000000100");
  EXPECT_EQ(names[4], "step-000000200");
  EXPECT_TRUE(names[1].starts_with("aside-step-000000200-")) << names[1];
  const auto found = io::find_latest_valid(scratch / "c");
  ASSERT_TRUE(found);
  SmallState loaded(1);
  io::load_checkpoint(group, found->path, loaded.views());
  EXPECT_TRUE(loaded.same(SmallState(7)));
}

TEST(CheckpointWriterTest, WhatDeadRunsLeftIsRemoved) {
  Scratch scratch;
  write_steps(scratch / "c", {100});
  fs::create_directories(scratch / "c/.tmp-200-abc");
  write_file(scratch / "c/.tmp-200-abc/shard-00000.bin", "half");
  SoloGroup group;
  CheckpointWriter writer(group, config_for(scratch / "c"), "run");
  EXPECT_EQ(names_in(scratch / "c"), (std::vector<std::string>{"LOCK", "step-000000100"}));
}

TEST(CheckpointWriterTest, NonFiniteStateIsNeverSaved) {
  for (const auto bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    Scratch scratch;
    run_ranks(2, [&](Group& group) {
      CheckpointWriter writer(group, config_for(scratch / "c"), "run");
      SmallState state(1);
      if (group.rank() == 1) std::memcpy(state.entries[2].bytes.data() + 4 * 1999, &bad, sizeof bad);
      try {
        writer.save(run_state(5), state.views());
        FAIL() << "saved";
      } catch (const NumericError& e) {
        EXPECT_STREQ(e.what(),
                     "optimizer/first_moment/dense_1.weight holds a NaN or an infinity on rank 1 at step 5; no "
                     "checkpoint of it is kept");
      }
      EXPECT_FALSE(writer.in_flight());
    });
    EXPECT_EQ(names_in(scratch / "c"), std::vector<std::string>{"LOCK"});
  }
}

TEST(CheckpointWriterTest, AFlippedWeightNamesTensorAndRank) {
  for (const int ranks : {2, 3}) {
    Scratch scratch;
    run_ranks(ranks, [&](Group& group) {
      CheckpointWriter writer(group, config_for(scratch / "c"), "run");
      SmallState state(1);
      if (group.rank() == 1) state.entries[1].bytes[100] ^= std::byte{1};
      try {
        writer.save(run_state(5), state.views());
        FAIL() << "saved";
      } catch (const NumericError& e) {
        const std::string who = ranks == 2 ? "ranks 0 and 1" : "rank 1";
        EXPECT_EQ(std::string(e.what()), "param/dense_1.bias differs between ranks at step 5: " + who +
                                             " diverged; no checkpoint of it is kept");
      }
    });
  }
}

TEST(CheckpointWriterTest, RanksAtDifferentStepsAreABug) {
  Scratch scratch;
  EXPECT_THROW(run_ranks(2,
                         [&](Group& group) {
                           CheckpointWriter writer(group, config_for(scratch / "c"), "run");
                           SmallState state(1);
                           writer.save(run_state(5 + static_cast<std::uint64_t>(group.rank())), state.views());
                         }),
               BugError);
}

// ---- resuming ------------------------------------------------------------------------------------------------------

TEST(CheckpointResume, NothingThereMeansStartAfresh) {
  Scratch scratch;
  SoloGroup group;
  EXPECT_FALSE(io::find_resume(group, config_for(scratch / "missing")));
  EXPECT_FALSE(io::find_resume(group, config_for(scratch.path())));
}

TEST(CheckpointResume, OwnCheckpointsComeFirst) {
  Scratch scratch;
  write_steps(scratch / "own", {300});
  write_steps(scratch / "c", {100});
  SoloGroup group;
  auto config = config_for(scratch / "own");
  for (const io::Resume resume : {io::Resume::automatic, io::Resume::never, io::Resume::directory}) {
    config.resume = resume;
    config.resume_directory = scratch / "c";
    EXPECT_EQ(io::find_resume(group, config)->state.step, 300u);
  }
  config.fresh = true;
  EXPECT_EQ(io::find_resume(group, config)->state.step, 100u);
  config.resume = io::Resume::automatic;
  EXPECT_FALSE(io::find_resume(group, config));
}

TEST(CheckpointResume, SetAsideNoneIsFound) {
  Scratch scratch;
  write_steps(scratch / "c", {100, 200});
  EXPECT_EQ(io::set_checkpoints_aside(scratch / "c"), 2u);
  EXPECT_EQ(io::set_checkpoints_aside(scratch / "c"), 0u);
  EXPECT_FALSE(io::find_latest_valid(scratch / "c"));
}

TEST(CheckpointResume, TheNewestReadableOneTellsTheJobOfSlurm) {
  Scratch scratch;
  EXPECT_FALSE(io::newest_is_of_job(scratch / "c", "7"));
  write_steps(scratch / "c", {100});  // in no job
  EXPECT_FALSE(io::newest_is_of_job(scratch / "c", "7"));
  SoloGroup group;
  io::CheckpointWriter writer(group, config_for(scratch / "c"), "writer");
  writer.continue_from(100);
  for (const auto& [step, job] : {std::pair(200u, "7"), std::pair(300u, "8")}) {
    SmallState small(step);
    auto state = run_state(step);
    state.versions[io::slurm_job_key] = job;
    writer.save(state, small.views());
    ASSERT_TRUE(writer.finish()->durable);
    EXPECT_TRUE(io::newest_is_of_job(scratch / "c", job));
  }
  EXPECT_FALSE(io::newest_is_of_job(scratch / "c", "7"));
  EXPECT_FALSE(io::newest_is_of_job(scratch / "c", ""));
  fs::remove(scratch / "c/step-000000300/MANIFEST.json");
  EXPECT_TRUE(io::newest_is_of_job(scratch / "c", "7"));
}

TEST(CheckpointResume, PoliciesNeverAndDirectory) {
  Scratch scratch;
  write_steps(scratch / "c", {100, 200});
  run_ranks(2, [&](Group& group) {
    auto config = config_for(scratch / "new");
    config.resume = io::Resume::never;
    EXPECT_FALSE(io::find_resume(group, config));
    config.resume = io::Resume::directory;
    config.resume_directory = scratch / "c";
    EXPECT_EQ(io::find_resume(group, config)->state.step, 200u);
    config.resume_directory = scratch / "c/step-000000100";
    EXPECT_EQ(io::find_resume(group, config)->state.step, 100u);
    config.resume_directory = scratch / "other";
    EXPECT_THROW(io::find_resume(group, config), CheckpointError);
  });
}

TEST(CheckpointResume, NeverStartsAfreshWhereCheckpointsExist) {
  Scratch scratch;
  write_steps(scratch / "c", {100, 200});
  fs::remove(scratch / "c/step-000000100/MANIFEST.json");
  fs::remove(scratch / "c/step-000000200/shard-00000.bin");
  run_ranks(2, [&](Group& group) {
    try {
      io::find_resume(group, config_for(scratch / "c"));
      FAIL() << "started afresh";
    } catch (const CheckpointError& e) {
      const std::string text = e.what();
      EXPECT_NE(text.find("none of the 2 checkpoints in"), std::string::npos) << text;
      EXPECT_NE(text.find("step-000000100 is incomplete: MANIFEST.json is missing"), std::string::npos) << text;
      EXPECT_NE(text.find("step-000000200 is incomplete: shard-00000.bin is missing"), std::string::npos) << text;
      EXPECT_NE(text.find("--fresh"), std::string::npos) << text;
    }
  });
}

TEST(CheckpointResume, AChangedSettingIsRefusedByName) {
  io::FoundCheckpoint saved{"runs/a/step-000000100", run_state(100), {}};
  auto current = run_state(0);
  const auto check = [&](bool force) {
    const std::vector<std::string> may_change{"batch.micro", "opt", "train"};
    return io::check_compatible(saved, current, may_change, force);
  };
  EXPECT_TRUE(check(false).empty());
  current.fields[2].second = "7";  // train.epochs
  current.world_size = 4;
  EXPECT_EQ(check(false).size(), 2u);
  current.fields[1].second = "0.01";
  current.data_fingerprint = "beef";
  try {
    check(false);
    FAIL() << "accepted";
  } catch (const CheckpointError& e) {
    EXPECT_EQ(e.kind(), CheckpointError::Kind::incompatible);
    const std::string text = e.what();
    EXPECT_NE(text.find("incompatible"), std::string::npos);
    EXPECT_NE(text.find("optimizer.adam.learning_rate was 0.001, is 0.01"), std::string::npos) << text;
    EXPECT_NE(text.find("fingerprint f00d, now beef"), std::string::npos) << text;
  }
  EXPECT_EQ(check(true).size(), 4u);
  current = run_state(0);
  current.fields.erase(current.fields.begin());
  EXPECT_THROW(check(false), CheckpointError);
}

TEST(CheckpointResume, AnotherModelIsRefusedByTensor) {
  Scratch scratch;
  write_steps(scratch / "c", {100}, 2);
  const auto expect = [&](const std::function<void(std::vector<io::StateTensor>&)>& change, const std::string& text) {
    run_ranks(2, [&](Group& group) {
      SmallState state(1);
      auto views = state.views();
      change(views);
      try {
        io::load_checkpoint(group, scratch / "c/step-000000100", views);
        ADD_FAILURE() << "accepted, expected " << text;
      } catch (const CheckpointError& e) {
        EXPECT_EQ(e.kind(), CheckpointError::Kind::incompatible);
        EXPECT_NE(std::string(e.what()).find(text), std::string::npos) << e.what();
      }
    });
  };
  expect([](auto& v) { v.erase(v.begin() + 1); }, "it holds param/dense_1.bias, which this model does not have");
  expect([](auto& v) { v[0].shape = Shape{61, 33}; }, "param/dense_1.weight was float32 [33, 61], is float32 [61, 33]");
  expect([](auto& v) { v[1].dtype = DType::i32; }, "param/dense_1.bias was float32 [61], is int32 [61]");
  float extra = 0;
  expect([&](auto& v) { v.push_back({"param/new", DType::f32, Shape{1}, &extra}); }, "it lacks param/new");
}

TEST(CheckpointResume, ALoadThatFailsHalfwayFailsOnAllRanks) {
  Scratch scratch;
  write_steps(scratch / "c", {100}, 3);
  const auto shard = scratch / "c/step-000000100/shard-00002.bin";
  auto bytes = read_file(shard);
  bytes[bytes.size() / 2] ^= 1;
  write_file(shard, bytes);
  std::atomic<int> failures{0};
  run_ranks(3, [&](Group& group) {
    SmallState state(1);
    try {
      io::load_checkpoint(group, scratch / "c/step-000000100", state.views());
    } catch (const CheckpointError& e) {
      EXPECT_EQ(e.kind(), CheckpointError::Kind::corrupt);
      ++failures;
    }
  });
  EXPECT_EQ(failures, 3);
}

// ---- `dtrain checkpoint ...` ---------------------------------------------------------------------------------------

TEST(CheckpointTools, ListVerifyDiff) {
  Scratch scratch;
  write_steps(scratch / "c", {100, 200});
  auto listed = io::list_checkpoints(scratch / "c");
  EXPECT_TRUE(listed.ok);
  EXPECT_NE(listed.text.find("1111222233334444"), std::string::npos) << listed.text;
  EXPECT_NE(listed.json.find("\"state\": \"complete\""), std::string::npos) << listed.json;
  EXPECT_TRUE(io::verify_checkpoints(scratch / "c").ok);
  EXPECT_TRUE(io::verify_checkpoints(scratch / "c/step-000000100").ok);
  EXPECT_FALSE(io::verify_checkpoints(scratch.path()).ok);
  EXPECT_THROW(io::verify_checkpoints(scratch / "none"), CheckpointError);
  EXPECT_THROW(io::list_checkpoints(scratch / "none"), CheckpointError);

  EXPECT_TRUE(io::diff_checkpoints(scratch / "c/step-000000100", scratch / "c/step-000000100").ok);
  const auto different = io::diff_checkpoints(scratch / "c/step-000000100", scratch / "c");
  EXPECT_FALSE(different.ok);
  EXPECT_NE(different.text.find("different   param/dense_1.weight"), std::string::npos) << different.text;
  EXPECT_NE(different.text.find("equal       state/nothing"), std::string::npos) << different.text;

  const auto shard = scratch / "c/step-000000100/shard-00000.bin";
  write_file(shard, read_file(shard) + "x");
  EXPECT_FALSE(io::verify_checkpoints(scratch / "c").ok);
  listed = io::list_checkpoints(scratch / "c");
  EXPECT_FALSE(listed.ok);
  EXPECT_NE(listed.text.find("corrupt"), std::string::npos) << listed.text;
}

TEST(CheckpointTools, DiffMeasuresTheLargestDifference) {
  Scratch scratch;
  SoloGroup group;
  float a[3] = {1, 2, 3}, b[3] = {1, 2.5f, 2.75f};
  std::uint16_t half[2] = {0x3c00, 0x3e00};  // 1 and 1.5
  double only = 1;
  {
    CheckpointWriter writer(group, config_for(scratch / "a"), "run");
    const std::vector<io::StateTensor> t{
        {"x", DType::f32, Shape{3}, a}, {"h", DType::f16, Shape{1}, &half[0]}, {"only", DType::f64, Shape{1}, &only}};
    writer.save(run_state(1), t);
    ASSERT_TRUE(writer.finish()->durable);
  }
  {
    CheckpointWriter writer(group, config_for(scratch / "b"), "run");
    const std::vector<io::StateTensor> t{{"x", DType::f32, Shape{3}, b}, {"h", DType::f16, Shape{1}, &half[1]}};
    writer.save(run_state(1), t);
    ASSERT_TRUE(writer.finish()->durable);
  }
  const auto diff = io::diff_checkpoints(scratch / "a", scratch / "b");
  EXPECT_FALSE(diff.ok);
  EXPECT_NE(diff.text.find("different   x  2 of 3 elements, largest difference 0.5"), std::string::npos) << diff.text;
  EXPECT_NE(diff.text.find("different   h  1 of 1 elements, largest difference 0.5"), std::string::npos) << diff.text;
  EXPECT_NE(diff.text.find("only in a   only"), std::string::npos) << diff.text;
}

}  // namespace
}  // namespace dtrain::test
