#include "runtime/random/rng.hpp"

#include <gtest/gtest.h>

namespace dtrain {
namespace {

struct KnownAnswer {
  Random4 counter;
  std::uint32_t k0, k1;
  Random4 expected;
};

// Known answers of Philox4x32-10 as published with Random123 (Salmon et al., SC'11).
TEST(Philox, GivesThePublishedAnswers) {
  const KnownAnswer rows[] = {
      {{{0, 0, 0, 0}}, 0, 0, {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}}},
      {{{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}},
       0xffffffff,
       0xffffffff,
       {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}}},
      {{{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}},
       0xa4093822,
       0x299f31d0,
       {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}},
  };
  for (const auto& row : rows) {
    const Random4 got = philox(row.counter, row.k0, row.k1);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(got.v[i], row.expected.v[i]);
  }
}

TEST(Philox, PurposesAndItemsDoNotMeet) {
  const auto first = [](Purpose p, std::uint64_t item, std::uint32_t sub) {
    return draw4(random_key(1, p), item, sub, 0).v[0];
  };
  EXPECT_NE(first(Purpose::init, 0, 0), first(Purpose::dropout, 0, 0));
  EXPECT_NE(first(Purpose::init, 0, 0), first(Purpose::init, 1, 0));
  EXPECT_NE(first(Purpose::init, 1, 0), first(Purpose::init, 1ull << 32, 0));
  EXPECT_NE(first(Purpose::init, 0, 0), first(Purpose::init, 0, 1));
}

}  // namespace
}  // namespace dtrain
