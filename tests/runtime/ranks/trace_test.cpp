#include "runtime/ranks/trace.hpp"

#include <chrono>
#include <cmath>
#include <mutex>

#include <gtest/gtest.h>

#include "tests/support/thread_group.hpp"

namespace dtrain {
namespace {

TEST(Trace, KeepsTheNewestSpansInOrder) {
  Trace trace(3);
  EXPECT_TRUE(trace.spans().empty());
  for (int i = 0; i < 5; ++i) trace.add({.begin = i + 0.0, .end = i + 0.5, .step = i});
  const auto spans = trace.spans();
  ASSERT_EQ(spans.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(spans[i].step, static_cast<std::int64_t>(i + 2));
  EXPECT_EQ(trace.dropped(), 2u);
  Trace none(0);
  none.add({});
  EXPECT_TRUE(none.spans().empty());
}

// Clocks that are hours apart: the truth is within the error that is said, and the error is that of one round trip.
TEST(Trace, ClocksOfRanksAreMeasuredWithinTheErrorThatIsSaid) {
  constexpr int ranks = 4;
  std::vector<ClockOffset> found(ranks);
  test::run_ranks(ranks, [&](Group& group) {
    const double ahead = 3600.0 * group.rank();
    const auto clock = [&] {
      return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count() + ahead;
    };
    found[static_cast<std::size_t>(group.rank())] = measure_clock(group, clock);
  });
  EXPECT_EQ(found[0].seconds, 0);
  EXPECT_EQ(found[0].error, 0);
  for (int r = 1; r < ranks; ++r) {
    const ClockOffset& f = found[static_cast<std::size_t>(r)];
    EXPECT_GT(f.error, 0);
    EXPECT_LT(f.error, 1);
    EXPECT_LE(std::abs(f.seconds + 3600.0 * r), f.error) << r;
  }
}

}  // namespace
}  // namespace dtrain
