// The CPU device: memory, streams of both kinds, events across them, failures.
#include "runtime/device/device.hpp"

#include <atomic>
#include <chrono>
#include <cmath>
#include <limits>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "runtime/ops/kernels.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain {
namespace {

TEST(CpuDevice, names_itself_and_its_threads) {
  EXPECT_TRUE(make_cpu_device(1)->name().starts_with("cpu ("));
  EXPECT_TRUE(make_cpu_device(1)->name().ends_with(", 1 thread)"));
  EXPECT_TRUE(make_device(DeviceKind::cpu, 0, 3)->name().ends_with(", 3 threads)"));
}

TEST(CpuDevice, allocations_are_aligned) {
  const auto device = make_cpu_device(1);
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{100}, std::size_t{5} << 20}) {
    const Buffer buffer(*device, bytes);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % 64, 0u) << bytes;
  }
}

TEST(CpuDevice, too_large_an_allocation_is_out_of_memory_with_its_size) {
  const auto device = make_cpu_device(1);
  try {
    device->allocate(std::size_t{1} << 62);
    FAIL();
  } catch (const OutOfMemory& e) {
    EXPECT_EQ(e.code(), ExitCode::device);
    EXPECT_NE(std::string(e.what()).find("4398046511104.0 MiB"), std::string::npos) << e.what();
  }
  EXPECT_THROW(device->allocate(~std::size_t{0}), OutOfMemory);
}

TEST(CpuDevice, a_cuda_device_that_is_not_there_says_why) {
  std::string why;
  if (cuda_device_count(why) > 0) GTEST_SKIP() << "there is a GPU";
  EXPECT_FALSE(why.empty());
  try {
    make_device(DeviceKind::cuda);
    FAIL();
  } catch (const DeviceError& e) {
    EXPECT_EQ(e.code(), ExitCode::device);
  }
}

TEST(CpuDevice, norm_blocks_do_not_depend_on_threads) {
  std::vector<float> x(3 * norm_block + 77);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(std::sin(static_cast<double>(i)));
  std::vector<double> one(4), two(4);
  for (auto [threads, out] : {std::pair{1, &one}, std::pair{2, &two}}) {
    const auto device = make_cpu_device(threads);
    const auto stream = device->make_stream(StreamUse::compute);
    device->kernels().sum_squares(x.data(), x.size(), out->data(), *stream);
  }
  EXPECT_EQ(one, two);
  double expected = 0;
  for (std::size_t i = norm_block; i < 2 * norm_block; ++i) expected += static_cast<double>(x[i]) * x[i];
  EXPECT_NEAR(one[1], expected, 1e-9 * expected);
  expected = 0;
  for (std::size_t i = 3 * norm_block; i < x.size(); ++i) expected += static_cast<double>(x[i]) * x[i];
  EXPECT_NEAR(one[3], expected, 1e-9 * expected);
}

class CpuStream : public testing::TestWithParam<StreamUse> {
 protected:
  std::unique_ptr<Device> device_ = make_cpu_device(1);
  std::unique_ptr<Stream> stream_ = device_->make_stream(GetParam());
};

TEST_P(CpuStream, runs_work_in_order_and_more_of_it_than_the_ring_holds) {
  std::vector<int> seen;
  seen.reserve(5000);
  for (int i = 0; i < 5000; ++i) stream_->host(HostTask::of([&seen, i] { seen.push_back(i); }));
  stream_->synchronize();
  ASSERT_EQ(seen.size(), 5000u);
  for (int i = 0; i < 5000; ++i) ASSERT_EQ(seen[static_cast<std::size_t>(i)], i);
}

TEST_P(CpuStream, copies_and_zeroes) {
  std::vector<char> from(100, 'a'), to(100, 'b');
  device_->copy(to.data(), from.data(), 60, *stream_);
  device_->zero(to.data() + 20, 20, *stream_);
  stream_->synchronize();
  EXPECT_EQ(std::string(to.data(), 100),
            std::string(20, 'a') + std::string(20, '\0') + std::string(20, 'a') + std::string(40, 'b'));
}

TEST_P(CpuStream, an_event_is_reused) {
  const auto event = device_->make_event();
  EXPECT_TRUE(event->done());
  for (int i = 0; i < 100; ++i) {
    std::atomic<bool> ran{false};
    stream_->host(HostTask::of([&ran] { ran = true; }));
    stream_->record(*event);
    event->synchronize();
    EXPECT_TRUE(ran);
    EXPECT_TRUE(event->done());
  }
}

