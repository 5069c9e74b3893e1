// A bit of the model flips in the memory of one rank: it is found by the next comparison, or before the next save, and
// the error names tensor and rank, whatever is sharded, averaged, kept in copies or alone. Nothing is found in runs
// whose memory is sound, and their bits stay.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "comm/world/local.hpp"
#include "comm/world/world.hpp"
#include "io/checkpoint/checkpoint.hpp"
#include "launch/base/signals.hpp"
#include "launch/train/train.hpp"
#include "tests/support/flipping_device.hpp"
#include "tests/support/training.hpp"

namespace dtrain::launch {
namespace {

using test::FlippingDevice;
using test_training::Outcome;

const std::string text =
    test_training::digits_config("flatten, dense: {units: 32, activation: relu}, dense: {units: 10}",
                                 R"(batch: {global: 48}
train: {steps: 12}
communication: {bucket_mib: 0.004, last_bucket_mib: 0.002}
)",
                                 "cache_mib: 64");

enum class Where : std::uint8_t { nowhere, parameter, first_state, second_state, average };

struct Flip {
  Where where = Where::nowhere;
  std::uint64_t step = 5;  // after whose update, from 0
};

class MemoryFaults : public test_training::Training {
 protected:
  /// Rank 1 of several, or the only one, is where it happens. `hit`: the name of the parameter.
  Outcome run(int ranks, const std::vector<std::string>& overrides, const Flip& flip, const std::string& name,
              std::string* hit = nullptr) const {
    const LoadedConfig loaded = config(text, overrides, name);
    Outcome result;
    std::atomic<int> alike{0};
    std::string parameter;
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    StopSignals stop;
    comm::run_local(ranks, [&](comm::LocalRank& rank) {
      comm::World world(rank);
      FlippingDevice::Hooks hooks;
      if (rank.rank() == std::min(1, ranks - 1)) hooks = hooks_for(flip, parameter);
      const ExitCode code = train(loaded, world, stop, std::make_unique<FlippingDevice>(hooks));
      if (rank.rank() == 0) result.code = code;
      alike += code == ExitCode::ok ? 1 : -1;
      world.finish(ExitCode::ok);
    });
    EXPECT_EQ(std::abs(alike), ranks);
    result.out = testing::internal::GetCapturedStdout();
    result.error = testing::internal::GetCapturedStderr();
    read_files(name, result);
    if (hit != nullptr) *hit = parameter;
    return result;
  }

  static FlippingDevice::Hooks hooks_for(const Flip& flip, std::string& parameter) {
    FlippingDevice::Hooks hooks;
    // Of the first parameter that this rank updates.
    hooks.updated = [=, &parameter](const UpdateArgs& a) {
      if (a.step->step != flip.step || !parameter.empty()) return;
      for (const FlatParam& p : a.layout->params) {
        const std::size_t at = std::max(p.offset, a.begin);
        if (at >= std::min(p.offset + p.size, a.end)) continue;
        parameter = flip.where == Where::average ? a.layout->params[0].name : p.name;
        if (flip.where == Where::parameter) test::flip_bit(a.params[at]);
        if (flip.where == Where::first_state) test::flip_bit(a.state[0][at - a.state_begin]);
        if (flip.where == Where::second_state) test::flip_bit(a.state[1][at - a.state_begin]);
        return;
      }
    };
    hooks.averaged = [=](float* average, const StepState& step) {
      if (flip.where == Where::average && step.step == flip.step) test::flip_bit(average[0]);
    };
    return hooks;
  }

  void expect_found(int ranks, std::vector<std::string> overrides, const Flip& flip, const std::string& expected,
                    const std::string& what) const {
    SCOPED_TRACE(what);
    std::string parameter;
    const Outcome found = run(ranks, overrides, flip, what, &parameter);
    EXPECT_EQ(found.code, ExitCode::numeric) << found.out;
    const std::string wanted = fmt::format(fmt::runtime(expected), parameter);
    EXPECT_NE(found.error.find(wanted), std::string::npos) << "expected " << wanted << "\n" << found.error;
    EXPECT_NE(found.error.find("no checkpoint of it is kept"), std::string::npos) << found.error;
  }

