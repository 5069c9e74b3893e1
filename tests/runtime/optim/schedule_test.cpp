#include <gtest/gtest.h>

#include "runtime/optim/optimizer.hpp"

namespace dtrain {
namespace {

constexpr double tolerance = 1e-12;  // a handful of double operations

TEST(Schedule, WarmsUpLinearly) {
  const Schedule s{.warmup_steps = 4};
  EXPECT_NEAR(learning_rate(s, 1.0, 64, 0, 100), 0.25, tolerance);
  EXPECT_NEAR(learning_rate(s, 1.0, 64, 3, 100), 1.0, tolerance);
  EXPECT_NEAR(learning_rate(s, 1.0, 64, 99, 100), 1.0, tolerance);
}

TEST(Schedule, StepsDown) {
  const Schedule s{.decay = Schedule::Decay::step, .every_steps = 10, .factor = 0.5};
  EXPECT_NEAR(learning_rate(s, 0.8, 64, 9, 100), 0.8, tolerance);
  EXPECT_NEAR(learning_rate(s, 0.8, 64, 10, 100), 0.4, tolerance);
  EXPECT_NEAR(learning_rate(s, 0.8, 64, 35, 100), 0.1, tolerance);
}

TEST(Schedule, DecaysToTheFinalFactorAtTheLastStep) {
  for (auto decay : {Schedule::Decay::cosine, Schedule::Decay::linear, Schedule::Decay::polynomial}) {
    const Schedule s{.decay = decay, .warmup_steps = 5, .final_factor = 0.1};
    EXPECT_NEAR(learning_rate(s, 2.0, 64, 5, 50), 2.0, tolerance);
    EXPECT_NEAR(learning_rate(s, 2.0, 64, 49, 50), 0.2, tolerance);
    for (int i = 6; i < 50; ++i) EXPECT_LT(learning_rate(s, 2.0, 64, i, 50), learning_rate(s, 2.0, 64, i - 1, 50));
  }
  const Schedule cosine{.decay = Schedule::Decay::cosine};
  EXPECT_NEAR(learning_rate(cosine, 1.0, 64, 50, 101), 0.5, tolerance);
}

TEST(Schedule, FallsWithTheRootOfTheStep) {
  const Schedule s{.decay = Schedule::Decay::inverse_sqrt, .warmup_steps = 16};
  EXPECT_NEAR(learning_rate(s, 1.0, 64, 7, 100), 0.5, tolerance);
  EXPECT_NEAR(learning_rate(s, 1.0, 64, 15, 100), 1.0, tolerance);
  EXPECT_NEAR(learning_rate(s, 1.0, 64, 63, 100), 0.5, tolerance);
  const Schedule without{.decay = Schedule::Decay::inverse_sqrt};
  EXPECT_NEAR(learning_rate(without, 1.0, 64, 0, 100), 1.0, tolerance);
  EXPECT_NEAR(learning_rate(without, 1.0, 64, 24, 100), 0.2, tolerance);
}

TEST(Schedule, IsStableUntilItsLastSteps) {
  Schedule s{.decay = Schedule::Decay::wsd, .warmup_steps = 10, .final_factor = 0.1, .decay_steps = 20};
  EXPECT_NEAR(learning_rate(s, 1.0, 64, 4, 100), 0.5, tolerance);
  for (int step : {10, 50, 79}) EXPECT_NEAR(learning_rate(s, 1.0, 64, step, 100), 1.0, tolerance);
  EXPECT_NEAR(learning_rate(s, 1.0, 64, 89, 100), 0.55, tolerance);  // half of the decay is done
  EXPECT_NEAR(learning_rate(s, 1.0, 64, 99, 100), 0.1, tolerance);
  s.decay_shape = Schedule::Shape::one_minus_sqrt;
  EXPECT_NEAR(learning_rate(s, 1.0, 64, 84, 100), 0.55, tolerance);  // 1 - sqrt(5 / 20) is half
  EXPECT_NEAR(learning_rate(s, 1.0, 64, 99, 100), 0.1, tolerance);
  s.decay_steps = 0;
  s.decay_fraction = 0.2;  // the same 20
  EXPECT_NEAR(learning_rate(s, 1.0, 64, 84, 100), 0.55, tolerance);
  s.decay_fraction = 0;
  EXPECT_NEAR(learning_rate(s, 1.0, 64, 99, 100), 1.0, tolerance);
  s.decay_fraction = 1;  // never before the end of warm-up
  EXPECT_NEAR(learning_rate(s, 1.0, 64, 9, 100), 1.0, tolerance);
  EXPECT_LT(learning_rate(s, 1.0, 64, 10, 100), 1.0);
}

TEST(Schedule, ScalesLinearlyWithTheBatchAndWarmsUpFromTheUnscaledRate) {
  const Schedule s{.warmup_steps = 10, .reference_batch = 256};
  EXPECT_NEAR(learning_rate(s, 0.1, 8192, 0, 100), 0.1, tolerance);
  EXPECT_NEAR(learning_rate(s, 0.1, 8192, 5, 100), 0.1 + 3.1 / 2, tolerance);
  EXPECT_NEAR(learning_rate(s, 0.1, 8192, 10, 100), 3.2, tolerance);
  EXPECT_NEAR(learning_rate(s, 0.1, 8192, 99, 100), 3.2, tolerance);
  // The curve after warm-up starts from the scaled rate.
  const Schedule cosine{.decay = Schedule::Decay::cosine, .reference_batch = 256};
  EXPECT_NEAR(learning_rate(cosine, 0.1, 1024, 0, 101), 0.4, tolerance);
  EXPECT_NEAR(learning_rate(cosine, 0.1, 1024, 50, 101), 0.2, tolerance);
}

TEST(Schedule, OfASmallerBatchThanTheReferenceWarmsUpFromZero) {
  const Schedule s{.warmup_steps = 4, .reference_batch = 256};
  EXPECT_NEAR(learning_rate(s, 0.8, 64, 0, 100), 0.05, tolerance);
  EXPECT_NEAR(learning_rate(s, 0.8, 64, 3, 100), 0.2, tolerance);
  EXPECT_NEAR(learning_rate(s, 0.8, 64, 50, 100), 0.2, tolerance);
}

}  // namespace
}  // namespace dtrain
