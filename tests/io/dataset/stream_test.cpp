#include "io/dataset/stream.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <map>
#include <numeric>
#include <set>
#include <vector>

#include <gtest/gtest.h>

namespace dtrain::io {
namespace {

std::vector<std::uint64_t> epoch_of(const SampleStream& stream, std::uint64_t epoch) {
  std::vector<std::uint64_t> out(stream.count());
  stream.indices(epoch * stream.count(), out);
  return out;
}

bool is_permutation_of_all(std::vector<std::uint64_t> order) {
  std::sort(order.begin(), order.end());
  for (std::uint64_t i = 0; i < order.size(); ++i) {
    if (order[i] != i) return false;
  }
  return true;
}

TEST(IndexPermutation, IsAPermutationOfEverySize) {
  for (const std::uint64_t n : {1, 2, 3, 4, 5, 7, 10, 64, 65, 997, 60000}) {
    for (std::uint64_t epoch = 0; epoch < (n < 1000 ? 20 : 3); ++epoch) {
      const IndexPermutation permutation(n, 42, epoch);
      std::vector<std::uint64_t> order(n);
      for (std::uint64_t i = 0; i < n; ++i) order[i] = permutation(i);
      EXPECT_TRUE(is_permutation_of_all(order)) << n << " epoch " << epoch;
    }
  }
}

TEST(IndexPermutation, DependsOnSeedEpochAndLane) {
  const auto order = [](std::uint64_t seed, std::uint64_t epoch, std::uint32_t lane) {
    const IndexPermutation p(1000, seed, epoch, lane);
    std::vector<std::uint64_t> out(1000);
    for (std::uint64_t i = 0; i < out.size(); ++i) out[i] = p(i);
    return out;
  };
  std::set<std::vector<std::uint64_t>> seen{order(1, 0, 0),         order(2, 0, 0), order(1, 1, 0),
                                            order(1, 2, 0),         order(1, 0, 1), order(1ull << 40, 0, 0),
                                            order(1, 1ull << 40, 0)};
  EXPECT_EQ(seen.size(), 7u);
  EXPECT_EQ(order(1, 0, 0), order(1, 0, 0));
}

// Where an element lands should be uniform: chi-square over 32 bins of the place, for each of some elements, over many
// epochs. 31 degrees of freedom: 61.1 is the 0.1 % point; 100 is out of reach of chance for 40 statistics.
TEST(IndexPermutation, PlacesAreUniform) {
  constexpr std::uint64_t n = 997, epochs = 6400;
  constexpr double limit = 100;
  double sum = 0;
  for (std::uint64_t element = 0; element < n; element += 25) {
    double bins[32]{};
    for (std::uint64_t e = 0; e < epochs; ++e) bins[IndexPermutation(n, 7, e)(element) * 32 / n] += 1;
    double chi = 0;
    for (std::uint64_t b = 0; b < 32; ++b) {
      const auto first = (b * n + 31) / 32, last = ((b + 1) * n + 31) / 32;
      const double expected = static_cast<double>(epochs) * static_cast<double>(last - first) / n;
      chi += (bins[b] - expected) * (bins[b] - expected) / expected;
    }
    EXPECT_LT(chi, limit) << element;
    sum += chi;
  }
  EXPECT_NEAR(sum / 40, 31, 8);  // the mean of chi-square is its degrees of freedom; its deviation here 1.2
}

// Neighbours must not stay together: the place's differences of consecutive elements, 16 bins.
TEST(IndexPermutation, NeighboursAreStrangers) {
  constexpr std::uint64_t n = 60000;
  const IndexPermutation p(n, 3, 1);
  double bins[16]{};
  for (std::uint64_t i = 0; i + 1 < n; ++i) bins[(p(i + 1) + n - p(i)) % n * 16 / n] += 1;
  double chi = 0;
  for (const double b : bins) chi += (b - n / 16.0) * (b - n / 16.0) / (n / 16.0);
  EXPECT_LT(chi, 60);  // 15 degrees of freedom; 37.7 is the 0.1 % point
}

std::vector<std::uint64_t> order_of(std::uint64_t n, std::uint64_t epoch, OrderVersion version = newest_order) {
  const IndexPermutation p(n, 1, epoch, 0, version);
  std::vector<std::uint64_t> order(n);
  for (std::uint64_t i = 0; i < n; ++i) order[i] = p(i);
  return order;
}

// How far the counts are from equal: chi-square as a standard normal deviate (Wilson, Hilferty). One in 300,000 is
// above 4.5 by chance.
double deviate(const std::vector<double>& counts) {
  const double mean = std::accumulate(counts.begin(), counts.end(), 0.0) / static_cast<double>(counts.size());
  double chi = 0;
  for (const double c : counts) chi += (c - mean) * (c - mean) / mean;
  const double freedom = static_cast<double>(counts.size() - 1), variance = 2 / (9 * freedom);
  return (std::cbrt(chi / freedom) - (1 - variance)) / std::sqrt(variance);
}
constexpr double by_chance = 4.5;

TEST(IndexPermutation, EveryPlaceOfASmallSetIsEquallyLikely) {
  for (const std::uint64_t n : {2, 3, 5, 7, 9, 16, 17, 32, 100, 256}) {
    std::vector<std::vector<double>> counts(n, std::vector<double>(n));
    for (std::uint64_t e = 0; e < 20000; ++e) {
      const auto order = order_of(n, e);
      for (std::uint64_t i = 0; i < n; ++i) counts[i][order[i]] += 1;
    }
    for (std::uint64_t i = 0; i < n; ++i) EXPECT_LT(deviate(counts[i]), by_chance) << "element " << i << " of " << n;
  }
}

TEST(IndexPermutation, EveryPairOfPlacesOfASmallSetIsEquallyLikely) {
  for (const std::uint64_t n : {3, 4, 5, 7, 8, 9, 16, 24, 32}) {
    for (const auto& [a, b] : {std::pair<std::uint64_t, std::uint64_t>{0, 1}, {0, n - 1}, {n / 2, n / 2 + 1}}) {
      std::vector<double> counts(n * (n - 1));
      for (std::uint64_t e = 0; e < 60000; ++e) {
        const auto order = order_of(n, e);
        counts[order[a] * (n - 1) + order[b] - (order[b] > order[a] ? 1 : 0)] += 1;
      }
      EXPECT_LT(deviate(counts), by_chance) << a << " and " << b << " of " << n;
    }
  }
}

// Neighbours' distances, of all neighbours together: what shows the network's bias up to n = 128.
TEST(IndexPermutation, NeighboursOfASmallSetAreStrangers) {
  for (const std::uint64_t n : {5, 8, 16, 32, 48, 64, 100, 128, 256}) {
    std::vector<double> counts(n - 1);
    for (std::uint64_t e = 0; e < 40000; ++e) {
      const auto order = order_of(n, e);
      for (std::uint64_t i = 0; i + 1 < n; ++i) counts[(order[i + 1] + n - order[i]) % n - 1] += 1;
    }
    EXPECT_LT(deviate(counts), by_chance) << n;
  }
}

TEST(IndexPermutation, EveryOrderOfASmallSetIsEquallyLikely) {
  for (const std::uint64_t n : {2, 3, 4, 5, 6}) {
    std::size_t orders = 1;
    for (std::uint64_t i = 2; i <= n; ++i) orders *= i;
    std::map<std::vector<std::uint64_t>, double> seen;
    for (std::uint64_t e = 0; e < 300 * orders; ++e) seen[order_of(n, e)] += 1;
    std::vector<double> counts;
    for (const auto& [order, count] : seen) counts.push_back(count);
    EXPECT_EQ(counts.size(), orders) << n;
    EXPECT_LT(deviate(counts), by_chance) << n;
  }
}

// Rounds of a network of two halves of two bits or more swap pairs of pairs: n = 16, 32, ... would have but even
// orders.
TEST(IndexPermutation, EvenAndOddOrdersAreEquallyLikely) {
  for (const std::uint64_t n : {2, 9, 16, 31, 32, 64, 256}) {
    std::vector<double> counts(2);
    for (std::uint64_t e = 0; e < 4000; ++e) {
      auto order = order_of(n, e);
      bool odd = false;
      for (std::uint64_t i = 0; i < n; ++i)
        for (; order[i] != i; odd = !odd) std::swap(order[i], order[order[i]]);
      counts[odd ? 1 : 0] += 1;
    }
    EXPECT_LT(deviate(counts), by_chance) << n;
  }
}

// Runs go on in the order that they began in, for ever.
TEST(IndexPermutation, OrdersOfEachVersionStay) {
  using Order = std::vector<std::uint64_t>;
  EXPECT_EQ(order_of(10, 0, OrderVersion::first), (Order{2, 5, 6, 3, 0, 4, 7, 8, 9, 1}));
  EXPECT_EQ(order_of(10, 7, OrderVersion::first), (Order{6, 0, 5, 2, 8, 1, 3, 4, 7, 9}));
  EXPECT_EQ(order_of(10, 0, OrderVersion::second), (Order{2, 7, 4, 6, 1, 0, 3, 5, 8, 9}));
  EXPECT_EQ(order_of(10, 7, OrderVersion::second), (Order{1, 7, 9, 5, 4, 6, 0, 2, 8, 3}));
  EXPECT_NE(order_of(256, 2, OrderVersion::first), order_of(256, 2, OrderVersion::second));
  for (const std::uint64_t n : {257, 1000, 60000})
    EXPECT_EQ(order_of(n, 2, OrderVersion::first), order_of(n, 2, OrderVersion::second)) << n;
}

TEST(IndexPermutation, AllOrdersOfThreeAppear) {
  std::set<std::vector<std::uint64_t>> seen;
  for (std::uint64_t e = 0; e < 200; ++e) {
    const IndexPermutation p(3, 1, e);
    seen.insert({p(0), p(1), p(2)});
  }
  EXPECT_EQ(seen.size(), 6u);
}

TEST(SampleStream, EveryEpochHoldsEverySampleOnce) {
  for (const std::uint64_t n : {1, 2, 3, 7, 10, 997, 60000}) {
    const SampleStream stream(n, 5, true);
    for (std::uint64_t e = 0; e < 4; ++e) EXPECT_TRUE(is_permutation_of_all(epoch_of(stream, e))) << n;
    if (n >= 10) {
      EXPECT_NE(epoch_of(stream, 0), epoch_of(stream, 1));
      EXPECT_NE(epoch_of(stream, 0), epoch_of(SampleStream(n, 6, true), 0));
    }
  }
}

TEST(SampleStream, UnshuffledIsTheOrderOfTheFiles) {
  const SampleStream stream(5, 1, false);
  std::vector<std::uint64_t> out(12);
  stream.indices(3, out);
  EXPECT_EQ(out, (std::vector<std::uint64_t>{3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4}));
}

TEST(SampleStream, APositionNeedsNoHistory) {
  BlockLayout blocks;
  for (std::uint64_t b = 0; b < 1000; b += 7) blocks.starts.push_back(b);
  for (const bool windows : {false, true}) {
    const SampleStream all(1000, 9, true, windows ? blocks : BlockLayout{});
    std::vector<std::uint64_t> whole(3500);
    all.indices(0, whole);
    const SampleStream fresh(1000, 9, true, windows ? blocks : BlockLayout{});
    for (const std::uint64_t p : {3499, 0, 1234, 999, 1000, 2001}) {
      std::uint64_t one = 0;
      fresh.indices(p, std::span(&one, 1));
      EXPECT_EQ(one, whole[p]);
    }
  }
}

TEST(SampleStream, WindowsArePermutationsThatStayTogether) {
  // Two shards: blocks of 64 rows, the last of each is short.
  constexpr std::uint64_t n = 5000, split = 3333, rows = 64;
  BlockLayout blocks;
  for (std::uint64_t b = 0; b < split; b += rows) blocks.starts.push_back(b);
  for (std::uint64_t b = split; b < n; b += rows) blocks.starts.push_back(b);
  const SampleStream stream(n, 11, true, blocks);
  for (std::uint64_t e = 0; e < 3; ++e) EXPECT_TRUE(is_permutation_of_all(epoch_of(stream, e)));
  EXPECT_NE(epoch_of(stream, 0), epoch_of(stream, 1));
  const auto order = epoch_of(stream, 2);
  const auto block = [&](std::uint64_t i) {
    return std::upper_bound(blocks.starts.begin(), blocks.starts.end(), i) - blocks.starts.begin();
  };
  std::set<std::ptrdiff_t> first_window, all_in_batch;
  for (std::uint64_t i = 0; i < rows * (SampleStream::window_blocks - 1); ++i) first_window.insert(block(order[i]));
  EXPECT_LE(first_window.size(), SampleStream::window_blocks);
  for (std::uint64_t i = 0; i < 64; ++i) all_in_batch.insert(block(order[i]));
  EXPECT_GE(all_in_batch.size(), 10u);  // a batch mixes at least ten blocks
}

TEST(SampleStream, FewerBlocksThanAWindow) {
  const SampleStream stream(10, 1, true, BlockLayout{{0, 4, 8}});
  for (std::uint64_t e = 0; e < 10; ++e) EXPECT_TRUE(is_permutation_of_all(epoch_of(stream, e)));
}

// Of 18 blocks the last window has two: each pair of them should come as often.
TEST(SampleStream, FewBlocksMeetEquallyOften) {
  constexpr std::uint64_t n = 18, rows = 2, epochs = 300000;
  BlockLayout blocks;
  for (std::uint64_t b = 0; b < n; ++b) blocks.starts.push_back(b * rows);
  const SampleStream stream(n * rows, 1, true, blocks);
  std::map<std::set<std::uint64_t>, double> seen;
  std::vector<std::uint64_t> last(2 * rows);
  for (std::uint64_t e = 0; e < epochs; ++e) {
    stream.indices((e + 1) * n * rows - last.size(), last);
    std::set<std::uint64_t> pair;
    for (const std::uint64_t row : last) pair.insert(row / rows);
    seen[pair] += 1;
  }
  std::vector<double> counts;
  for (const auto& [pair, count] : seen) counts.push_back(count);
  EXPECT_EQ(counts.size(), n * (n - 1) / 2);
  EXPECT_LT(deviate(counts), by_chance);
}

TEST(SampleStream, GoesByTheVersionOfTheOrder) {
  for (const bool windows : {false, true}) {
    const BlockLayout blocks = windows ? BlockLayout{{0, 4, 8}} : BlockLayout{};
    const SampleStream first(10, 1, true, blocks, OrderVersion::first), second(10, 1, true, blocks);
    EXPECT_NE(epoch_of(first, 3), epoch_of(second, 3));
    if (!windows) {
      EXPECT_EQ(epoch_of(first, 3), order_of(10, 3, OrderVersion::first));
      EXPECT_EQ(epoch_of(second, 3), order_of(10, 3, OrderVersion::second));
    }
  }
}

}  // namespace
}  // namespace dtrain::io
