// Training on an asynchronous device: the same bits as on the cpu, from recorded steps or not, with
// results that are read late, and without a wait or an allocation in a step.
#include <csignal>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "launch/base/alone.hpp"
#include "tests/support/async_device.hpp"
#include "tests/support/training.hpp"

namespace dtrain::launch {
namespace {

using test::AsyncDevice;
using namespace test_training;

class AsyncTraining : public Training {};

AsyncDevice::Options delays(int copy, int compute) {
  AsyncDevice::Options o;
  o.copy_delay_us = copy;
  o.compute_delay_us = compute;
  return o;
}

TEST_F(AsyncTraining, has_the_bits_of_the_cpu_with_graphs_and_without) {
  for (const auto& [name, text] : {std::pair{"mlp", mlp}, std::pair{"cnn", cnn}}) {
    SCOPED_TRACE(name);
    const Outcome cpu = train_on(nullptr, text, {}, fmt::format("{}-cpu", name));
    const Outcome graphs =
        train_on(std::make_unique<AsyncDevice>(delays(300, 0)), text, {}, fmt::format("{}-graphs", name));
    expect_same(cpu, graphs);
    auto eager = std::make_unique<AsyncDevice>(delays(0, 30));
    // Without the set on the device: bytes travel.
    expect_same(cpu, train_on(std::move(eager), text, {"cuda.graphs=false", "data.device_cache_mib=0"},
                              fmt::format("{}-eager", name)));
  }
}

TEST_F(AsyncTraining, elastic_bits_and_loss_of_graphs_change_nothing) {
  const std::vector<std::string> elastic = {"deterministic=elastic", "batch.micro=12", "train.steps=9"};
  expect_same(train_on(nullptr, mlp, elastic, "cpu"), train_on(std::make_unique<AsyncDevice>(), mlp, elastic, "async"));
  AsyncDevice::Options refuses;
  refuses.records = false;
  const Outcome refused = train_on(std::make_unique<AsyncDevice>(refuses), mlp, {"train.steps=9"}, "refused");
  EXPECT_EQ(refused.code, ExitCode::ok);
  EXPECT_EQ(refused.error,  // each once, whatever is refused later
            "warning: steps are not replayed as CUDA graphs: the test says so\n"
            "warning: evaluation passes are not replayed as CUDA graphs: the test says so\n");
}

TEST_F(AsyncTraining, a_batch_that_grows_has_the_bits_of_the_cpu) {
  // Steps of 1, 1, 2, 3 and then 4 micro batches; those of the timeline are not recorded.
  const std::vector<std::string> grows = {"batch={global: 48, warmup: {from: 12, samples: 60}}", "train.steps=20"};
  std::vector<std::string> traced = grows;
  traced.emplace_back("log.trace={first_step: 2, steps: 4}");
  const Outcome cpu = train_on(nullptr, mlp, grows, "cpu");
  ASSERT_EQ(cpu.code, ExitCode::ok) << cpu.error;
  expect_same(cpu, train_on(std::make_unique<AsyncDevice>(delays(300, 0)), mlp, grows, "graphs"));
  expect_same(cpu, train_on(std::make_unique<AsyncDevice>(), mlp, traced, "traced"));
}

TEST_F(AsyncTraining, stops_at_a_step_that_all_agree_on_and_goes_on_from_there) {
  const Outcome whole = train_on(std::make_unique<AsyncDevice>(), mlp, {}, "whole");
  {
    StopSignals blocked;  // so that the signal waits for the run
    kill(getpid(), SIGTERM);
    const Outcome first = train_on(std::make_unique<AsyncDevice>(), mlp, {}, "halves");
    EXPECT_EQ(first.code, ExitCode::stopped) << first.error;
    // Asked for in step 1, known when that step's results are read: two steps later.
    EXPECT_NE(first.out.find("stopped by SIGTERM at step 3 of 20"), std::string::npos) << first.out;
    EXPECT_EQ(first.metrics.size(), 3u);
  }
  Outcome second = train_on(std::make_unique<AsyncDevice>(), mlp, {}, "halves");
  expect_same(whole, second);
}

TEST_F(AsyncTraining, algorithms_are_kept_with_the_run_and_its_checkpoints) {
  const auto with = [](const char* model, const char* algorithm) {
    AsyncDevice::Options o;
    o.model = model;
    o.algorithm = algorithm;
    return std::make_unique<AsyncDevice>(o);
  };
  const auto kept = [&](const std::string& name) {
    std::ifstream in(folder_ / name / "choices.txt");
    return std::string(std::istreambuf_iterator<char>(in), {});
  };
  const auto saved = [&](const std::string& step) {
    return io::read_run_state((folder_ / "kept" / "checkpoints" / step).string()).choices;
  };
  const std::string again = "algorithms were measured again";
  const Outcome first = train_on(with("H1", "quick"), mlp, {"train.steps=9"}, "kept");
  ASSERT_EQ(first.code, ExitCode::ok) << first.error;
  const std::string choices = kept("kept");
  EXPECT_NE(choices.find("algorithm/H1: dense [48, 64] = quick\n"), std::string::npos) << choices;
  EXPECT_EQ(saved("step-000000009").at("algorithm/H1: dense [48, 64]"), "quick");
  EXPECT_EQ(first.out.find(again), std::string::npos);
  // It goes on with these, whatever would be quicker now; from the checkpoint alone as well.
  std::filesystem::remove(folder_ / "kept" / "choices.txt");
  const Outcome second = train_on(with("H1", "quicker"), mlp, {"train.steps=10"}, "kept");
  ASSERT_EQ(second.code, ExitCode::ok) << second.error;
  EXPECT_EQ(kept("kept"), choices);
  EXPECT_EQ(second.out.find(again), std::string::npos);
  // So does a run that begins again in this directory: the same command gives the same bits.
  std::filesystem::remove_all(folder_ / "kept" / "checkpoints");
  ASSERT_EQ(train_on(with("H1", "quicker"), mlp, {"train.steps=10"}, "kept").code, ExitCode::ok);
  EXPECT_EQ(kept("kept"), choices);
  // Another GPU measures, and says so.
  const Outcome third = train_on(with("H2", "other"), mlp, {"train.steps=11"}, "kept");
  ASSERT_EQ(third.code, ExitCode::ok) << third.error;
  const auto said = third.out.find(again);
  ASSERT_NE(said, std::string::npos) << third.out;
  EXPECT_EQ(third.out.find(again, said + 1), std::string::npos) << third.out;
  EXPECT_NE(kept("kept").find("algorithm/H2: dense [48, 64] = other\n"), std::string::npos);
  EXPECT_NE(kept("kept").find(choices), std::string::npos);
  EXPECT_EQ(saved("step-000000011").at("algorithm/H2: dense [48, 64]"), "other");
}

TEST_F(AsyncTraining, without_enough_memory_it_says_what_would_fit) {
  AsyncDevice::Options small;
  small.memory_limit = 200'000;
  const std::vector<std::string> large = {"batch.global=960", "train.steps=3", "data.device_cache_mib=0"};
  const Outcome all = train_on(std::make_unique<AsyncDevice>(small), mlp, large, "large");
  EXPECT_EQ(all.code, ExitCode::device);
  const std::string said = "batch.micro: ";
  const auto at = all.error.find(said);
  ASSERT_NE(at, std::string::npos) << all.error;
  const int fits = std::stoi(all.error.substr(at + said.size()));
  EXPECT_GE(fits, 100);
  EXPECT_LT(fits, 960);
  // Half of it leaves room for what no plan knows of.
  auto less = large;
  less.push_back(fmt::format("batch.micro={}", fits / 2));
  EXPECT_EQ(train_on(std::make_unique<AsyncDevice>(small), mlp, less, "less").code, ExitCode::ok);
}

TEST_F(AsyncTraining, an_error_names_the_step_it_happened_in) {
  const std::vector<std::string> hopeless = {"optimizer.sgd.learning_rate=1e30", "optimizer.sgd.momentum=0"};
  const Outcome cpu = train_on(nullptr, mlp, hopeless, "cpu");
  EXPECT_EQ(cpu.code, ExitCode::numeric);
  const Outcome async = train_on(std::make_unique<AsyncDevice>(), mlp, hopeless, "async");
  EXPECT_EQ(async.code, ExitCode::numeric);
  const auto step_of = [](const Outcome& o) { return o.error.substr(0, o.error.find(',')); };
  EXPECT_EQ(step_of(async), step_of(cpu));
  EXPECT_NE(async.error.find("first gradient that is not finite: dense_"), std::string::npos) << async.error;
}

TEST_F(AsyncTraining, the_host_goes_ahead_of_a_device_that_stands_still) {
  Steps s(config(mlp, {}, "held"), std::make_unique<AsyncDevice>());
  s.go(4);
  s.read(0);
  s.device.hold();
  s.run();  // a wait for the device would last for ever
  s.run();
  s.run();
  EXPECT_EQ(s.step->under_way(), 3);
  s.device.go();
  s.read(0);
}

TEST_F(AsyncTraining, a_step_neither_waits_nor_allocates_after_warm_up) {
  for (const bool scaled : {false, true}) {
    for (const std::string& text : {mlp, cnn}) {
      // Scaled: overflows and doublings among the steps that are counted.
      const std::vector<std::string> overrides =
          scaled ? std::vector<std::string>{"train.loss_scale=dynamic", overflowing} : std::vector<std::string>();
      Steps s(config(text, overrides, "counted"), std::make_unique<AsyncDevice>());
      expect_steps_that_neither_wait_nor_allocate(s, text == mlp ? 1 : 3);
    }
  }
}

TEST_F(AsyncTraining, phases_of_a_step_are_read_from_events) {
  Steps s(config(mlp, {}, "timed"), std::make_unique<AsyncDevice>(delays(0, 200)));
  s.go(20);
  s.seconds = {};
  s.go(1);
  EXPECT_GT(s.seconds.forward, 0.0006);  // three layers and a loss
  EXPECT_GT(s.seconds.backward, 0.0006);
  EXPECT_GT(s.seconds.optimizer, 0.0002);
  s.read(0);
}

TEST_F(AsyncTraining, a_fault_is_told_with_what_was_under_way) {
  Steps s(config(mlp, {"cuda.graphs=false"}, "fault"), std::make_unique<AsyncDevice>());
  s.go(4);
  s.device.fail_after(5);
  try {
    s.go(20);
    FAIL() << "nothing was noticed";
  } catch (const RankFailure& e) {
    EXPECT_EQ(e.code(), ExitCode::device);
    EXPECT_NE(std::string(e.what()).find("an illegal memory access was encountered"), std::string::npos) << e.what();
  }
}

TEST_F(AsyncTraining, a_fault_is_named_by_layer_where_each_is_waited_for) {
  Steps s(config(mlp, {"cuda.synchronous=true"}, "named"), std::make_unique<AsyncDevice>());
  s.go(2);
  s.read(0);
  EXPECT_EQ(s.device.recordings, 0);
  s.device.fail_after(4);  // behind the step's state, the images and the stop request
  try {
    s.go(1);
    FAIL() << "nothing was noticed";
  } catch (const RankFailure& e) {
    EXPECT_STREQ(e.what(), "the forward pass of layer \"dense_1\" (dense): an illegal memory access was encountered");
  }
}

}  // namespace
}  // namespace dtrain::launch
