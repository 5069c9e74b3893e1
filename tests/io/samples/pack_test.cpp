// Packs of documents: every token once, how full they are, and in which order.
#include "io/samples/pack.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "runtime/random/rng.hpp"

namespace dtrain::io {
namespace {

using Offsets = std::vector<std::uint64_t>;

Offsets offsets_of(const std::vector<std::uint64_t>& lengths) {
  Offsets offsets{0};
  for (const std::uint64_t length : lengths) offsets.push_back(offsets.back() + length);
  return offsets;
}

/// Lengths of so many documents: e^(mean + deviation * normal).
std::vector<std::uint64_t> log_normal(std::size_t count, double mean, double deviation) {
  std::vector<std::uint64_t> lengths;
  for (std::size_t i = 0; i < count; ++i) {
    const Random4 r = draw4(random_key(7, Purpose::test), i, 0, 0);
    const double u = (static_cast<double>(r.v[0]) + 1) * 0x1p-32, v = static_cast<double>(r.v[1]) * 0x1p-32;
    const double normal = std::sqrt(-2 * std::log(u)) * std::cos(2 * 3.14159265358979 * v);
    lengths.push_back(1 + static_cast<std::uint64_t>(std::exp(mean + deviation * normal)));
  }
  return lengths;
}

double fullness(const PackTable& packs, const Offsets& offsets, std::uint32_t length) {
  return static_cast<double>(offsets.back()) / (static_cast<double>(packs.size()) * length);
}

/// Every token lies in one piece, pieces are documents or parts of longer ones, and packs are in their order.
void check(const PackTable& packs, const Offsets& offsets, std::uint32_t length) {
  std::vector<Piece> all;
  std::uint64_t first = 0;
  for (std::size_t p = 0; p < packs.size(); ++p) {
    const auto pieces = packs[p];
    ASSERT_FALSE(pieces.empty());
    if (p > 0) ASSERT_GT(pieces[0].begin, first);
    first = pieces[0].begin;
    std::uint64_t held = 0;
    for (const Piece& piece : pieces) {
      ASSERT_GE(piece.begin, first);
      ASSERT_GT(piece.length, 0u);
      held += piece.length;
      all.push_back(piece);
    }
    ASSERT_LE(held, length);
  }
  std::sort(all.begin(), all.end(), [](const Piece& a, const Piece& b) { return a.begin < b.begin; });
  std::uint64_t end = 0;
  for (const Piece& piece : all) {
    ASSERT_EQ(piece.begin, end);
    end += piece.length;
    const auto next = std::upper_bound(offsets.begin(), offsets.end(), piece.begin);
    ASSERT_EQ(piece.continues, end < *next);
    ASSERT_LE(end, *next);
    if (piece.continues) ASSERT_EQ(piece.length, length);
  }
  EXPECT_EQ(end, offsets.back());
}

TEST(Packs, AreAtLeast99PercentFull) {
  struct Case {
    double mean, deviation;
    std::uint32_t length;
  };
  // Sentences, paragraphs and articles; the last ones are mostly longer than a sample.
  for (const Case& c : {Case{3, 0.8, 256}, Case{4.5, 1, 512}, Case{6, 1.2, 1024}, Case{7, 1, 256}}) {
    const Offsets offsets = offsets_of(log_normal(20'000, c.mean, c.deviation));
    const PackTable packs(offsets, c.length);
    check(packs, offsets, c.length);
    EXPECT_GE(fullness(packs, offsets, c.length), 0.99) << c.mean << ", " << c.length;
  }
}

TEST(Packs, TakeWhatFitsBest) {
  const Offsets offsets = offsets_of({4, 0, 7, 3, 23, 6});  // the fifth is cut into 10, 10 and 3
  const PackTable packs(offsets, 10);
  check(packs, offsets, 10);
  EXPECT_EQ(packs.size(), 5u);
  EXPECT_EQ(packs.cut_documents(), 1u);
  EXPECT_EQ(packs[0].size(), 2u);  // 4 + 6
  EXPECT_EQ(packs[0][1].begin, 37u);
  EXPECT_EQ(packs[1].size(), 2u);  // 7 + 3
}

TEST(Packs, OfAnyLengths) {
  for (const std::uint32_t length : {1u, 2u, 63u, 64u, 65u, 4095u, 4096u, 4097u, 300'000u}) {
    const Offsets offsets = offsets_of(log_normal(500, 3, 1.5));
    check(PackTable(offsets, length), offsets, length);
  }
  const PackTable none(Offsets{0, 0, 0}, 8);
  EXPECT_EQ(none.size(), 0u);
}

}  // namespace
}  // namespace dtrain::io
