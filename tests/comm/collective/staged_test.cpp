// Sums of device tensors through the host's memory, on an asynchronous device.
#include "comm/collective/staged.hpp"

#include <chrono>

#include <gtest/gtest.h>

#include "comm/collective/fixed_order.hpp"
#include "comm/world/local.hpp"
#include "runtime/tensor/error.hpp"
#include "tests/comm/collective/device_suite.hpp"
#include "tests/support/allocations.hpp"
#include "tests/support/async_device.hpp"

namespace dtrain::comm {
namespace {

using test::AsyncDevice;

CommConfig staged(Algorithm algorithm = Algorithm::automatic) {
  CommConfig config;
  config.algorithm = algorithm;
  config.transport = Transport::staged;
  return config;
}

AsyncDevice::Options delayed() {
  AsyncDevice::Options options;
  options.compute_delay_us = 20;
  return options;
}

class StagedRanks : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, StagedRanks, testing::Values(1, 2, 3, 4));

TEST_P(StagedRanks, passes_the_suite) {
  run_local(GetParam(), [](LocalRank& rank) {
    AsyncDevice device;
    suite::check_device_collectives(
        {rank.rank(), rank.size(), &device, [&](Algorithm a) { return rank.make_collective(device, staged(a)); }});
  });
}

TEST_P(StagedRanks, passes_the_suite_in_small_pieces_on_a_slow_device) {
  run_local(GetParam(), [](LocalRank& rank) {
    AsyncDevice device(delayed());
    const auto make = [&](Algorithm a) {
      auto below = rank.make_communicator(a);
      if (a == Algorithm::automatic && rank.size() > 1)
        below = make_fixed_order(std::move(below), {.others_below = true, .f32_below = true});
      return make_staged_collective(device, std::move(below), {.piece_bytes = 16384, .pieces = 3});
    };
    const suite::DeviceMaker maker{rank.rank(), rank.size(), &device, make};
    const auto stream = device.make_stream(StreamUse::communication);
    const auto c = make(Algorithm::fixed_order);
    suite::check_device_type<float>(maker, *c, *stream, DType::f32);
    if (rank.size() > 1) suite::check_device_fixed_order(maker, *c, *stream);
    suite::check_device_order(maker, *c);
  });
}

TEST(Staged, the_caller_neither_waits_nor_allocates) {
  run_local(2, [](LocalRank& rank) {
    AsyncDevice device;
    const auto c = rank.make_collective(device, staged());
    const auto group = rank.make_group();
    const auto stream = device.make_stream(StreamUse::communication);
    suite::OnDevice<float> data(device, *stream, DType::f32, std::vector<float>(3000, 1));
    c->all_reduce(data.tensor(), Reduce::sum, *stream);
    stream->synchronize();
    group->barrier();
    device.hold();  // whoever waits for the device now waits for ever
    const auto before = test::thread_allocation_count();
    for (int i = 0; i < 10; ++i) c->all_reduce(data.tensor(), Reduce::sum, *stream);
    EXPECT_EQ(test::thread_allocation_count(), before);
    EXPECT_NE(c->state().find("staged: 1 of 11 calls done"), std::string::npos) << c->state();
    device.go();
    data.fetch();
    stream->synchronize();
    EXPECT_EQ(data[2999], 2048);
  });
}

TEST(Staged, two_collectives_on_two_streams_do_not_wait_for_each_other) {
  run_local(2, [](LocalRank& rank) {
    AsyncDevice device;
    const auto first = rank.make_collective(device, staged()), second = rank.make_collective(device, staged());
    const auto a = device.make_stream(StreamUse::communication), b = device.make_stream(StreamUse::compute);
    suite::OnDevice<float> x(device, *a, DType::f32, std::vector<float>(100, 1));
    suite::OnDevice<float> y(device, *b, DType::f32, std::vector<float>(100, 1));
    // In opposite order on the two ranks.
    for (int i = 0; i < 8; ++i) {
      if (rank.rank() == 0) first->all_reduce(x.tensor(), Reduce::sum, *a);
      second->all_reduce(y.tensor(), Reduce::sum, *b);
      if (rank.rank() == 1) first->all_reduce(x.tensor(), Reduce::sum, *a);
    }
    x.fetch();
    y.fetch();
    a->synchronize();
    b->synchronize();
    EXPECT_EQ(x[0], 256);
    EXPECT_EQ(y[0], 256);
  });
}

TEST(Staged, a_lost_rank_is_an_error_with_its_number_and_streams_come_free) {
  const auto begin = std::chrono::steady_clock::now();
  try {
    run_local(
        2,
        [](LocalRank& rank) {
          AsyncDevice device;
          const auto c = rank.make_collective(device, staged());
          const auto stream = device.make_stream(StreamUse::communication);
          suite::OnDevice<float> data(device, *stream, DType::f32, std::vector<float>(100, 1));
          c->all_reduce(data.tensor(), Reduce::sum, *stream);
          if (rank.rank() == 1) {
            stream->synchronize();
            return;
          }
          c->all_reduce(data.tensor(), Reduce::sum, *stream);
          stream->synchronize();  // not for ever
          c->check();
        },
        0.5);
    FAIL() << "nothing was thrown";
  } catch (const CommError& e) {
    EXPECT_EQ(e.sequence(), 2u);
    EXPECT_NE(std::string(e.what()).find("all_reduce number 2 (staged) failed on rank 0"), std::string::npos)
        << e.what();
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
}

TEST(Staged, cannot_be_recorded) {
  run_local(2, [](LocalRank& rank) {
    AsyncDevice device;
    EXPECT_FALSE(rank.make_collective(device, staged())->recordable());
  });
}

TEST(Staged, kinds_of_devices_and_carriers_that_differ_are_told) {
  const auto said = [](const std::function<std::unique_ptr<Collective>(LocalRank&, Device&)>& make) {
    std::string text;
    run_local(2, [&](LocalRank& rank) {
      AsyncDevice far;
      const auto near = make_cpu_device(1);
      try {
        make(rank, rank.rank() == 0 ? static_cast<Device&>(far) : *near);
      } catch (const CommError& e) {
        if (rank.rank() == 0) text = e.what();
      }
    });
    return text;
  };
  EXPECT_NE(said([](LocalRank& r, Device& d) { return r.make_collective(d, staged()); })
                .find("ranks disagree on the kind of device: rank 0 (host local) has a GPU, rank 1 (host local) has "
                      "the cpu"),
            std::string::npos);
}

}  // namespace
}  // namespace dtrain::comm
