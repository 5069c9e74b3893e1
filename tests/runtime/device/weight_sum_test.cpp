// Sums of weights in units: exact in any order, above what a float counts, and over many ranks.
#include "runtime/device/weight_sum.hpp"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "runtime/optim/step_math.hpp"

namespace dtrain {
namespace {

/// As ranks' tails are added up, in floats.
double sum_over(const std::vector<std::uint64_t>& ranks) {
  std::vector<float> sums(weight_limbs);
  for (const std::uint64_t units : ranks) {
    float limbs[weight_limbs];
    split_weight(units, limbs);
    for (std::size_t i = 0; i < weight_limbs; ++i) sums[i] += limbs[i];
  }
  return join_weight(sums.data());
}

TEST(WeightSum, units_are_nearest_and_those_of_usual_weights_exact) {
  EXPECT_EQ(weight_units(0), 0u);
  EXPECT_EQ(weight_units(1), 1ull << 32);
  EXPECT_EQ(weight_units(0.5f), 1ull << 31);
  EXPECT_EQ(weight_units(0x1p-32f), 1u);
  EXPECT_EQ(weight_units(0x1.8p-32f), 2u);  // a tie goes to the even one
  EXPECT_EQ(weight_units(0x1p-34f), 0u);
  EXPECT_EQ(weight_units(0x1.fffffep31f), 0xFFFFFF00'00000000ull);
  EXPECT_EQ(weight_units(0x1p32f), ~0ull);
  for (const float w : {0.1f, 2.7f, 1234.5f, 1e-3f})
    EXPECT_NEAR(weight_of(weight_units(w)), static_cast<double>(w), 0x1p-33);
}

TEST(WeightSum, counts_more_than_a_float_does) {
  constexpr std::uint64_t positions = (1ull << 24) + 1;
  EXPECT_EQ(sum_over({positions << 32}), 16777217.0);
  EXPECT_EQ(sum_over({positions << 32, positions << 32, 1ull << 31}), 33554434.5);
  EXPECT_EQ(sum_over({~0ull}), 0x1p32);  // rounded once
  EXPECT_EQ(sum_over({(1ull << 53) - 1}), 0x1p21 - 0x1p-32);
}

TEST(WeightSum, is_exact_over_the_most_ranks_however_they_share_it) {
  const std::vector<std::uint64_t> ranks(8192, ~0ull);
  EXPECT_EQ(sum_over(ranks), 8192.0 * 0x1p32);
  const std::vector<std::uint64_t> odd(8192, 0x0123456789ABCDEFull);
  EXPECT_EQ(sum_over(odd), 8192.0 * weight_of(0x0123456789ABCDEFull));
  // The same positions on one rank, or dealt to seven.
  std::uint64_t whole = 0;
  std::vector<std::uint64_t> dealt(7);
  for (std::size_t i = 0; i < 100'000; ++i) {
    const auto weight = 0.1f + static_cast<float>(i % 1000) * 0.37f;
    whole += weight_units(weight);
    dealt[i * i % 7] += weight_units(weight);
  }
  EXPECT_EQ(sum_over(dealt), sum_over({whole}));
}

// ---- what the device makes of them ----------------------------------------------------------------------------------

TEST(LossWeights, one_loss_has_seed_1_whatever_it_weighs) {
  for (const double weight : {1.0, 3.0, 128.0, 16777217.0, 0.3}) {
    StepState s;
    s.loss_weight[0] = weight;
    weigh_losses(s, {});
    EXPECT_EQ(s.loss_seed[0], 1.0f);
    EXPECT_EQ(s.sum_weight, weight);
  }
}

TEST(LossWeights, several_losses_are_each_divided_by_their_own) {
  LossRule rule{.losses = 3, .counted = 0, .factors = {2, 0.5, 1}};
  StepState s;
  s.loss_weight[0] = 10;
  s.loss_weight[1] = 4;
  s.loss_weight[2] = 0;
  weigh_losses(s, rule);
  for (std::size_t k = 0; k < 2; ++k)
    EXPECT_NEAR(static_cast<double>(s.loss_seed[k]) / s.sum_weight, rule.factors[k] / s.loss_weight[k], 1e-8);
  EXPECT_EQ(s.loss_seed[2], 0);
  s.loss_weight[0] = 0;
  weigh_losses(s, rule);
  EXPECT_EQ(s.sum_weight, 4);
  EXPECT_EQ(s.loss_seed[0], 0);
  EXPECT_EQ(s.loss_seed[1], 0.5f);
  s.loss_weight[1] = 0;
  weigh_losses(s, rule);
  EXPECT_EQ(s.sum_weight, 1);  // nothing is divided by 0
  EXPECT_EQ(s.loss_seed[1], 0);
}

TEST(LossWeights, of_the_next_step_come_with_the_tail_and_those_of_this_one_stay_beside_its_sums) {
  const LossRule rule{.losses = 3, .counted = 0b101, .factors = {1, 1, 0.5}};
  StepState s;
  s.loss_weight[0] = 5;
  s.loss_weight[1] = 64;
  s.loss_weight[2] = 20;
  weigh_losses(s, rule);
  std::vector<float> sums(3 * sums_per_loss + StepTail::floats(2));
  sums[0 * sums_per_loss] = 10;
  sums[1 * sums_per_loss] = 32;
  sums[2 * sums_per_loss] = 4;
  float* const tail = sums.data() + 3 * sums_per_loss;
  tail[0] = 1;
  constexpr std::uint64_t many = (1ull << 24) + 3;
  split_weight(many << 32, tail + 3);
  split_weight(weight_units(0.5f), tail + 3 + weight_limbs);
  close_step(s, sums.data(), {}, rule);
  EXPECT_EQ(s.tail.stop, 1);
  EXPECT_EQ(s.ended_weight[0], 5);
  EXPECT_EQ(s.ended_weight[1], 64);
  EXPECT_EQ(s.ended_weight[2], 20);
  EXPECT_EQ(s.loss_weight[0], 16777219.0);
  EXPECT_EQ(s.loss_weight[1], 64);
  EXPECT_EQ(s.loss_weight[2], 0.5);
  EXPECT_EQ(s.sum_weight, 16777219.0);
  EXPECT_EQ(s.loss_seed[0], 1.0f);
  EXPECT_EQ(step_loss(s, rule), 10.0 / 5 + 32.0 / 64 + 0.5 * (4.0 / 20));
  // A step without any weight comes to nothing, and so does its loss.
  std::fill(tail, tail + StepTail::floats(2), 0.0f);
  close_step(s, sums.data(), {}, rule);
  EXPECT_EQ(s.loss_weight[0], 0);
  EXPECT_EQ(s.sum_weight, 64);
  close_step(s, sums.data(), {}, rule);
  EXPECT_EQ(step_loss(s, rule), 32.0 / 64);
}

TEST(LossWeights, nothing_is_not_a_number_where_nothing_weighs) {
  const LossRule rule{.losses = 1, .counted = 1};
  StepState s;
  weigh_losses(s, rule);
  judge_gradients(s, 0, 0, 1.0);
  EXPECT_EQ(s.grad_norm, 0);
  EXPECT_EQ(s.gradient_scale, 1);
  EXPECT_EQ(s.nonfinite, 0u);
  const float sums[16] = {};
  close_step(s, sums, {}, rule);
  EXPECT_EQ(step_loss(s, rule), 0);
}

}  // namespace
}  // namespace dtrain
