// comm/nccl/nccl.cpp itself, over a simulated NCCL whose ranks are threads of this process.
#include "comm/nccl/nccl.hpp"

#include <atomic>
#include <chrono>
#include <thread>

#include <gtest/gtest.h>

#include "comm/world/local.hpp"
#include "runtime/tensor/error.hpp"
#include "tests/comm/collective/device_suite.hpp"
#include "tests/comm/nccl/simulated_nccl.hpp"
#include "tests/support/async_device.hpp"

namespace dtrain::comm {
namespace {

using test::AsyncDevice;
using test::simulated_nccl;

CommConfig over_nccl(Algorithm algorithm = Algorithm::automatic) {
  CommConfig config;
  config.algorithm = algorithm;
  config.transport = Transport::nccl;
  config.bucket_mib = 0.05;
  return config;
}

class Nccl : public testing::Test {
 protected:
  ~Nccl() override { simulated_nccl().reset(); }
};
class NcclRanks : public testing::TestWithParam<int> {
 protected:
  ~NcclRanks() override { simulated_nccl().reset(); }
};
INSTANTIATE_TEST_SUITE_P(Ranks, NcclRanks, testing::Values(1, 2, 3, 4));

void pass_the_suite(int ranks) {
  run_local(ranks, [](LocalRank& rank) {
    AsyncDevice device;
    suite::check_device_collectives(
        {rank.rank(), rank.size(), &device, [&](Algorithm a) { return rank.make_collective(device, over_nccl(a)); }});
  });
  const auto& s = simulated_nccl();
  EXPECT_EQ(s.destroyed, ranks > 1 ? 2 * ranks : 0);
  EXPECT_EQ(s.aborted, 0);
}

TEST_P(NcclRanks, passes_the_suite) {
  pass_the_suite(GetParam());
}

TEST_P(NcclRanks, passes_the_suite_where_calls_are_enqueued_late) {
  simulated_nccl().late_by = 3;
  pass_the_suite(GetParam());
}

TEST_P(NcclRanks, recorded_calls_give_the_same_bits_each_time) {
  run_local(GetParam(), [](LocalRank& rank) {
    for (Algorithm algorithm : {Algorithm::automatic, Algorithm::fixed_order}) {
      AsyncDevice device;
      const auto c = rank.make_collective(device, over_nccl(algorithm));
      ASSERT_TRUE(c->recordable());
      const auto compute = device.make_stream(StreamUse::compute), comm = device.make_stream(StreamUse::communication);
      const auto ready = device.make_event(), done = device.make_event();
      std::vector<float> values(70001);  // more than the fixed order's workspace holds
      for (std::size_t i = 0; i < values.size(); ++i) values[i] = suite::rough(rank.rank(), i);
      suite::OnDevice<float> in(device, *compute, DType::f32, values), sums(device, *compute, DType::f32, values);
      const auto work = [&] {
        device.copy(sums.tensor().data, in.tensor().data, values.size() * sizeof(float), *compute);
        compute->record(*ready);
        comm->wait(*ready);
        c->all_reduce(sums.tensor(), Reduce::sum, *comm);
        comm->record(*done);
        compute->wait(*done);
      };
      work();
      sums.fetch();
      compute->synchronize();
      std::vector<float> eager(values.size());
      for (std::size_t i = 0; i < eager.size(); ++i) eager[i] = sums[i];
      std::string why_not;
      const auto replay = device.record(*compute, work, why_not);
      ASSERT_TRUE(replay) << why_not;
      for (int round = 0; round < 3; ++round) {
        device.zero(sums.tensor().data, values.size() * sizeof(float), *compute);
        replay->launch(*compute);
        sums.fetch();
        compute->synchronize();
        for (std::size_t i = 0; i < eager.size(); ++i) ASSERT_EQ(sums[i], eager[i]) << "round " << round << ": " << i;
      }
    }
  });
}

TEST_F(Nccl, memory_is_registered_and_given_back) {
  run_local(2, [](LocalRank& rank) {
    AsyncDevice device;
    const auto c = rank.make_collective(device, over_nccl(Algorithm::fixed_order));
    ASSERT_NE(c->memory(), nullptr);
    const auto group = rank.make_group();
    group->barrier();
    const int own = simulated_nccl().registered;  // what shares are added in
    group->barrier();
    {
      const Buffer buffer(*c->memory(), 1000);
      group->barrier();
      EXPECT_EQ(simulated_nccl().registered, own + 2);
      EXPECT_EQ(simulated_nccl().allocated, own + 2);
      group->barrier();
    }
    group->barrier();
    EXPECT_EQ(simulated_nccl().registered, own);
    group->barrier();
  });
  EXPECT_EQ(simulated_nccl().registered, 0);
  EXPECT_EQ(simulated_nccl().allocated, 0);
}

/// What run_local throws, and that it comes soon.
std::string error_within(double seconds, const std::function<void(LocalRank&)>& work) {
  const auto begin = std::chrono::steady_clock::now();
  std::string text = "nothing was thrown";
  try {
    run_local(2, work);
  } catch (const CommError& e) {
    text = e.what();
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::duration<double>(seconds));
  return text;
}

TEST_F(Nccl, a_rank_that_does_not_come_is_an_error_at_the_deadline) {
  simulated_nccl().never_starts = true;
  const std::string text = error_within(5, [](LocalRank& rank) {
    AsyncDevice device;
    CommConfig config = over_nccl();
    config.set_up_timeout_seconds = 0.3;
    rank.make_collective(device, config);
  });
  EXPECT_NE(text.find("NCCL did not start on rank 0 within 0.3 s (communication.set_up_timeout_seconds)"),
            std::string::npos)
      << text;
  EXPECT_EQ(simulated_nccl().aborted, 2);
}

TEST_F(Nccl, a_refused_call_is_named_by_rank_and_number) {
  simulated_nccl().refused_call = 7;  // five of the start
  const std::string text = error_within(5, [](LocalRank& rank) {
    AsyncDevice device;
    const auto c = rank.make_collective(device, over_nccl());
    const auto stream = device.make_stream(StreamUse::communication);
    suite::OnDevice<float> data(device, *stream, DType::f32, std::vector<float>(100, 1));
    for (int i = 0; i < 3; ++i) c->all_reduce(data.tensor(), Reduce::sum, *stream);
  });
  EXPECT_NE(text.find("all_reduce number 2 (400 bytes) failed on rank"), std::string::npos) << text;
  EXPECT_NE(text.find("simulated error"), std::string::npos) << text;
}

TEST_F(Nccl, a_dead_peer_sets_the_stream_free_and_is_an_error) {
  std::atomic<bool> over{false};
  const std::string text = error_within(5, [&](LocalRank& rank) {
    AsyncDevice device;
    const auto c = rank.make_collective(device, over_nccl());
    const auto group = rank.make_group();
    const auto stream = device.make_stream(StreamUse::communication);
    suite::OnDevice<float> data(device, *stream, DType::f32, std::vector<float>(100, 1));
    c->all_reduce(data.tensor(), Reduce::sum, *stream);
    stream->synchronize();
    EXPECT_NE(c->state().find("nccl 2.28.9: no error; call 1 is all_reduce of 400 bytes"), std::string::npos)
        << c->state();
    group->barrier();
    if (rank.rank() == 1) {
      simulated_nccl().dead_rank = 1;
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
      simulated_nccl().noticed = true;
      while (!over) std::this_thread::sleep_for(std::chrono::milliseconds(5));
      return;
    }
    while (simulated_nccl().dead_rank != 1) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    c->all_reduce(data.tensor(), Reduce::sum, *stream);
    stream->synchronize();  // for the other rank's part, until the collective is ended
    EXPECT_NE(c->state().find("remote process exited"), std::string::npos) << c->state();
    over = true;
    c->check();
  });
  EXPECT_NE(text.find("a collective up to number 2 failed on rank 0: remote process exited or there was a network "
                      "error (socket closed by remote peer)"),
            std::string::npos)
      << text;
  EXPECT_EQ(simulated_nccl().aborted, 1);
}

TEST_F(Nccl, where_even_the_end_hangs_the_last_resort_is_called) {
  std::atomic<bool> over{false};
  std::string said;
  run_local(2, [&](LocalRank& rank) {
    AsyncDevice device;
    const auto group = rank.make_group();
    const auto c = make_nccl_collective(*group, device, over_nccl(), [&](const std::string& text) {
      said = text;
      over = true;
      simulated_nccl().abort_hangs = false;
    });
    group->barrier();
    if (rank.rank() == 0) {
      simulated_nccl().abort_hangs = true;
      simulated_nccl().dead_rank = 1;
      simulated_nccl().noticed = true;
    }
    const auto begin = std::chrono::steady_clock::now();
    while (!over) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
  });
  EXPECT_NE(said.find("failed on rank 0: remote process exited"), std::string::npos) << said;
}

}  // namespace
}  // namespace dtrain::comm
