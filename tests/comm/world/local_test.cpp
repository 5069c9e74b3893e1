#include "comm/world/local.hpp"

#include <chrono>

#include <gtest/gtest.h>

#include "runtime/tensor/error.hpp"
#include "tests/comm/collective/reducer_suite.hpp"
#include "tests/comm/collective/suite.hpp"

namespace dtrain::comm {
namespace {

class LocalRanks : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, LocalRanks, testing::Values(1, 2, 3, 4));

TEST_P(LocalRanks, communicators_agree_with_a_scalar_reference) {
  run_local(GetParam(), [](LocalRank& rank) { suite::check_communicators(suite::maker_of(rank)); });
}

TEST_P(LocalRanks, collectives_run_in_order_on_a_stream) {
  run_local(GetParam(), [](LocalRank& rank) {
    const auto device = make_cpu_device(1);
    suite::check_collectives(suite::maker_of(rank), *device);
  });
}

TEST_P(LocalRanks, reducers_give_the_same_bits_with_and_without_shards) {
  run_local(GetParam(), [](LocalRank& rank) { suite::check_reducers(suite::maker_of(rank)); });
}

TEST_P(LocalRanks, groups_gather_and_agree) {
  run_local(GetParam(), [](LocalRank& rank) { suite::check_group(suite::maker_of(rank)); });
}

TEST(Local, one_failing_rank_ends_all_with_its_error) {
  try {
    run_local(3, [](LocalRank& rank) {
      const auto group = rank.make_group();
      if (rank.rank() == 1) throw DataError("this one");
      group->barrier();
    });
    FAIL() << "nothing was thrown";
  } catch (const DataError& e) {
    EXPECT_STREQ(e.what(), "this one");
  }
}

TEST(Local, a_missing_rank_is_an_error_at_the_deadline) {
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_THROW(run_local(
                   2,
                   [](LocalRank& rank) {
                     const auto group = rank.make_group();
                     if (rank.rank() == 0) group->barrier();
                   },
                   0.2),
               CommError);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30));
}

TEST(Local, a_failed_collective_is_named_by_its_number) {
  try {
    run_local(
        2,
        [](LocalRank& rank) {
          const auto device = make_cpu_device(1);
          const auto collective = rank.make_collective();
          const auto stream = device->make_stream(StreamUse::communication);
          float x = 1;
          collective->all_reduce(suite::view(DType::f32, &x, 1), Reduce::sum, *stream);
          if (rank.rank() == 0) collective->all_reduce(suite::view(DType::f32, &x, 1), Reduce::sum, *stream);
          stream->synchronize();
        },
        0.3);
    FAIL() << "nothing was thrown";
  } catch (const CommError& e) {
    EXPECT_EQ(e.sequence(), 2u);
    EXPECT_NE(std::string(e.what()).find("all_reduce number 2 (4 bytes) failed on rank 0"), std::string::npos)
        << e.what();
  }
}

}  // namespace
}  // namespace dtrain::comm
