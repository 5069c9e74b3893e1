#include "runtime/optim/batch_schedule.hpp"

#include <gtest/gtest.h>

#include "runtime/optim/step_math.hpp"

namespace dtrain {
namespace {

TEST(BatchSchedule, ANumberIsABatchThatStays) {
  const BatchSchedule s = 48;
  EXPECT_TRUE(s.constant());
  EXPECT_EQ(s.batch(1'000'000), 48);
  EXPECT_EQ(s.samples_before(7), 336);
  EXPECT_EQ(s.step_at(335), 6);
  EXPECT_EQ(s.steps_for(0), 0);
  EXPECT_EQ(s.steps_for(337), 8);
  EXPECT_EQ(s.unit(), 48);
}

TEST(BatchSchedule, GrowsInEqualStepsOverTheSamples) {
  // Three sizes below 32 for 40 samples each: 5 steps of 8, 3 of 16 (48: the third part ends at 120), 2 of 24.
  const BatchSchedule s(32, {.from = 8, .samples = 120});
  std::vector<std::int64_t> sizes;
  for (std::int64_t step = 0; step < 12; ++step) sizes.push_back(s.batch(step));
  EXPECT_EQ(sizes, (std::vector<std::int64_t>{8, 8, 8, 8, 8, 16, 16, 16, 24, 24, 32, 32}));
  EXPECT_EQ(s.unit(), 8);
  EXPECT_EQ(s.largest(), 32);
  EXPECT_FALSE(s.constant());
}

TEST(BatchSchedule, PositionsAreItsPrefixSum) {
  const BatchWarmup warmups[] = {{.from = 8, .samples = 120},
                                 {.from = 12, .increment = 4, .samples = 1000},
                                 {.from = 30, .increment = 2, .samples = 3},  // sizes that take no step
                                 {.from = 4, .increment = 28, .samples = 1}};
  for (const BatchWarmup& warmup : warmups) {
    const BatchSchedule s(32, warmup);
    std::int64_t taken = 0;
    for (std::int64_t step = 0; step < 200; ++step) {
      const std::int64_t batch = s.batch(step);
      ASSERT_GE(batch, step > 0 ? s.batch(step - 1) : warmup.from);
      ASSERT_EQ(batch % s.unit(), 0);
      ASSERT_EQ(s.samples_before(step), taken);
      ASSERT_EQ(s.steps_for(taken), step);
      ASSERT_EQ(s.steps_for(taken + 1), step + 1);
      for (std::int64_t i = 0; i < batch; ++i) ASSERT_EQ(s.step_at(taken + i), step);
      taken += batch;
    }
    EXPECT_EQ(s.batch(200), 32);
    const BatchSchedule::Stage last = s.stages().back();
    EXPECT_GE(last.samples, warmup.samples);
    EXPECT_LT(last.samples, warmup.samples + 32);
  }
}

TEST(BatchSchedule, WhatAStepWeighsFollowsIt) {
  LossRule rule{.losses = 2, .counted = 0};
  rule.positions[0] = 3;
  rule.positions[1] = 1;
  const float sums[2 * sums_per_loss + 3] = {};
  StepState s;
  s.loss_weight[0] = 24;
  s.loss_weight[1] = 8;
  s.next_samples = 16;
  close_step(s, sums, {}, rule);
  EXPECT_EQ(s.ended_weight[0], 24);
  EXPECT_EQ(s.loss_weight[0], 48);
  EXPECT_EQ(s.loss_weight[1], 16);
  EXPECT_EQ(s.sum_weight, 48);
  EXPECT_EQ(s.loss_seed[1], 3);
  s.next_samples = 0;  // a batch that stays
  close_step(s, sums, {}, rule);
  EXPECT_EQ(s.loss_weight[0], 48);
}

}  // namespace
}  // namespace dtrain
