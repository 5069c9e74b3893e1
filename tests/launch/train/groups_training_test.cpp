// Runs with groups of parameters: a frozen trunk, rates of their own, and going on with others frozen.
#include <map>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "io/checkpoint/checkpoint.hpp"
#include "launch/plan/check.hpp"
#include "runtime/plan/graph_analysis.hpp"
#include "runtime/tensor/error.hpp"
#include "tests/support/training.hpp"

namespace dtrain::launch {
namespace {

using test_training::expect_same;
using test_training::Json;
using test_training::mlp;
using test_training::Outcome;
using test_training::Steps;

constexpr const char* resnet = R"(
name: resnet
threads: 1
model:
  input: [1, 8, 8]
  resnet: {depth: 18, stem: cifar, classes: 10}
  loss: cross_entropy
data: {train: DIGITS, normalize: {scale: 0.0625}}
batch: {global: 8}
optimizer: {sgd: {learning_rate: 0.1, momentum: 0.9, weight_decay: 0.001}}
train: {steps: 3}
)";
// All but the classifier.
constexpr const char* trunk = R"(optimizer.groups=[{match: "*", frozen: true}, {match: "fc.*"}])";

using Values = std::map<std::string, std::vector<float>>;
Values values(Steps& s) {
  s.step->settle();
  s.step->model().pull();
  Values out;
  for (const io::StateTensor& t : s.step->model().tensors()) {
    const auto* data = static_cast<const float*>(t.data);
    out[t.name].assign(data, data + t.shape.elements());
  }
  return out;
}

class GroupsTraining : public test_training::Training {
 protected:
  /// On one rank, after so many steps.
  Values after(int steps, const std::string& text, const std::vector<std::string>& overrides) const {
    Steps s(config(text, overrides, "steps"), std::make_unique<test::AsyncDevice>());
    s.go(steps);
    s.read(0);
    return values(s);
  }
};

TEST_F(GroupsTraining, a_frozen_trunk_keeps_its_bits_and_has_neither_gradients_nor_state) {
  Steps s(config(resnet, {trunk}, "frozen"), std::make_unique<test::AsyncDevice>());
  const Values before = values(s);
  s.go(3);
  s.read(0);
  const Values now = values(s);
  int frozen = 0, moved = 0, statistics = 0;
  for (const auto& [name, data] : now) {
    if (name.starts_with("param/fc.")) {
      EXPECT_NE(data, before.at(name)) << name;
      ++moved;
    } else if (name.starts_with("param/")) {
      EXPECT_EQ(data, before.at(name)) << name;
      ++frozen;
    } else if (name.starts_with("state/")) {
      EXPECT_NE(data, before.at(name)) << name;  // running statistics go on, as in PyTorch's train()
      ++statistics;
    } else {
      EXPECT_TRUE(name == "optimizer/momentum/fc.weight" || name == "optimizer/momentum/fc.bias") << name;
    }
  }
  EXPECT_EQ(frozen, 60);  // 20 convolutions and 20 batch norms of two
  EXPECT_EQ(moved, 2);
  EXPECT_EQ(statistics, 40);

  const Plan& plan = s.engine->plan();
  for (const Step& step : plan.train.steps)
    if (const NodeId n = backward_node(step); n >= 0)
      EXPECT_TRUE(plan.graph.nodes()[idx(n)].name == "fc" || plan.graph.nodes()[idx(n)].shape.loss)
          << plan.graph.nodes()[idx(n)].name;
  const std::size_t fc = 512 * 10 + 16, floats = fc + plan.layout.state_floats + plan.layout.extras;
  const MemoryUse memory = memory_use(plan, 1);
  EXPECT_EQ(memory.gradients, floats * sizeof(float));
  EXPECT_EQ(memory.optimizer, floats * sizeof(float));
  EXPECT_GT(memory.parameters, 11'000'000 * sizeof(float));
}

TEST_F(GroupsTraining, statistics_of_a_frozen_trunk_may_stay) {
  for (const std::string more : {"", "model.batch_norm.sync=true"}) {
    std::vector<std::string> settings{
        R"(optimizer.groups=[{match: "*", frozen: true, statistics: frozen}, {match: "fc.*"}, {match: "layer4_1_bn2.*"}])"};
    if (!more.empty()) settings.push_back(more);
    Steps s(config(resnet, settings, "statistics"), std::make_unique<test::AsyncDevice>());
    const Values before = values(s);
    s.go(3);
    s.read(0);
    for (const auto& [name, data] : values(s)) {
      const bool moves = name.find("/fc.") != std::string::npos || name.find("/layer4_1_bn2.") != std::string::npos;
      if (name.starts_with("param/") || name.starts_with("state/")) EXPECT_EQ(data != before.at(name), moves) << name;
    }
  }
}

TEST_F(GroupsTraining, the_rest_of_a_frozen_model_is_updated_as_in_the_whole_model) {
  const Values whole = after(1, resnet, {}), frozen = after(1, resnet, {trunk});
  for (const char* name : {"param/fc.weight", "param/fc.bias", "optimizer/momentum/fc.weight"})
    EXPECT_EQ(frozen.at(name), whole.at(name)) << name;
  EXPECT_NE(frozen.at("param/conv1.weight"), whole.at("param/conv1.weight"));
}

TEST_F(GroupsTraining, only_what_is_trained_travels) {
  for (const bool all : {true, false}) {
    comm::run_local(2, [&](comm::LocalRank& rank) {
      const std::vector<std::string> overrides = all ? std::vector<std::string>() : std::vector<std::string>{trunk};
      Steps s(config(resnet, overrides, "wire"), std::make_unique<test::AsyncDevice>(), &rank);
      const FlatLayout& layout = s.engine->store().layout();
      std::size_t floats = layout.state_floats + layout.extras;
      for (const FlatParam& p : layout.params)
        if (all || p.name.starts_with("fc.")) floats += (p.size + 15) / 16 * 16;
      EXPECT_EQ(s.step->communication().bytes_per_step, floats * sizeof(float));
      s.go(2);
      s.read(0);
      s.world.make_group()->barrier();
    });
  }
}

TEST_F(GroupsTraining, rates_and_decays_of_groups_are_those_of_the_formula) {
  const std::string groups =
      R"(optimizer={sgd: {learning_rate: 0.1, momentum: 0, weight_decay: 0.01}, groups: )"
      R"([{match: "dense_1.*", learning_rate_factor: 0.25, weight_decay: 0.5}, {match: "dense_2.bias", learning_rate_factor: 2}]})";
  const Values start = after(0, mlp, {}), plain = after(1, mlp, {"optimizer={sgd: {learning_rate: 0.1}}"}),
               grouped = after(1, mlp, {groups});
  const auto expect = [&](const std::string& name, double factor, double decay) {
    SCOPED_TRACE(name);
    for (std::size_t i = 0; i < start.at(name).size(); ++i) {
      const auto w = static_cast<double>(start.at(name)[i]);
      const double gradient = (w - static_cast<double>(plain.at(name)[i])) / 0.1;  // of the first step
      const double expected = w - 0.1 * factor * (gradient + decay * w);
      ASSERT_NEAR(static_cast<double>(grouped.at(name)[i]), expected, 1e-6) << i;
    }
  };
  expect("param/dense_1.weight", 0.25, 0.5);
  expect("param/dense_1.bias", 0.25, 0);  // biases are spared from decay
  expect("param/dense_2.weight", 1, 0.01);
  expect("param/dense_2.bias", 2, 0);
}

TEST_F(GroupsTraining, a_run_goes_on_with_others_frozen) {
  const std::string first = R"(optimizer.groups=[{match: "dense_1.*", frozen: true}])",
                    other = R"(optimizer.groups=[{match: "dense_2.*", frozen: true}])",
                    average = "train.ema={decay: 0.9}";
  const auto go = [&](std::vector<std::string> overrides, int steps) {
    overrides.push_back(fmt::format("train.steps={}", steps));
    return train_on(nullptr, mlp, overrides, "run");
  };
  Outcome o = go({average, first}, 4);
  ASSERT_EQ(o.code, ExitCode::ok) << o.error;
  o = go({average, other}, 8);
  ASSERT_EQ(o.code, ExitCode::ok) << o.error;
  EXPECT_NE(o.out.find("resume: 2 parameters of the checkpoint were frozen: the optimizer's state begins at zero for "
                       "dense_1.bias, dense_1.weight"),
            std::string::npos)
      << o.out;
  EXPECT_NE(o.out.find("optimizer.groups"), std::string::npos) << o.out;
  o = go({average}, 12);  // all are trained
  ASSERT_EQ(o.code, ExitCode::ok) << o.error;
  EXPECT_NE(o.out.find("begins at zero for dense_2.bias, dense_2.weight"), std::string::npos) << o.out;
  o = go({average, first}, 16);  // state of what is frozen now is passed over
  ASSERT_EQ(o.code, ExitCode::ok) << o.error;
  EXPECT_EQ(o.out.find("begins at zero"), std::string::npos) << o.out;
}

TEST_F(GroupsTraining, a_run_that_goes_on_with_the_same_groups_has_the_bits_of_one_that_was_not_stopped) {
  const std::vector<std::string> settings{R"(optimizer.groups=[{match: "dense_1.*", frozen: true}])",
                                          "train.ema={decay: 0.9}", "optimizer.adam={}"};
  const Outcome whole = train_on(nullptr, mlp, settings, "whole");
  std::vector<std::string> half = settings;
  half.emplace_back("train.steps=9");
  train_on(nullptr, mlp, half, "halves");
  Outcome halves = train_on(nullptr, mlp, settings, "halves");
  halves.metrics = whole.metrics;
  expect_same(whole, halves);
}

TEST_F(GroupsTraining, check_says_what_is_trained) {
  const LoadedConfig loaded = config(mlp,
                                     {R"(optimizer.groups=[{match: "dense_1.*", frozen: true}, )"
                                      R"({match: "*.bias", learning_rate_factor: 2, weight_decay: 0}])"},
                                     "check");
  const CheckReport report = check(loaded, {});
  EXPECT_NE(report.text.find("362 of these parameters are trained, 2,048 are frozen\n"
                             "  dense_1.*: 2,048 parameters, frozen\n"
                             "  *.bias: 42 parameters, learning rate x 2, weight decay 0\n"),
            std::string::npos)
      << report.text;
  const std::string start =
      train_on(nullptr, mlp, {R"(optimizer.groups=[{match: "dense_1.*", frozen: true}])"}, "start").out;
  EXPECT_NE(start.find("330 of these parameters are trained, 2,080 are frozen\n"), std::string::npos) << start;
  const Json json = Json::parse(report.json);
  EXPECT_EQ(json.at("frozen_parameters"), 2048);
  EXPECT_EQ(json.at("trained_parameters"), 362);
  EXPECT_EQ(json.at("groups").at(1).at("parameters"), 42);
}

}  // namespace
}  // namespace dtrain::launch
