#include "io/dataset/stream.hpp"

#include <algorithm>
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

}  // namespace
}  // namespace dtrain::io
