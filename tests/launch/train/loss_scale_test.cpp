// The loss scale in whole runs: a power of two changes no bit, a dynamic one skips, grows, is kept with checkpoints and
// ends a run only where nothing is left of it. On the cpu and on a device that is read late.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "io/checkpoint/checkpoint.hpp"
#include "tests/support/training.hpp"

namespace dtrain::launch {
namespace {

using test::AsyncDevice;
using namespace test_training;

class LossScaleRuns : public Training {
 protected:
  Outcome on(const char* device, const std::string& text, const std::vector<std::string>& overrides,
             const std::string& name) const {
    const bool cpu = std::string(device) == "cpu";
    return train_on(cpu ? nullptr : std::make_unique<AsyncDevice>(), text, overrides,
                    fmt::format("{}-{}", name, device));
  }
};

std::vector<std::string> dynamic(const std::vector<std::string>& more = {}) {
  std::vector<std::string> all{"train.loss_scale=dynamic", overflowing, "log.every_steps=1"};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

/// The scale of each step, as the rule has it after the scale and the fate of the step before it.
void expect_rule(const std::vector<Json>& metrics, std::size_t growth_steps) {
  std::size_t good = 0, skips = 0, doublings = 0;
  std::vector<Json> steps;
  for (const Json& line : metrics)
    if (!line.contains("eval")) steps.push_back(line);
  for (std::size_t i = 0; i < steps.size(); ++i) {
    ASSERT_EQ(steps[i]["step"].get<std::size_t>(), i + 1);
    const std::size_t before = i == 0 ? 0 : steps[i - 1]["skipped"].get<std::size_t>();
    const bool skipped = steps[i]["skipped"].get<std::size_t>() > before;
    EXPECT_EQ(steps[i]["skipped"].get<std::size_t>(), before + (skipped ? 1 : 0));
    EXPECT_EQ(steps[i]["grad_norm"].is_null(), skipped) << i;
    EXPECT_TRUE(steps[i]["loss"].is_number());
    skips += skipped ? 1 : 0;
    good = skipped ? 0 : good + 1;
    double factor = skipped ? 0.5 : 1;
    if (good == growth_steps) {
      factor = 2;
      good = 0;
      ++doublings;
    }
    if (i + 1 < steps.size())
      EXPECT_EQ(steps[i + 1]["loss_scale"].get<double>(),
                std::min(factor * steps[i]["loss_scale"].get<double>(), 0x1p126))
          << i;
  }
  EXPECT_GT(skips, 1u);
  EXPECT_GT(doublings, 1u);
}

TEST_F(LossScaleRuns, a_power_of_two_changes_no_bit) {
  for (const auto& [name, text] : {std::pair{"mlp", mlp}, std::pair{"cnn", cnn}}) {
    for (const char* device : {"cpu", "async"}) {
      SCOPED_TRACE(fmt::format("{} on {}", name, device));
      Outcome plain = on(device, text, {}, fmt::format("{}-plain", name));
      Outcome scaled = on(device, text, {"train.loss_scale=65536"}, fmt::format("{}-scaled", name));
      Outcome small = on(device, text, {"train.loss_scale=0.0009765625"}, fmt::format("{}-small", name));
      ASSERT_EQ(plain.code, ExitCode::ok) << plain.error;
      EXPECT_FALSE(plain.metrics.front().contains("loss_scale"));
      EXPECT_EQ(scaled.metrics.front()["loss_scale"], 65536);
      for (Outcome* o : {&scaled, &small}) {
        for (Json& line : o->metrics) line.erase("loss_scale");
        expect_same(plain, *o);  // norms and statistics, too
      }
    }
  }
}

TEST_F(LossScaleRuns, every_rule_divides_by_it) {
  const char* rules[] = {"{sgd: {learning_rate: 0.1, momentum: 0.9, nesterov: true, weight_decay: 0.01}}",
                         "{adamw: {learning_rate: 0.002}}", "{lars: {learning_rate: 0.5}}",
                         "{lamb: {learning_rate: 0.01}}"};
  int number = 0;
  for (const char* rule : rules) {
    SCOPED_TRACE(rule);
    const std::vector<std::string> plain{fmt::format("optimizer={}", rule), "train.steps=6", "deterministic=elastic",
                                         "batch.micro=12"};
    auto scaled = plain;
    scaled.push_back("train.loss_scale=4096");
    const Outcome a = on("cpu", mlp, plain, fmt::format("plain-{}", number));
    Outcome b = on("cpu", mlp, scaled, fmt::format("scaled-{}", number++));
    for (Json& line : b.metrics) line.erase("loss_scale");
    expect_same(a, b);
  }
}

TEST_F(LossScaleRuns, a_dynamic_one_skips_and_grows_alike_on_each_device) {
  for (const auto& [name, text] : {std::pair{"mlp", mlp}, std::pair{"cnn", cnn}}) {
    SCOPED_TRACE(name);
    const Outcome cpu = on("cpu", text, dynamic(), name), async = on("async", text, dynamic(), name);
    expect_same(cpu, async);
    expect_rule(cpu.metrics, 2);
    const auto skipped = cpu.summary["loss_scale"]["skipped_steps"].get<int>();
    EXPECT_EQ(cpu.metrics.back().contains("eval") ? cpu.metrics[cpu.metrics.size() - 2]["skipped"]
                                                  : cpu.metrics.back()["skipped"],
              skipped);
    EXPECT_NE(cpu.out.find(fmt::format("{} of 20 steps were skipped: a gradient was not finite", skipped)),
              std::string::npos)
        << cpu.out;
    EXPECT_LT(cpu.summary["train"]["loss"].get<double>(), cpu.metrics.front()["loss"].get<double>());
  }
}

TEST_F(LossScaleRuns, a_resumed_run_has_the_scale_and_the_bits_of_a_whole_one) {
  for (const char* device : {"cpu", "async"}) {
    SCOPED_TRACE(device);
    Outcome whole = on(device, mlp, dynamic(), "whole"), parts;
    for (const int steps : {5, 11, 20})
      parts = on(device, mlp, dynamic({fmt::format("train.steps={}", steps)}), "parts");
    // The end of each part is evaluated.
    for (Outcome* o : {&whole, &parts})
      std::erase_if(o->metrics, [](const Json& line) { return line.contains("eval"); });
    expect_same(whole, parts);
    const auto saved =
        io::read_run_state((folder_ / fmt::format("parts-{}", device) / "checkpoints/step-000000011").string());
    ASSERT_TRUE(saved.good_steps);
    EXPECT_EQ(saved.loss_scale,
              whole.metrics[11]["loss_scale"].get<double>());  // of step 12
    EXPECT_LT(saved.applied_steps, 11u);
  }
}

TEST_F(LossScaleRuns, it_comes_and_goes_between_runs) {
  const Outcome plain = on("cpu", mlp, {"train.steps=5"}, "changes");
  ASSERT_EQ(plain.code, ExitCode::ok) << plain.error;
  EXPECT_FALSE(plain.summary.contains("loss_scale"));
  const Outcome begun =
      on("cpu", mlp, dynamic({"train.steps=9", "train.dynamic_loss_scale={initial: 1024}"}), "changes");
  ASSERT_EQ(begun.code, ExitCode::ok) << begun.error;
  EXPECT_NE(begun.out.find("resume: the checkpoint has no dynamic loss scale; it begins with 1024"), std::string::npos)
      << begun.out;
  EXPECT_EQ(begun.summary["loss_scale"]["last"], 1024);
  const Outcome lower =
      on("cpu", mlp, dynamic({"train.steps=12", "train.dynamic_loss_scale={initial: 256, maximum: 512}"}), "changes");
  EXPECT_EQ(lower.summary["loss_scale"]["last"], 512);
  const Outcome fixed = on("cpu", mlp, {"train.steps=14", "train.loss_scale=8", "log.every_steps=1"}, "changes");
  ASSERT_EQ(fixed.code, ExitCode::ok) << fixed.error;
  EXPECT_EQ(fixed.metrics.back().contains("eval") ? fixed.metrics[fixed.metrics.size() - 2]["loss_scale"]
                                                  : fixed.metrics.back()["loss_scale"],
            8);
}

TEST_F(LossScaleRuns, a_run_ends_where_nothing_is_left_of_it) {
  const std::string high = "8.507059173023462e+37";
  for (const char* device : {"cpu", "async"}) {
    const std::string limits =
        fmt::format("train.dynamic_loss_scale={{initial: {0}, minimum: {0}, maximum: {0}}}", high);
    const Outcome least = on(device, cnn, {"train.loss_scale=dynamic", limits}, "least");
    EXPECT_EQ(least.code, ExitCode::numeric);
    EXPECT_NE(least.error.find("step 1: a gradient is not finite at a loss scale of 8.507059e+37, its minimum"),
              std::string::npos)
        << least.error;
    const Outcome fixed = on(device, cnn, {"train.loss_scale=" + high, "log.every_steps=1"}, "fixed");
    EXPECT_EQ(fixed.code, ExitCode::numeric);
    EXPECT_NE(fixed.error.find("step 1: a gradient is not finite at a loss scale of 8.507059e+37, first"),
              std::string::npos)
        << fixed.error;
    // A loss that is not finite is not scaled, and no scale helps.
    const Outcome loss = on(device, mlp,
                            dynamic({"optimizer.sgd.learning_rate=1e30", "optimizer.sgd.momentum=0",
                                     "train.dynamic_loss_scale={initial: 1024}"}),
                            "loss");
    EXPECT_EQ(loss.code, ExitCode::numeric);
    EXPECT_NE(loss.error.find("the loss is "), std::string::npos) << loss.error;
  }
}

TEST_F(LossScaleRuns, settings_are_checked) {
  const Outcome ok = on("cpu", mlp, {"train.steps=1", "train.loss_scale=auto"}, "auto");
  EXPECT_EQ(ok.code, ExitCode::ok);
  const auto problem = [&](const std::string& override) {
    try {
      config(mlp, {override}, "bad");
    } catch (const ConfigError& e) {
      return std::string(e.what());
    }
    return std::string("none");
  };
  EXPECT_NE(problem("train.loss_scale=0").find("train.loss_scale: got 0; expected a number of at least"),
            std::string::npos)
      << problem("train.loss_scale=0");
  EXPECT_NE(problem("train.loss_scale=dynamik").find("dynamic"), std::string::npos)
      << problem("train.loss_scale=dynamik");
  EXPECT_NE(problem("train.dynamic_loss_scale={initial: 4, minimum: 8}").find("initial is 4; expected a scale from "),
            std::string::npos)
      << problem("train.dynamic_loss_scale={initial: 4, minimum: 8}");
}

TEST(LossScaling, follows_from_precision_unless_told) {
  RunConfig c;
  EXPECT_FALSE(loss_scaling(c).dynamic);
  EXPECT_EQ(loss_scaling(c).initial, 1);
  c.precision = DType::bf16;
  EXPECT_FALSE(loss_scaling(c).dynamic);
  c.precision = DType::f16;
  EXPECT_TRUE(loss_scaling(c).dynamic);
  EXPECT_EQ(loss_scaling(c).initial, 65536);
  EXPECT_EQ(loss_scaling(c).growth_steps, 2000u);
  c.train.loss_scale = 128;
  EXPECT_FALSE(loss_scaling(c).dynamic);
  EXPECT_EQ(loss_scaling(c).initial, 128);
  c.train.loss_scale = TrainConfig::dynamic_scale;
  c.train.dynamic_loss_scale = {1024, 2, 4096, 7};
  c.precision = DType::f32;
  EXPECT_TRUE(loss_scaling(c).dynamic);
  EXPECT_EQ(loss_scaling(c).initial, 1024);
  EXPECT_EQ(loss_scaling(c).minimum, 2);
  EXPECT_EQ(loss_scaling(c).maximum, 4096);
  EXPECT_EQ(loss_scaling(c).growth_steps, 7u);
}

}  // namespace
}  // namespace dtrain::launch