  bool holds(const std::string& name, int step) const {
    return std::filesystem::exists(folder_ / name / "checkpoints" / fmt::format("step-{:09}", step));
  }
};

const std::vector<std::string> adam{"optimizer={adam: {learning_rate: 0.002}}", "checkpoint.every_steps=0",
                                    "checkpoint.verify_every_steps=4"};

std::vector<std::string> with(std::vector<std::string> settings, const std::vector<std::string>& more) {
  settings.insert(settings.end(), more.begin(), more.end());
  return settings;
}

TEST_F(MemoryFaults, AFlipThatEachRankCouldTellOfIsNamed) {
  const std::vector<std::string> averaged = with(adam, {"train.ema={decay: 0.9}"});
  expect_found(3, adam, {Where::parameter}, "param/{} differs between ranks at step 8: rank 1 diverged", "parameter");
  expect_found(3, adam, {Where::first_state}, "/{} differs between ranks at step 8: rank 1 diverged", "first");
  expect_found(3, adam, {Where::second_state}, "/{} differs between ranks at step 8: rank 1 diverged", "second");
  expect_found(3, averaged, {Where::average}, "ema/{} differs between ranks at step 8: rank 1 diverged", "average");
  expect_found(3, with(averaged, {"optimizer.shard=true"}), {Where::average},
               "ema/{} differs between ranks at step 8: rank 1 diverged", "average-sharded");
  for (const char* name : {"parameter", "average-sharded"}) EXPECT_FALSE(holds(name, 12)) << name;
}

TEST_F(MemoryFaults, AFlipOfWhatOneRankAloneOwnsIsNamed) {
  const char* const of_parameter = "in the memory of rank 1 param/{} has changed after step 6, by no update";
  for (const char* rule : {"adam: {learning_rate: 0.002}", "sgd: {learning_rate: 0.1, momentum: 0.9}",
                           "sgd: {learning_rate: 0.1}", "lamb: {learning_rate: 0.002}", "lars: {learning_rate: 0.1}"}) {
    const std::vector<std::string> sharded{fmt::format("optimizer={{{}, shard: true}}", rule),
                                           "checkpoint.every_steps=0", "checkpoint.verify_every_steps=4"};
    expect_found(2, sharded, {Where::parameter}, of_parameter,
                 std::string(rule).substr(0, 3) + std::to_string(std::strlen(rule)));
  }
  const auto sharded = with(adam, {"optimizer.shard=true", "train.ema={decay: 0.9}"});
  expect_found(2, sharded, {Where::first_state},
               "in the memory of rank 1 optimizer/first_moment/{} has changed after step 6, by no update", "first");
  expect_found(2, sharded, {Where::second_state},
               "in the memory of rank 1 optimizer/second_moment/{} has changed after step 6, by no update", "second");
  // A run of one rank has nobody to compare with.
  expect_found(1, adam, {Where::parameter}, "in the memory of rank 0 param/{} has changed after step 6, by no update",
               "single");
  expect_found(1, adam, {Where::second_state}, "in the memory of rank 0 optimizer/second_moment/{} has changed",
               "single-second");
}

TEST_F(MemoryFaults, NoCheckpointOfItIsKept) {
  for (const std::uint64_t step : {5u, 7u}) {  // long before the save of step 8, and right before it
    const std::string name = fmt::format("flip-{}", step);
    const std::vector<std::string> settings{"optimizer={adam: {learning_rate: 0.002}, shard: true}",
                                            "checkpoint.every_steps=4"};
    expect_found(2, settings, {Where::parameter, step},
                 fmt::format("in the memory of rank 1 param/{{}} has changed after step {}, by no update", step + 1),
                 name);
    EXPECT_FALSE(holds(name, 8));
    EXPECT_TRUE(io::verify_checkpoints((folder_ / name / "checkpoints" / "step-000000004").string()).ok);
    // The same command goes on from there, to what it would have come to.
    const Outcome again = run(2, settings, {}, name), whole = run(2, settings, {}, name + "-whole");
    EXPECT_EQ(again.code, ExitCode::ok) << again.error;
    EXPECT_EQ(again.summary["parameter_hash"], whole.summary["parameter_hash"]);
  }
}

TEST_F(MemoryFaults, NothingIsFoundInSoundMemoryAndNoBitMoves) {
  for (const int ranks : {1, 3}) {
    for (const char* shard : {"optimizer.shard=false", "optimizer.shard=true"}) {
      const auto settings = with({"optimizer={adam: {learning_rate: 0.002}}", "checkpoint.every_steps=5",
                                  "train.ema={decay: 0.9}", "train.eval_every_steps=3"},
                                 {shard});
      const std::string name = fmt::format("sound-{}-{}", ranks, shard);
      const Outcome plain = run(ranks, settings, {}, name + "-plain");
      const Outcome checked = run(ranks, with(settings, {"checkpoint.verify_every_steps=1"}), {}, name + "-checked");
      test_training::expect_same(plain, checked, name.c_str());
    }
  }
}

// Where the packed copies are made right after an update, they are there until the next one.
TEST_F(MemoryFaults, APackedCopyThatIsNotTheParameterIsNamed) {
  const LoadedConfig loaded = config(test_training::cnn, {}, "packed");
  test_training::Steps s(loaded, std::make_unique<test::AsyncDevice>());
  s.go(3);
  s.read(0);
  const auto group = s.world.make_group();
  Program& program = s.engine->program();
  const auto fault = [&] {
    try {
      s.step->model().check_memory(*group, &program);
      return std::string();
    } catch (const NumericError& e) {
      return std::string(e.what());
    }
  };
  EXPECT_EQ(fault(), "");
  Stream& stream = s.engine->compute();
  int found = 0;
  for (const FlatParam& p : s.engine->store().layout().trained()) {
    float* const there = s.engine->store().params() + p.offset;
    float value = 0;
    s.device.copy(&value, there, sizeof value, stream);
    stream.synchronize();
    test::flip_bit(value);
    s.device.copy(there, &value, sizeof value, stream);
    stream.synchronize();
    const std::string said = fault();
    if (said.empty()) continue;  // its layer computes with the parameter itself
    ++found;
    EXPECT_NE(said.find(fmt::format("in the memory of rank 0 the packed copy of param/{} is not equal to it", p.name)),
              std::string::npos)
        << said;
    EXPECT_EQ(fault(), "") << "it was made again";
  }
  if (found == 0) GTEST_SKIP() << "no layer of this model keeps a packed copy on this processor";
}

}  // namespace
}  // namespace dtrain::launch
