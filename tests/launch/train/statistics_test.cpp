#include "launch/plan/statistics.hpp"

#include <random>

#include <gtest/gtest.h>

namespace dtrain::launch {
namespace {

TEST(Statistics, MedianOfFewIsWithTheirRange) {
  const Estimate one = median_of({3});
  EXPECT_EQ(one.value, 3);
  EXPECT_EQ(one.low, 3);
  EXPECT_EQ(one.high, 3);
  const Estimate four = median_of({4, 1, 3, 2});
  EXPECT_EQ(four.value, 2.5);
  EXPECT_EQ(four.low, 1);
  EXPECT_EQ(four.high, 4);
}

// The tabulated ranks of the sign test: n = 6: 1 and 6; 10: 2 and 9; 20: 6 and 15; 100: 40 and 61.
TEST(Statistics, IntervalsOfMediansLieBetweenTheTabulatedRanks) {
  for (const auto& [n, low] : {std::pair{6, 1}, {9, 2}, {10, 2}, {20, 6}, {50, 18}, {100, 40}}) {
    std::vector<double> values;
    for (int i = 1; i <= n; ++i) values.push_back(i);
    const Estimate e = median_of(values);
    EXPECT_EQ(e.low, low) << n;
    EXPECT_EQ(e.high, n + 1 - low) << n;
    EXPECT_EQ(e.count, n);
  }
}

TEST(Statistics, MeansHaveStudentsInterval) {
  const Estimate e = mean_of({1, 2, 3, 4, 5});
  EXPECT_DOUBLE_EQ(e.value, 3);
  EXPECT_NEAR(e.high - e.value, 2.776 * 1.5811388 / 2.2360680, 1e-6);  // t(4) s / sqrt(n)
  EXPECT_DOUBLE_EQ(e.high - e.value, e.value - e.low);
  EXPECT_EQ(mean_of({7}).low, 7);
}

// What an interval promises: 95 in 100 hold the truth. Above 94 % in 2000 draws, whatever the distribution.
TEST(Statistics, IntervalsCoverTheTruth) {
  std::mt19937 random(1);
  for (const int n : {6, 15, 40}) {
    int medians = 0, means = 0;
    for (int draw = 0; draw < 2000; ++draw) {
      std::vector<double> skewed, normal;
      for (int i = 0; i < n; ++i) {
        skewed.push_back(std::exponential_distribution<double>(1)(random));
        normal.push_back(std::normal_distribution<double>(1, 1)(random));
      }
      const Estimate median = median_of(skewed), mean = mean_of(normal);
      const double truth = 0.6931471805599453;
      medians += median.low <= truth && truth <= median.high ? 1 : 0;
      means += mean.low <= 1 && 1 <= mean.high ? 1 : 0;
    }
    EXPECT_GE(medians, 1880) << n;
    EXPECT_GE(means, 1870) << n;
    EXPECT_LE(means, 1930) << n;
  }
}

}  // namespace
}  // namespace dtrain::launch
