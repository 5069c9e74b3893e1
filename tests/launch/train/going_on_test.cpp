// Going on with other settings: what is said, and that another optimizer begins anew, in its state and its count of
// updates.
#include "launch/train/going_on.hpp"

#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "io/checkpoint/checkpoint.hpp"
#include "tests/support/training.hpp"

namespace dtrain::launch {
namespace {

using test_training::expect_same;
using test_training::mlp;
using test_training::Outcome;

TEST(GoingOnText, names_the_setting_in_the_fields_words) {
  for (const auto& [setting, text] : {
           std::pair("optimizer.adam.learning_rate", "another learning rate: a -> b (optimizer.adam.learning_rate)"),
           {"optimizer.muon.adamw.weight_decay", "another weight decay: a -> b (optimizer.muon.adamw.weight_decay)"},
           {"train.epochs", "another number of epochs: a -> b (train.epochs)"},
           {"train.ema.decay", "another decay of the moving average: a -> b (train.ema.decay)"},
           {"schedule.decay", "another schedule: a -> b (schedule.decay)"},
           {"data.eval.files", "other evaluation data: a -> b (data.eval.files)"},
           {"data.augment.0.flip", "another augmentation: a -> b (data.augment.0.flip)"},
           {"data.inputs.image.augment.0.flip", "another augmentation: a -> b (data.inputs.image.augment.0.flip)"},
           {"checkpoint.every_steps", "another checkpoint.every_steps: a -> b"},
           {"memory.recompute", "another memory.recompute: a -> b"},
       })
    EXPECT_EQ(going_on_text(setting, "a", "b"), fmt::format("goes on with {}", text));
}

class GoingOnTraining : public test_training::Training {
 protected:
  Outcome go(std::vector<std::string> settings, int steps, const std::string& name) const {
    settings.push_back(fmt::format("train.steps={}", steps));
    return train_on(nullptr, mlp, settings, name);
  }
  io::RunState saved(const std::string& name, int step) const {
    return io::read_run_state((folder_ / name / "checkpoints" / fmt::format("step-{:09}", step)).string());
  }
};

TEST_F(GoingOnTraining, another_optimizer_begins_anew_and_counts_its_own_updates) {
  const std::vector<std::string> adam{"optimizer={adam: {learning_rate: 0.001}}"};
  for (const char* name : {"once", "twice"}) ASSERT_EQ(go({}, 9, name).code, ExitCode::ok);
  const Outcome once = go(adam, 20, "once");
  ASSERT_EQ(once.code, ExitCode::ok) << once.error;
  EXPECT_NE(once.out.find("resume: goes on with another optimizer: sgd -> adam; its state starts anew\n"),
            std::string::npos)
      << once.out;
  EXPECT_EQ(saved("once", 20).applied_steps, 11u);  // Adam's bias correction counts them

  // A run that was stopped in between has the same bits, and says nothing.
  ASSERT_EQ(go(adam, 14, "twice").code, ExitCode::ok);
  Outcome twice = go(adam, 20, "twice");
  EXPECT_EQ(twice.out.find("anew"), std::string::npos) << twice.out;
  EXPECT_EQ(saved("twice", 20).applied_steps, 11u);
  EXPECT_EQ(saved("twice", 20).versions, saved("once", 20).versions);
  twice.metrics = once.metrics;
  expect_same(once, twice);
}

TEST_F(GoingOnTraining, a_momentum_begins_at_zero_and_may_be_given_up) {
  const std::vector<std::string> plain{"optimizer={sgd: {learning_rate: 0.1}}"};
  ASSERT_EQ(go(plain, 9, "plain").code, ExitCode::ok);
  const Outcome with = go({}, 12, "plain");  // mlp has a momentum
  ASSERT_EQ(with.code, ExitCode::ok) << with.error;
  EXPECT_NE(with.out.find("resume: goes on with sgd that keeps other state: it starts anew\n"), std::string::npos)
      << with.out;
  const Outcome without = go(plain, 15, "plain");
  ASSERT_EQ(without.code, ExitCode::ok) << without.error;
  EXPECT_NE(without.out.find("another momentum: 0.9 -> 0 (optimizer.sgd.momentum)\n"), std::string::npos)
      << without.out;
}

TEST_F(GoingOnTraining, a_moving_average_begins_anew_with_it) {
  const std::string average = "train.ema={decay: 0.9}";
  ASSERT_EQ(go({average}, 9, "average").code, ExitCode::ok);
  const Outcome o = go({average, "optimizer={lamb: {learning_rate: 0.001}, shard: true}"}, 12, "average");
  ASSERT_EQ(o.code, ExitCode::ok) << o.error;
  EXPECT_NE(o.out.find("another optimizer: sgd -> lamb; its state starts anew, and the moving average, too\n"),
            std::string::npos)
      << o.out;
}

TEST_F(GoingOnTraining, force_is_offered_where_it_helps) {
  ASSERT_EQ(go({}, 9, "force").code, ExitCode::ok);
  const auto refused = [&](const std::string& setting) {
    const Outcome o = go({setting}, 12, "force");
    EXPECT_EQ(o.code, ExitCode::checkpoint) << o.out;
    return o.error;
  };
  EXPECT_NE(refused("seed=2").find("or accept it with checkpoint.force=true"), std::string::npos);
  EXPECT_NE(refused("model.layers.2.dropout.rate=0.5").find("checkpoint.force=true"), std::string::npos);
  const std::string wider = refused("model.layers.1.dense.units=33");
  EXPECT_EQ(wider.find("checkpoint.force"), std::string::npos) << wider;
  EXPECT_NE(wider.find("start a new run from its weights, where they fit"), std::string::npos) << wider;
}

}  // namespace
}  // namespace dtrain::launch
