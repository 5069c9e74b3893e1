// Runs with schedules of their own: a stable phase that a cooldown branches off.
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "runtime/tensor/error.hpp"
#include "tests/support/training.hpp"

namespace dtrain::launch {
namespace {

using test_training::Json;
using test_training::mlp;
using test_training::Outcome;

class ScheduleTraining : public test_training::Training {};

std::vector<double> rates(const Outcome& run) {
  std::vector<double> out;
  for (const Json& line : run.metrics)
    if (line.contains("learning_rate")) out.push_back(line["learning_rate"].get<double>());
  return out;
}

TEST_F(ScheduleTraining, a_cooldown_branches_from_a_checkpoint_of_the_stable_phase) {
  // Without a decay of its own: the run may end anywhere.
  const std::string stable = "schedule={decay: wsd, decay_fraction: 0}";
  const Outcome trunk = train_on(nullptr, mlp, {stable}, "trunk");
  ASSERT_EQ(trunk.code, ExitCode::ok) << trunk.error;
  for (const double rate : rates(trunk)) EXPECT_FLOAT_EQ(static_cast<float>(rate), 0.1f);

  const std::string from = "checkpoint.resume=" + (folder_ / "trunk" / "checkpoints" / "step-000000009").string();
  const std::vector<std::string> cooldown{"schedule={decay: wsd, decay_steps: 4}", "train={steps: 13}", from};
  const Outcome branch = train_on(nullptr, mlp, cooldown, "branch");
  ASSERT_EQ(branch.code, ExitCode::ok) << branch.error;
  EXPECT_NE(branch.out.find("another length of the decay: (not set) -> 4 (schedule.decay_steps)"), std::string::npos)
      << branch.out;
  EXPECT_NE(branch.out.find("goes on with another number of steps: 20 -> 13 (train.steps)"), std::string::npos)
      << branch.out;
  const std::vector<double> falling = rates(branch);
  ASSERT_EQ(falling.size(), 4u);  // steps 10 to 13
  for (std::size_t i = 0; i < 4; ++i)
    EXPECT_FLOAT_EQ(static_cast<float>(falling[i]), static_cast<float>(0.1 * (3.0 - static_cast<double>(i)) / 4));
  // Its first step is the one that the trunk took with the same parameters and samples.
  for (const Json& line : trunk.metrics)
    if (line.value("step", 0) == 10 && line.contains("loss")) EXPECT_EQ(line["loss"], branch.metrics.at(0)["loss"]);

  // The curve itself does not change unseen.
  const Outcome other = train_on(nullptr, mlp, {"schedule={decay: cosine}", "train={steps: 13}", from}, "other");
  EXPECT_EQ(other.code, ExitCode::ok) << other.error;
  EXPECT_NE(other.out.find("goes on with another schedule: wsd -> cosine (schedule.decay)"), std::string::npos)
      << other.out;
}

}  // namespace
}  // namespace dtrain::launch
