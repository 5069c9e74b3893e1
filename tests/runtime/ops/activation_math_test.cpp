// The element functions that devices share, against double precision; and the conversions of bfloat16.
#include "runtime/ops/activation_math.hpp"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "runtime/tensor/bf16.hpp"

namespace dtrain {
namespace {

/// The largest error of `seen` against `truth` over [-low, high], relative to |truth| or to `floor` where that is more.
template <class Seen, class Truth>
double worst(double low, double high, double floor, const Seen& seen, const Truth& truth) {
  double most = 0;
  constexpr int steps = 20000;
  for (int i = 0; i <= steps; ++i) {
    const auto x = static_cast<float>(low + (high - low) * i / steps);
    const double t = truth(static_cast<double>(x));
    most = std::max(most, std::abs(static_cast<double>(seen(x)) - t) / std::max(std::abs(t), floor));
  }
  return most;
}

double normal_cdf(double x) {
  return 0.5 * std::erfc(-x / std::sqrt(2.0));
}

TEST(ActivationMath, is_that_of_double_precision) {
  constexpr double few_ulps = 5e-7;
  const auto logistic = [](double x) { return 1 / (1 + std::exp(-x)); };
  EXPECT_LE(worst(
                -60, 60, 0, [](float x) { return exp_bounded(x); }, [](double x) { return std::exp(x); }),
            few_ulps);
  EXPECT_LE(worst(
                -60, 60, 0, [](float x) { return sigmoid(x); }, logistic),
            few_ulps);
  EXPECT_LE(worst(
                -1, 1, 1e-30, [](float x) { return tanh_of(x); }, [](double x) { return std::tanh(x); }),
            few_ulps);
  EXPECT_LE(worst(
                -30, 30, 0, [](float x) { return tanh_of(x); }, [](double x) { return std::tanh(x); }),
            few_ulps);
  // The exponent -x^2/2 of the tail is itself rounded.
  EXPECT_LE(worst(
                -5, 10, 0, [](float x) { return normal(x).cumulative; }, normal_cdf),
            2e-6);
  EXPECT_LE(worst(
                -12, 12, 1e-2, [](float x) { return activate<Activation::gelu>(x); },
                [](double x) { return x * normal_cdf(x); }),
            few_ulps);
  // The argument of the exponent is itself rounded, and reaches 5 where values are above the floor.
  EXPECT_LE(worst(
                -12, 12, 1e-2, [](float x) { return activate<Activation::gelu_tanh>(x); },
                [](double x) {
                  const double root = 0.79788456080286536;
                  return 0.5 * x * (1 + std::tanh(root * (x + 0.044715 * x * x * x)));
                }),
            2 * few_ulps);
  EXPECT_LE(worst(
                -30, 30, 1e-2, [](float x) { return activate<Activation::silu>(x); },
                [&](double x) { return x * logistic(x); }),
            few_ulps);
}

TEST(ActivationMath, holds_at_the_ends) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(tanh_of(infinity), 1.0f);
  EXPECT_EQ(tanh_of(-infinity), -1.0f);
  EXPECT_EQ(sigmoid(infinity), 1.0f);
  EXPECT_NEAR(sigmoid(-infinity), 0.0f, 1e-25f);
  EXPECT_EQ(activate<Activation::gelu>(100.0f), 100.0f);
  EXPECT_NEAR(activate<Activation::gelu>(-100.0f), 0.0f, 1e-23f);
  EXPECT_EQ(activate<Activation::hard_swish>(-3.5f), 0.0f);
  EXPECT_EQ(activate<Activation::hard_swish>(7.0f), 7.0f);
}

TEST(Bf16, survives_the_way_to_float_and_back) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const Bf16 v{static_cast<std::uint16_t>(bits)};
    const float f = to_float(v);
    if (std::isnan(f))
      EXPECT_TRUE(std::isnan(to_float(to_bf16(f)))) << bits;
    else
      EXPECT_EQ(to_bf16(f).bits, bits);
  }
}

TEST(Bf16, rounds_to_the_nearest_and_ties_to_even) {
  const auto rounds_to = [](std::uint32_t from) { return to_bf16(std::bit_cast<float>(from)).bits; };
  EXPECT_EQ(rounds_to(0x3F808000), 0x3F80);  // a tie: the even one is below
  EXPECT_EQ(rounds_to(0x3F818000), 0x3F82);  // ... and above
  EXPECT_EQ(rounds_to(0x3F808001), 0x3F81);
  EXPECT_EQ(rounds_to(0x3F807FFF), 0x3F80);
  EXPECT_EQ(rounds_to(0xBF808001), 0xBF81);
  EXPECT_EQ(rounds_to(0x7F7FFFFF), 0x7F80);  // beyond the largest: infinity
  EXPECT_EQ(rounds_to(0x7F800000), 0x7F80);
  EXPECT_EQ(rounds_to(0x00000001), 0x0000);
  for (const std::uint32_t nan : {0x7F800001u, 0x7FFFFFFFu, 0xFF800001u, 0xFFFFFFFFu, 0x7FC00000u})
    EXPECT_TRUE(std::isnan(to_float(to_bf16(std::bit_cast<float>(nan))))) << nan;
}

}  // namespace
}  // namespace dtrain