TEST_P(CpuStream, a_failure_is_kept_and_every_later_call_throws_it) {
  const auto event = device_->make_event();
  std::atomic<bool> ran_after{false};
  const auto call_all = [&] {
    stream_->host(HostTask::of([] { throw CommError("the wire is cut"); }));
    stream_->host(HostTask::of([&ran_after] { ran_after = true; }));
  };
  try {
    call_all();
  } catch (const CommError&) {
  }
  EXPECT_THROW(stream_->synchronize(), CommError);
  EXPECT_FALSE(ran_after);
  EXPECT_THROW(stream_->host(HostTask::of([] {})), CommError);
  EXPECT_THROW(stream_->wait(*event), CommError);
  EXPECT_THROW(stream_->record(*event), CommError);
  EXPECT_THROW(event->synchronize(), CommError) << "who waits for a failed stream hears of it";
  EXPECT_THROW(stream_->synchronize(), CommError);
}

INSTANTIATE_TEST_SUITE_P(Uses, CpuStream,
                         testing::Values(StreamUse::compute, StreamUse::communication, StreamUse::copy));

TEST(CpuStreams, hand_work_to_each_other_through_events) {
  const auto device = make_cpu_device(1);
  const auto compute = device->make_stream(StreamUse::compute);
  const auto communication = device->make_stream(StreamUse::communication);
  const auto computed = device->make_event(), reduced = device->make_event();
  int value = 0, expected = 0;
  for (int i = 0; i < 2000; ++i) {
    compute->host(HostTask::of([&value] { value += 1; }));
    compute->record(*computed);
    communication->wait(*computed);
    communication->host(HostTask::of([&value] { value *= 2; }));
    communication->record(*reduced);
    compute->wait(*reduced);
    expected = 2 * (expected + 1) % 1000;
    value %= 1000;
    ASSERT_EQ(value, expected);
  }
}

TEST(CpuStreams, the_compute_stream_does_not_pass_an_event_that_is_not_reached) {
  const auto device = make_cpu_device(1);
  const auto compute = device->make_stream(StreamUse::compute);
  const auto communication = device->make_stream(StreamUse::communication);
  const auto event = device->make_event();
  std::atomic<bool> release{false}, slow_done{false};
  communication->host(HostTask::of([&] {
    while (!release) std::this_thread::yield();
    slow_done = true;
  }));
  communication->record(*event);
  EXPECT_FALSE(event->done());
  std::thread opener([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    release = true;
  });
  compute->wait(*event);
  EXPECT_TRUE(slow_done);
  opener.join();
}

TEST(CpuStreams, a_failed_communication_stream_stops_the_compute_stream) {
  const auto device = make_cpu_device(1);
  const auto compute = device->make_stream(StreamUse::compute);
  const auto communication = device->make_stream(StreamUse::communication);
  const auto event = device->make_event();
  std::atomic<bool> go{false};
  communication->host(HostTask::of([&go] {
    while (!go) std::this_thread::yield();
    throw CommError("rank 1 is gone");
  }));
  communication->record(*event);
  go = true;
  EXPECT_THROW(compute->wait(*event), CommError);
  EXPECT_THROW(compute->synchronize(), CommError);
}

TEST(CpuCasts, round_to_nearest_even_and_come_back) {
  const auto device = make_cpu_device(1);
  const auto stream = device->make_stream(StreamUse::communication);
  const float inf = std::numeric_limits<float>::infinity();
  // 1 + 2^-8 and 1 + 3 * 2^-8 lie halfway between two bfloat16; 3.4e38 rounds up to infinity.
  std::vector<float> in{0.0f,         -0.0f,   1.0f, 1.00390625f, 1.01171875f,   1.0039064f,
                        -1.00390625f, 3.4e38f, inf,  -inf,        std::nanf(""), 1e-40f};
  const std::vector<float> expected{0.0f, -0.0f, 1.0f, 1.0f, 1.015625f, 1.0078125f, -1.0f, inf, inf, -inf};
  std::vector<std::uint16_t> narrow(in.size());
  std::vector<float> out(in.size());
  const Shape shape{static_cast<std::int64_t>(in.size())};
  device->kernels().cast({{DType::f32, shape}, in.data()}, {{DType::bf16, shape}, narrow.data()}, *stream);
  device->kernels().cast({{DType::bf16, shape}, narrow.data()}, {{DType::f32, shape}, out.data()}, *stream);
  stream->synchronize();
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(out[i], expected[i]) << in[i];
    EXPECT_EQ(std::signbit(out[i]), std::signbit(in[i]));
  }
  EXPECT_TRUE(std::isnan(out[10]));
  EXPECT_NEAR(out[11], 1e-40f, 1e-41f) << "denormal numbers lose digits and stay";
}

}  // namespace
}  // namespace dtrain
